import math

import numpy as np
import pandas as pd
import pytest

from cgcnn_jax.report.trials import hyperparameter_effects, varied

TRIALS = pd.DataFrame(
    {
        "trial": [0, 1, 2, 3, 4],
        "model.num_convs": [1, 1, 2, 2, 3],
        "model.conv": ["sum", "gated", "gated", "sum", "sum"],
        "graph.quotient": [True] * 5,
        "val_mae": [0.4, 0.2, 0.1, 0.3, math.nan],
    }
)


def points(axes) -> dict[int, list[float]]:
    """Box number -> errors drawn there."""
    drawn = [collection.get_offsets() for collection in axes.collections]
    return {round(float(rows[0][0])): sorted(rows[:, 1].tolist()) for rows in drawn}


def test_fields_that_vary_are_told_from_bookkeeping() -> None:
    assert varied(TRIALS) == ["model.num_convs", "model.conv"]


def test_every_trial_with_an_error_is_in_every_panel() -> None:
    figure = hyperparameter_effects(TRIALS, unit="eV/atom")
    convs, kinds = figure.axes
    assert points(convs) == {0: [0.2, 0.4], 1: [0.1, 0.3]}
    assert [label.get_text() for label in convs.get_xticklabels()] == ["1", "2"]
    # In the order of the alphabet: gated has 0.2 and 0.1, sum 0.4 and 0.3.
    assert points(kinds) == {0: [0.1, 0.2], 1: [0.3, 0.4]}
    assert [label.get_text() for label in kinds.get_xticklabels()] == ["gated", "sum"]
    best = next(line for line in kinds.lines if line.get_marker() == "_")
    assert best.get_ydata().tolist() == [0.1, 0.3]
    assert convs.get_title(loc="left") == "4 trials, 1 without an error left out"
    assert convs.get_ylabel() == "validation MAE (eV/atom)" and convs.get_xlabel() == "model.num_convs"


def test_many_numbers_are_points_on_a_logarithmic_axis() -> None:
    rates = np.logspace(-4, -1, 12)
    trials = pd.DataFrame({"optimizer.learning_rate": rates, "val_mae": 1 + rates})
    (axes,) = hyperparameter_effects(trials, unit="").axes
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(axes.collections[0].get_offsets(), np.stack([rates, 1 + rates], axis=1))


def test_fractions_that_do_not_repeat_are_points_however_few() -> None:
    trials = pd.DataFrame(
        {"model.dropout": [0.013, 0.27, 0.19], "model.features": [8, 16, 32], "val_mae": [3.0, 1.0, 2.0]}
    )
    fractions, widths = hyperparameter_effects(trials, unit="").axes
    np.testing.assert_allclose(fractions.collections[0].get_offsets(), [[0.013, 3], [0.27, 1], [0.19, 2]])
    assert [label.get_text() for label in widths.get_xticklabels()] == ["8", "16", "32"]


def test_trials_that_blew_up_or_were_cut_short_leave_room_for_the_others() -> None:
    errors = [0.2, 0.3, 0.4, 0.5, 1e8, 0.01]
    status = ["finished"] * 5 + ["pruned"]
    trials = pd.DataFrame({"model.num_convs": [1, 1, 2, 2, 3, 3], "val_mae": errors, "status": status})
    (axes,) = hyperparameter_effects(trials, unit="eV").axes
    # Five times the median, 0.4 eV.
    assert points(axes) == {0: [0.2, 0.3], 1: [0.4, 0.5], 2: [2.0]}
    assert axes.get_title(loc="left") == "5 trials, 1 without an error left out; 1 above 2 drawn there"


def test_a_field_that_only_trials_without_an_error_change_has_no_panel() -> None:
    trials = pd.DataFrame(
        {
            "model.conv": ["sum", "gated", "sum", "sum"],
            "optimizer.learning_rate": [math.nan, math.nan, 0.1, 0.5],
            "graph.angles": [True, False, None, None],
            "val_mae": [0.1, 0.2, math.nan, 0.3],
            "status": ["finished", "finished", "diverged", "pruned"],
        }
    )
    convs, angles = hyperparameter_effects(trials, unit="eV").axes
    assert points(convs) == {0: [0.2], 1: [0.1]} and convs.get_xlabel() == "model.conv"
    assert [label.get_text() for label in angles.get_xticklabels()] == ["False", "True"]
    assert convs.get_title(loc="left") == "2 trials, 2 without an error left out"


@pytest.mark.parametrize("top", [3.0, 3e2, 3e8])
def test_a_logarithmic_axis_has_labels_over_any_number_of_decades(top: float) -> None:
    # Half of the trials are large, so that none is far from the median.
    trials = pd.DataFrame({"model.num_convs": [1, 1, 2, 2], "val_mae": [0.3, top, top, top]})
    figure = hyperparameter_effects(trials, unit="eV")
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    shown = [label for label in axes.get_yticklabels() if label.get_text() and low <= label.get_position()[1] <= high]
    assert axes.get_yscale() == "log" and len(shown) >= 2


@pytest.mark.parametrize(
    ("trials", "columns", "message"),
    [
        (TRIALS.drop(columns="val_mae"), None, "no column 'val_mae'; the trials have trial, model.num_convs"),
        (TRIALS, ["model.width"], "no column 'model.width'"),
        (TRIALS[:1], None, "no hyperparameter varies"),
        (TRIALS.assign(val_mae=math.nan), None, "none of the 5 trials has a finite val_mae"),
    ],
)
def test_tables_that_cannot_be_drawn_are_told(trials: pd.DataFrame, columns: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hyperparameter_effects(trials, unit="eV", columns=columns)
