r"""Band gap (PBE). Paper, Table I: test MAE 0.388 eV, from 16,458 crystals with a gap.

  python -m experiments.train --config=configs/band_gap.py \
    --config.data.source=jsonl --config.data.path=DATA/mp_2018_6_1 --config.split.kind=source
Published CGCNN on this set and split, metals included: 0.292 eV.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config(preset)
    config.data.wanted = "crystals with band gaps, such as MP-2018.6.1 (gap_pbe_eV)"
    config.data.target = "gap_pbe_eV"
    config.data.unit = "eV"
    return config.lock()
