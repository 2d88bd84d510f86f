r"""Fermi energy. Paper, Table I: test MAE 0.363 eV, from 28,046 crystals.

  python -m experiments.train --config=configs/fermi_energy.py \
    --config.data.source=jsonl --config.data.path=DATA/mp_2018_6_1 --config.split.kind=source
The label is the database's of 2020, known for a part of the crystals.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config(preset)
    config.data.wanted = "crystals with Fermi energies, such as MP-2018.6.1 (fermi_energy_eV_mp2020)"
    config.data.target = "fermi_energy_eV_mp2020"
    config.data.unit = "eV"
    config.data.on_error = "skip"  # crystals without the label
    return config.lock()
