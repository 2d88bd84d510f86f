"""Distances as features: the released Gaussians, those of 1/d, and the paper's ten bins."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgcnn_jax.nn.basis import (
    BinnedBasis,
    GaussianBasis,
    ReciprocalBasis,
    binned_basis,
    gaussian_basis,
    reciprocal_basis,
)


def test_eight_angstrom_in_steps_of_a_fifth_are_41_gaussians():
    u = GaussianBasis()(jnp.array([0.0, 3.0, 8.0]))
    assert u.shape == (3, 41)
    # 3.0 Å is the centre of the 16th: 1 there, exp(-1) one spacing away, exp(-4) two.
    np.testing.assert_array_equal(u.argmax(axis=1), [0, 15, 40])
    np.testing.assert_allclose(u[1, 13:18], np.exp([-4.0, -1.0, 0.0, -1.0, -4.0]), rtol=1e-5)


def test_adjacent_gaussians_cross_at_exp_of_minus_a_quarter():  # half a spacing from both: exp(-(1/2)^2)
    u = gaussian_basis(jnp.array([3.1]), cutoff=8.0, spacing=0.2)
    np.testing.assert_allclose(u[0, 15:17], [math.exp(-0.25)] * 2, rtol=1e-5)


def test_gaussians_are_the_formula_in_float64():
    distances = np.random.default_rng(0).uniform(0.5, 9.0, 50).astype(np.float32)
    expected = [[math.exp(-(((float(d) - 0.2 * k) / 0.2) ** 2)) for k in range(41)] for d in distances]
    # The error of d / spacing is 40 * 6e-8; squared and exponentiated it stays below 1e-5 where u is not tiny.
    np.testing.assert_allclose(gaussian_basis(jnp.array(distances), cutoff=8.0, spacing=0.2), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("distance", "number"),
    [(0.7, 1), (0.71, 1), (1.14, 1), (1.16, 2), (2.82, 5), (5.19, 10), (0.5, 1), (5.3, 10), (100.0, 10)],
)
def test_bins_are_45_hundredths_of_an_angstrom_wide_from_seven_tenths(distance, number):
    # (2.82 - 0.7) / 0.45 = 4.71: the fifth. Outside, the nearest of the ten.
    u = np.asarray(BinnedBasis()(jnp.array([distance])))
    np.testing.assert_array_equal(u, [np.eye(10)[number - 1]])


def test_an_edge_belongs_to_the_bin_above_it():  # edges 0, 1, ..., 10 are exact in float32
    u = binned_basis(jnp.arange(11.0), low=0.0, high=10.0, num_bins=10)
    np.testing.assert_array_equal(u.argmax(axis=1), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9])


@pytest.mark.parametrize("spacing", [0.0, -0.2, 8.0])
def test_a_spacing_outside_the_range_is_an_error(spacing):
    with pytest.raises(ValueError, match="need 0 < spacing < cutoff"):
        gaussian_basis(jnp.ones(1), cutoff=8.0, spacing=spacing)


def test_reciprocal_gaussians_by_hand():
    # From 1/2 to 1/0.5 in four: centres 1/2, 1, 3/2, 2 per Å, 1/2 apart. 1/d = 1/2, 1 and 2 lie on the 1st, 2nd and 4th.
    u = reciprocal_basis(jnp.array([2.0, 1.0, 0.5]), shortest=0.5, cutoff=2.0, num_gaussians=4)
    steps = np.array([[0, 1, 2, 3], [1, 0, 1, 2], [3, 2, 1, 0]])
    np.testing.assert_allclose(u, np.exp(-(steps.astype(float) ** 2)), rtol=1e-5)


def test_reciprocal_gaussians_are_those_of_minus_c_over_d():
    # Written as in the literature: x = -0.75/d on an even grid that ends at the same distances, in float64.
    distances = np.random.default_rng(0).uniform(0.7, 8.0, 50).astype(np.float32)
    grid = np.linspace(-0.75 / 0.7, -0.75 / 8.0, 128)
    x = -0.75 / distances.astype(float)
    expected = np.exp(-(((x[:, None] - grid) / (grid[1] - grid[0])) ** 2))[:, ::-1]
    # 1/d up to 1.4 has an error of 1e-7, which over a spacing of 0.01 is 1e-5.
    np.testing.assert_allclose(ReciprocalBasis()(jnp.array(distances)), expected, atol=5e-5)


def test_bonds_beyond_the_reciprocal_range_count_to_its_ends():
    basis = ReciprocalBasis(shortest=0.5, cutoff=2.0, num_gaussians=4)
    np.testing.assert_array_equal(basis(jnp.array([0.0, 0.3, 1e3])), basis(jnp.array([0.5, 0.5, 2.0])))
    # A distance of 0, as padding may have, is no 0 * inf in the derivative either.
    assert jax.grad(lambda d: basis(d).sum())(jnp.array([0.0])) == 0


@pytest.mark.parametrize(
    ("shortest", "num_gaussians", "message"),
    [
        (0.0, 4, "need 0 < shortest < cutoff, got shortest=0.0 Å and cutoff=2.0 Å"),
        (2.0, 4, "need 0 < shortest < cutoff"),
        (0.5, 1, "need at least 2 Gaussians to span a range, got 1"),
    ],
)
def test_an_empty_reciprocal_range_is_an_error(shortest, num_gaussians, message):
    with pytest.raises(ValueError, match=message):
        reciprocal_basis(jnp.ones(1), shortest=shortest, cutoff=2.0, num_gaussians=num_gaussians)


def test_an_empty_range_of_bins_is_an_error():
    with pytest.raises(ValueError, match="need low < high"):
        binned_basis(jnp.ones(1), low=2.0, high=2.0, num_bins=10)
