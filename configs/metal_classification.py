r"""Metal or not. Paper, Fig. 2d: area under the ROC curve 0.95 on the test split, accuracies 0.80 and 0.95.

  python -m experiments.train --config=configs/metal_classification.py \
    --config.data.source=jsonl --config.data.path=DATA/mp_2018_6_1 --config.split.kind=source
Class 1 is metal (PBE gap 0).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str | None = None) -> ConfigDict:
    config = base.get_config(preset)
    config.data.wanted = "crystals marked as metals or not, such as MP-2018.6.1 (is_metal)"
    config.data.target = "is_metal"
    config.model.task = "classification"
    config.model.num_classes = 2
    config.train.loss = "auto"  # cross entropy, whatever the preset
    config.model.dropout = 0.5  # published weights
    return config.lock()
