r"""Random search over the paper's Table S1, on formation energies; its Figure S3 is the picture of such a search.

  python -m experiments.sweep --config=configs/sweeps/table_s1.py:sum --workdir=runs/table_s1
  python -m experiments.sweep --config=configs/sweeps/table_s1.py:sum --search=optuna --workdir=runs/table_s1_optuna
After the colon: sum, Eq. 4 with all of the table; gated, Eq. 5 with the convolutions, their width and the step size.
The numbers of layers, columns and properties are the table's (which says 10 properties and Figure S3 9: all of Table
II). Of the other four the powers of e are chosen here, from where nothing happens to where training fails.
On MP-2018.6.1: add --config.data.source=jsonl --config.data.path=DATA/mp_2018_6_1 --config.split.kind=source
"""

import math

from ml_collections import ConfigDict

from cgcnn_jax import sweep
from configs import base

TRIALS = 80
WIDTHS = (10, 20, 30, 50, 70, 100, 150, 200)
STEP_SIZE = tuple(float(f"{math.exp(power):.3g}") for power in (-8, -7, -6, -5, -4))


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config("paper")
    config.data.target = "formation_energy_eV_per_atom"
    config.data.unit = "eV/atom"
    config.model.conv = preset or "sum"
    config.optimizer.schedule = "constant"
    if config.model.conv not in ("sum", "gated"):
        raise ValueError(f"unknown preset {preset!r} after the colon; choose one of sum, gated")
    return config.lock()


def get_space(preset: str | None = None) -> sweep.Space:
    """What an adaptive search chooses from."""
    three = {
        "model.num_convs": (1, 2, 3, 4, 5),
        "model.features": WIDTHS,
        "optimizer.learning_rate": STEP_SIZE,
    }
    if preset == "gated":
        return three
    return three | {
        "atoms.properties": (2, 3, 9),
        # L1 layers per atom or L2 after pooling.
        ("model.atom_layers", "model.crystal_layers"): [(n, 0) for n in (1, 2, 3, 4)]
        + [(0, n) for n in (1, 2, 3, 4, 5)],
        "optimizer.l2": tuple(float(f"{math.exp(power):.3g}") for power in (-14, -12, -10, -8, -6)),
        "model.init_scale": tuple(float(f"{math.exp(power):.3g}") for power in (-4, -3, -2, -1)),
        "model.dropout": (0.0, 0.1, 0.2),
    }


def get_trials(preset: str | None = None) -> list[sweep.Overrides]:
    """Eight draws of what one program can vary for each network, of which there are ten."""
    return sweep.random(TRIALS, get_space(preset), seed=0, per_shape=8)
