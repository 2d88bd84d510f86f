import numpy as np
import pytest

from cgcnn_jax.report.convergence import Point, convergence, exponent

GATED = [Point(1000, 0.1), Point(10, 1.0, (0.8, 1.5)), Point(100, 0.31622776601683794)]


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_exponent_is_the_slope_between_logarithms() -> None:
    # Ten times the error fewer for a hundred times the crystals.
    assert exponent(GATED) == pytest.approx(-0.5)
    assert np.isnan(exponent(GATED[:1]))


def test_runs_stand_where_their_numbers_say() -> None:
    figure = convergence(
        {"Eq. 5": GATED, "Eq. 4": [Point(10, 2.0)], "Eq. 6": []},
        name="formation_energy_eV_per_atom",
        unit="eV/atom",
        band=(0.081, 0.136),
        published={"Eq. 4": Point(28046, 0.112)},
    )
    (axes,) = figure.axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    first, second = axes.containers
    np.testing.assert_array_equal(first[0].get_xydata(), [[10, 1.0], [100, 0.31622776601683794], [1000, 0.1]])
    np.testing.assert_array_equal(second[0].get_xydata(), [[10, 2.0]])
    # The interval of the first point reaches from 0.8 to 1.5; the others have none.
    (bars,) = first[2]
    np.testing.assert_allclose(bars.get_segments()[0], [[10, 0.8], [10, 1.5]])
    np.testing.assert_allclose(bars.get_segments()[2], [[1000, 0.1], [1000, 0.1]])
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.081, 0.136))
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[28046, 0.112]] and star.get_mec() == second[0].get_color()
    assert "DFT against experiment: 0.081 to 0.136 eV/atom" in legend(figure)
    assert "published, Eq. 4: 0.112 eV/atom" in legend(figure)
    assert "Eq. 5, error ∝ n$^{−0.50}$" in legend(figure) and "Eq. 4" in legend(figure)
    assert axes.get_xlabel() == "training crystals" and axes.get_ylabel() == "test MAE (eV/atom)"


def test_one_error_of_the_labels_is_a_line() -> None:
    figure = convergence({"Eq. 5": GATED}, name="gap", unit="eV", band=(0.6, 0.6))
    assert not figure.axes[0].patches
    assert "DFT against experiment: 0.6 eV" in legend(figure)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"series": {"Eq. 5": []}}, "gap: no run to draw"),
        ({"series": {"Eq. 5": [Point(10, 0.0)]}}, "need positive sizes and errors, got Point"),
        ({"series": {"Eq. 5": GATED}, "band": (2.0, 1.0)}, r"need 0 < low <= high of the band, got \(2\.0, 1\.0\)"),
        ({"series": {"Eq. 5": GATED}, "published": {"Eq. 4": Point(1, 1.0)}}, "published results of Eq. 4, but the"),
    ],
)
def test_what_cannot_be_drawn_is_told(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convergence(**arguments, name="gap", unit="eV")
