r"""Formation energy per atom. Paper, Table I: test MAE 0.039 eV/atom, from 28,046 crystals.

On the embedded demo crystals, whose labels come from a machine-learned potential:
  python -m experiments.train --config=configs/formation_energy.py
On MP-2018.6.1 with its split (published CGCNN from 60,000 crystals: 0.031 eV/atom):
  python -m experiments.train --config=configs/formation_energy.py --workdir=runs/mp_2018_6_1 \
    --config.data.source=jsonl --config.data.path=DATA/mp_2018_6_1 --config.split.kind=source
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config(preset)
    config.data.target = "formation_energy_eV_per_atom"
    config.data.unit = "eV/atom"
    return config.lock()
