r"""Bulk modulus, Voigt-Reuss-Hill, as log10 of GPa. Paper, Table I: test MAE 0.054 log10(GPa), from 2,041 crystals.

  python -m experiments.train --config=configs/bulk_modulus.py \
    --config.data.source=jsonl --config.data.path=DATA/matbench_log_vrh
Published CGCNN on the Matbench folds of this set: 0.0712 log10(GPa).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config(preset)
    config.data.wanted = "crystals with bulk moduli, such as Matbench log_kvrh (K_vrh_GPa)"
    config.data.target = "K_vrh_GPa"
    config.data.unit = "GPa"
    config.data.log10 = True
    return config.lock()
