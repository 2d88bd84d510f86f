"""Crystal graph convolutional neural networks in JAX.

from cgcnn_jax import Predictor
Predictor.restore("runs/demo").predict([structure])
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgcnn_jax.data.crystal import Crystal as Crystal
    from cgcnn_jax.data.crystal import CrystalError as CrystalError
    from cgcnn_jax.data.dataset import Dataset as Dataset
    from cgcnn_jax.data.featurize import Featurizer as Featurizer
    from cgcnn_jax.data.neighbors import NearestK as NearestK
    from cgcnn_jax.data.neighbors import Radius as Radius
    from cgcnn_jax.data.neighbors import VoronoiBonds as VoronoiBonds
    from cgcnn_jax.data.neighbors import WholeShells as WholeShells
    from cgcnn_jax.ensemble import Ensemble as Ensemble
    from cgcnn_jax.graph import Batch as Batch
    from cgcnn_jax.graph import CrystalGraphs as CrystalGraphs
    from cgcnn_jax.graph import PadBudget as PadBudget
    from cgcnn_jax.judging import JudgingPredictor as JudgingPredictor
    from cgcnn_jax.nn.model import CGCNN as CGCNN
    from cgcnn_jax.predict import Predictor as Predictor
    from cgcnn_jax.scaling import TargetScaler as TargetScaler
    from cgcnn_jax.train.loop import fit as fit

__version__ = "0.1.0"

# Imported when first used: a worker process that builds graphs needs no jax, which takes seconds to import.
_HOME = {
    "Crystal": "data.crystal",
    "CrystalError": "data.crystal",
    "Dataset": "data.dataset",
    "Featurizer": "data.featurize",
    "NearestK": "data.neighbors",
    "Radius": "data.neighbors",
    "VoronoiBonds": "data.neighbors",
    "WholeShells": "data.neighbors",
    "Ensemble": "ensemble",
    "Batch": "graph",
    "CrystalGraphs": "graph",
    "PadBudget": "graph",
    "CGCNN": "nn.model",
    "JudgingPredictor": "judging",
    "Predictor": "predict",
    "TargetScaler": "scaling",
    "fit": "train.loop",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
