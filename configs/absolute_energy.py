r"""Total energy per atom. Paper, Table I: test MAE 0.072 eV/atom, from 28,046 crystals.

  python -m experiments.train --config=configs/absolute_energy.py \
    --config.data.source=jsonl --config.data.path=DATA/jarvis_dft3d
The JARVIS set (OptB88vdW) has 18,040 crystals with this label; docs/paper.md has what is reached with them.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config(preset)
    config.data.wanted = "crystals with total energies, such as JARVIS-DFT (total_energy_eV_per_atom)"
    config.data.target = "total_energy_eV_per_atom"
    config.data.unit = "eV/atom"
    config.data.on_error = "skip"  # some JARVIS crystals have no total energy
    return config.lock()
