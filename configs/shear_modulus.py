r"""Shear modulus, Voigt-Reuss-Hill, as log10 of GPa. Paper, Table I: test MAE 0.087 log10(GPa), from 2,041 crystals.

  python -m experiments.train --config=configs/shear_modulus.py \
    --config.data.source=jsonl --config.data.path=DATA/matbench_log_vrh
Published CGCNN on the Matbench folds of this set: 0.0895 log10(GPa).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config(preset)
    config.data.wanted = "crystals with shear moduli, such as Matbench log_gvrh (G_vrh_GPa)"
    config.data.target = "G_vrh_GPa"
    config.data.unit = "GPa"
    config.data.log10 = True
    return config.lock()
