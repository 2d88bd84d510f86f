import math

import numpy as np
import pytest
from matplotlib.container import BarContainer

from cgcnn_jax.report import histograms


def heights(axes) -> list[float]:
    (bars,) = [one for one in axes.containers if isinstance(one, BarContainer)]
    return [bar.get_height() for bar in bars]


def test_a_bar_stands_for_every_count_with_its_share() -> None:
    axes = histograms.count_histogram([1, 2, 2, 2, 5], label="elements").axes[0]
    # Nobody has 3 or 4, and their bars are there, of height 0.
    assert heights(axes) == [1, 3, 0, 0, 1]
    assert [text.get_text() for text in axes.texts] == ["20.0%", "60.0%", "0", "0", "20.0%"]
    assert axes.get_xticks().tolist() == [1, 2, 3, 4, 5]
    assert axes.get_xlabel() == "elements" and axes.get_title(loc="left") == "n = 5"


def test_many_counts_share_bars_and_nobody_is_lost() -> None:
    counts = np.arange(1, 201)
    axes = histograms.count_histogram(counts, label="atoms").axes[0]
    # 200 counts in at most 60 bars are 4 to a bar.
    assert heights(axes) == [4] * 50
    assert axes.get_xlabel() == "atoms (bars of 4)"
    # Of 1 to 200, 180 numbers are at most 180.
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["90 % have at most 180"]
    assert axes.lines[0].get_xdata()[0] == 180


@pytest.mark.parametrize("counts", [[], [1.5], [-1], [math.nan]], ids=str)
def test_what_is_no_count_is_refused(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="elements: need whole numbers of at least 0"):
        histograms.count_histogram(counts, label="elements")


def test_elements_stand_by_frequency_in_two_rows() -> None:
    few = histograms.element_histogram({"H": 2, "O": 5, "He": 0}).axes
    assert len(few) == 1 and heights(few[0]) == [5, 2]
    assert [label.get_text() for label in few[0].get_xticklabels()] == ["O", "H"]
    assert few[0].get_title(loc="left") == "2 elements"
    rows = histograms.element_histogram({f"E{n}": n for n in range(1, 42)}).axes
    assert [heights(axes) for axes in rows] == [list(range(41, 20, -1)), list(range(20, 0, -1))]
    with pytest.raises(ValueError, match="at least one element with a count above 0"):
        histograms.element_histogram({"He": 0})


def test_shares_of_every_split_add_up_to_a_hundred() -> None:
    values = {"train": [0.0, 0.0, 1.0, 2.0], "val": [math.nan], "test": [2.0, math.nan]}
    axes = histograms.value_histogram(values, name="band_gap", unit="eV").axes[0]
    lines = {patch.get_label(): patch.get_data() for patch in axes.patches if patch.get_label()}
    # A split without labels is not drawn.
    assert list(lines) == ["train, n = 4", "test, n = 1"]
    train, edges, _ = lines["train, n = 4"]
    assert train.sum() == pytest.approx(100) and train[0] == 50 and train[-1] == 25
    assert lines["test, n = 1"][0][-1] == 100 and (edges[0], edges[-1]) == (0, 2)
    assert axes.get_xlabel() == "band gap (eV)"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": [math.nan]}, "gap: no label is known in train"),
        ({"train": [1.0, math.inf]}, "gap: 1 labels are not"),
    ],
)
def test_labels_that_cannot_be_drawn_are_told(values: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        histograms.value_histogram(values, name="gap", unit="eV")


def test_the_square_and_both_margins_hold_every_known_crystal() -> None:
    target = [0.0, 0.0, 0.0, 1.0, math.nan]
    prediction = [0.0, 0.0, 1.0, 1.0, 7.0]
    figure = histograms.joint_histogram(target, prediction, name="band_gap_eV", unit="eV", bins=10)
    (axes,) = figure.axes
    counts = axes.collections[0].get_array().reshape(10, 10)
    # Rows are predictions, columns calculated values: two right at 0, one at 1, one of 0 predicted 1.
    assert counts[0, 0] == 2 and counts[-1, -1] == 1 and counts[-1, 0] == 1 and counts.sum() == 4
    above, beside, colours = axes.child_axes
    assert colours.get_yticks().tolist() == [1, 2]
    assert [bar.get_height() for bar in above.patches] == [3, *[0] * 8, 1]
    assert [bar.get_width() for bar in beside.patches] == [2, *[0] * 8, 2]
    assert axes.get_xlim() == axes.get_ylim() and axes.get_aspect() == 1
    assert axes.get_xlabel() == "calculated band gap (eV)" and axes.get_ylabel() == "predicted band gap (eV)"
    assert axes.texts[0].get_text().startswith("n = 4\nMAE = 0.25 eV\n")
    with pytest.raises(ValueError, match="1 of 2 labelled crystals have a label or a prediction that is not finite"):
        histograms.joint_histogram([0.0, 1.0], [0.0, math.inf], name="x", unit="")
