from ml_collections import ConfigDict

from configs import base


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config(preset)
    config.data.target = "formation_energy_eV_per_atom"
    config.data.unit = "eV/atom"
    return config.lock()
