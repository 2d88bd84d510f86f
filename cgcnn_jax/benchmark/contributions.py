"""What the models of the JARVIS-Leaderboard reach on the crystals that are judged here.

A copy of github.com/usnistgov/jarvis_leaderboard has, in jarvis_leaderboard/contributions/SUBMISSION, the predictions of
every model for every test crystal: AI-SinglePropertyPrediction-PROPERTY-DATASET-test-mae.csv.zip with columns id and
prediction. Where crystals are missing here, the published errors are those on others; these are on the same.
Source: K. Choudhary et al., npj Comput. Mater. 10, 93 (2024), doi:10.1038/s41524-024-01259-w.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cgcnn_jax.data.sources.stream import DAMAGE
from cgcnn_jax.data.tasks import Task


def errors(task: Task, judged: pd.DataFrame, contributions: Path) -> dict[str, float]:
    """Mean absolute error of every submission over the crystals judged here, by its name.

    A submission that has not predicted all of them, each with a number, is left out: its error would be on others.

    Args:
      task: Of the suites mp_2018_6_1 and jarvis_dft3d.
      judged: Columns id and target, a row for every crystal.
      contributions: The folder contributions of the copy.

    Raises:
      FileNotFoundError: If no submission of that folder has predictions for the task.
      ValueError: If a file is damaged, or has not the columns id and prediction.
    """
    dataset = task.name.removesuffix(f"_{task.column}")
    name = f"AI-SinglePropertyPrediction-{task.column}-{dataset}-test-mae.csv.zip"
    files = sorted(contributions.glob(f"*/{name}"))
    if not files:
        raise FileNotFoundError(
            f"{contributions}: no SUBMISSION/{name}; --contributions wants the folder jarvis_leaderboard/contributions of "
            "a copy of github.com/usnistgov/jarvis_leaderboard"
        )
    found = {}
    for file in files:
        prediction = _predictions(file).reindex(judged["id"]).to_numpy(float)
        if np.isfinite(prediction).all():
            found[file.parent.name] = float(np.mean(np.abs(prediction - judged["target"].to_numpy(float))))
    return found


def _predictions(file: Path) -> pd.Series:
    """Predictions by id; of a crystal that stands twice the first."""
    try:
        table = pd.read_csv(file, dtype={"id": str}, compression="zip")
        numbers = pd.to_numeric(table["prediction"]).set_axis(table["id"])
    except (ValueError, KeyError, *DAMAGE) as error:
        raise ValueError(f"{file}: no table with columns id and prediction ({error}); fetch the copy again") from None
    return numbers[~numbers.index.duplicated()]
