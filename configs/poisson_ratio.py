r"""Poisson ratio. Paper, Table I: test MAE 0.030, from 2,041 crystals.

  python -m experiments.train --config=configs/poisson_ratio.py \
    --config.data.source=jsonl --config.data.path=DATA/mp_elastic_cgcnn3402
The same list of ids as the paper's, less 211 without a structure.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config(preset)
    config.data.wanted = "crystals with Poisson ratios, such as the CGCNN elasticity list (poisson_ratio)"
    config.data.target = "poisson_ratio"
    return config.lock()
