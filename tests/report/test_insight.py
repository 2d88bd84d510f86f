"""What the figures of explanations show."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from cgcnn_jax.report import insight


def test_the_map_shows_every_crystal_at_its_place_and_counts_the_sets() -> None:
    groups = {"training": [[0, 0], [1, 2], [3, 1]], "within": np.zeros((0, 2)), "outside": [[5, 5]]}
    figure = insight.crystal_map(groups, shares=[0.75, 0.125], names={"outside": ["a$_1"], "within": []})
    (text,) = figure.axes[0].texts
    assert text.get_text() == "a$_1" and text.xy == (5, 5)
    many = {"structures": np.arange(62).reshape(31, 2)}  # too many to be read
    assert not insight.crystal_map(many, shares=[1, 0], names={"structures": ["x"] * 31}).axes[0].texts
    axes = figure.axes[0]
    drawn = {one.get_label(): one.get_offsets() for one in axes.collections if isinstance(one, PathCollection)}
    assert list(drawn) == ["training (3)", "outside (1)"]
    np.testing.assert_array_equal(drawn["training (3)"], groups["training"])
    assert axes.get_xlabel() == "component 1 (75% of the variance)"
    assert axes.get_ylabel() == "component 2 (12% of the variance)"


def test_the_map_colours_points_by_their_values() -> None:
    figure = insight.crystal_map(
        {"structures": [[0, 0], [1, 1]]}, shares=[0.6, 0.4], values={"structures": [-2.0, 3.0]}, label="energy (eV)"
    )
    (points,) = figure.axes[0].collections
    np.testing.assert_array_equal(points.get_array(), [-2, 3])
    assert points.get_clim() == (-2, 3)
    assert figure.axes[1].get_ylabel() == "energy (eV)"


@pytest.mark.parametrize(
    ("groups", "values", "message"),
    [
        ({"a": np.zeros((0, 2))}, None, "at least one crystal"),
        ({"a": [[0, 0]]}, {"a": [1, 2]}, "'a' has 1 points but 2 values"),
    ],
)
def test_maps_of_nothing_or_of_other_lengths_are_refused(groups, values, message) -> None:
    with pytest.raises(ValueError, match=message):
        insight.crystal_map(groups, shares=[1, 0], values=values)


def test_the_line_through_the_gates_is_the_median_of_each_bin() -> None:
    # 40 bonds near 2 Å and 40 near 4 Å, with gates of 0 to 39/40 at both; half as much in the second convolution.
    distances = np.concatenate([2 + np.arange(40) / 1000, 4 + np.arange(40) / 1000])
    gates = np.tile(np.arange(40) / 40, 2)[:, None] * [[1, 0.5]]
    figure = insight.gates_by_distance(distances, gates, 3 * gates)
    panels = np.array(figure.axes).reshape(2, 2)
    for row, factor in enumerate((1, 3)):
        for t, scale in enumerate((1, 0.5)):
            (line,) = panels[row, t].lines
            np.testing.assert_allclose(line.get_ydata(), [factor * scale * 19.5 / 40] * 2)
            np.testing.assert_allclose(line.get_xdata(), [2, 4], atol=2 / insight._BINS)
    assert panels[0, 1].get_title("left") == "convolution 2"
    # Bonds of two lengths show no course.
    assert not insight.gates_by_distance(distances.round(1), gates, gates).axes[0].lines
    with pytest.raises(ValueError, match="gates need bonds"):
        insight.gates_by_distance([], np.zeros((0, 2)), np.zeros((0, 2)))
