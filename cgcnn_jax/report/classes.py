"""How a classifier orders, hits and knows: ROC, precision and recall, calibration and confusion, as frames.

All take the frame of `FinishedRun.labelled`. With two classes the curves are those of class 1, with more one a class
that occurs, against the rest.
"""

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics


def roc(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Name with area -> true positive rate y against false positive rate x at every threshold; empty for one class."""
    curves = {}
    for name, is_class, probability in _one_against_rest(frame):
        x, y, threshold = sklearn_metrics.roc_curve(is_class, probability)
        # The first threshold is infinite: above every probability.
        curve = pd.DataFrame({"x": x, "y": y, "threshold": threshold.clip(max=1.0)})
        curves[f"{name}: AUC {sklearn_metrics.auc(x, y):.3f}"] = curve
    return curves


def precision_recall(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Name with average precision -> precision y against recall x at every threshold; empty for one class.

    Average precision is sum_k (R_k - R_k-1) P_k over the thresholds, without interpolation (scikit-learn).
    """
    curves = {}
    for name, is_class, probability in _one_against_rest(frame):
        precision, recall, threshold = sklearn_metrics.precision_recall_curve(is_class, probability)
        # The last point, recall 0, belongs to no threshold.
        curve = pd.DataFrame({"x": recall[:-1], "y": precision[:-1], "threshold": threshold})
        area = sklearn_metrics.average_precision_score(is_class, probability)
        curves[f"{name}: AP {area:.3f}"] = curve
    return curves


def calibration(frame: pd.DataFrame, num_bins: int = 10) -> tuple[pd.DataFrame, float]:
    """Observed shares against predicted probabilities, in bins of equal width.

    With two classes the probability is that of class 1 and the share that of the crystals of class 1. With more, the
    probability is that of the predicted class and the share that of the crystals predicted right.

    Args:
      frame: Of a classifier.
      num_bins: Between 0 and 1.

    Returns:
      A row per bin that holds crystals: x mean probability, y share, low and high its 95 % Wilson interval, n crystals.
      And the expected calibration error sum_bins n / n_all |y - x| (Guo et al. 2017).
    """
    probabilities = _probabilities(frame)
    if probabilities.shape[1] == 2:
        probability, is_hit = probabilities[:, 1], frame["target"] == 1
    else:
        probability, is_hit = probabilities.max(axis=1), frame["target"] == frame["prediction"]
    number = np.minimum((probability * num_bins).astype(int), num_bins - 1)
    bins = pd.DataFrame({"x": probability, "hit": is_hit.to_numpy(float)}).groupby(number)
    table = bins.agg(x=("x", "mean"), y=("hit", "mean"), hits=("hit", "sum"), n=("hit", "size")).reset_index(drop=True)
    bounds = [binomtest(int(row.hits), int(row.n)).proportion_ci(method="wilson") for row in table.itertuples()]
    error = float((table["n"] * (table["y"] - table["x"]).abs()).sum() / table["n"].sum())
    table = table.assign(low=[bound.low for bound in bounds], high=[bound.high for bound in bounds])
    return table.drop(columns="hits"), error


def confusion(frame: pd.DataFrame) -> pd.DataFrame:
    """Counts: a row per true class, a column per predicted class, all classes there."""
    classes = range(_probabilities(frame).shape[1])
    counts = sklearn_metrics.confusion_matrix(frame["target"], frame["prediction"], labels=list(classes))
    names = [f"class {number}" for number in classes]
    return pd.DataFrame(counts, index=names, columns=names)


def _one_against_rest(frame: pd.DataFrame) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, whether a crystal is of the class, and its probability."""
    probabilities, labels = _probabilities(frame), frame["target"].to_numpy(int)
    occurring = np.unique(labels)
    if len(occurring) == 1:
        return []
    if probabilities.shape[1] == 2:
        occurring = np.array([1])
    return [(f"class {one}", labels == one, probabilities[:, one]) for one in occurring]


def _probabilities(frame: pd.DataFrame) -> np.ndarray:
    return frame[[column for column in frame if column.startswith("probability_")]].to_numpy()
