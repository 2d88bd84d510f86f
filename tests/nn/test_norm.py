"""Batch normalisation: numbers worked by hand, weights, the running average, and two devices."""

import jax.numpy as jnp
import numpy as np
import pytest

from cgcnn_jax.nn.norm import BatchNorm, weighted_moments


def variables(width=1, mean=0.0, var=1.0, scale=1.0, bias=0.0):
    def full(value):
        return np.full(width, value, np.float32)

    return {
        "params": {"scale": full(scale), "bias": full(bias)},
        "batch_stats": {"mean": full(mean), "var": full(var)},
    }


def normalised(x, weight, *, training=True, **values):
    """Rows, and the running mean and variance afterwards."""
    rows = np.array(x, np.float32)[:, None]
    y, updated = BatchNorm().apply(
        variables(**values), rows, np.array(weight, np.float32), training=training, mutable=["batch_stats"]
    )
    stats = updated["batch_stats"]
    return np.asarray(y(rows))[:, 0], float(stats["mean"][0]), float(stats["var"][0])


def test_padding_rows_do_not_enter_the_statistics():
    # Mean 2 and variance 1 of [1, 3]; flax's BatchNorm over all eight rows gives [0.5, 2.5] in their place.
    y, mean, var = normalised([1, 3, 0, 0, 9, -9, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(y[:2], [-1, 1], rtol=1e-5)
    assert mean == pytest.approx(0.9 * 0 + 0.1 * 2, rel=1e-6)
    assert var == pytest.approx(0.9 * 1 + 0.1 * 1 * 2 / 1, rel=1e-6)  # unbiased: n / (n - 1) = 2


def test_a_weight_stands_for_so_many_equal_rows():
    # 2, 2, 2 and 6: mean 3, variance (3 * 1 + 9) / 4 = 3, unbiased 3 * 4 / 3 = 4. (2 - 3) / sqrt(3), (6 - 3) / sqrt(3).
    weighted, *weighted_stats = normalised([2, 6], [3, 1])
    repeated, *repeated_stats = normalised([2, 2, 2, 6], [1, 1, 1, 1])
    np.testing.assert_allclose(weighted, [-1 / np.sqrt(3), np.sqrt(3)], rtol=1e-5)
    np.testing.assert_allclose(repeated[[0, 3]], weighted, rtol=1e-6)
    np.testing.assert_allclose(weighted_stats, [0.1 * 3, 0.9 + 0.1 * 4], rtol=1e-6)
    np.testing.assert_allclose(repeated_stats, weighted_stats, rtol=1e-6)


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    # (7 - 3) / sqrt(4 - 1e-5 + 1e-5) * 10 + 1 = 21
    y, mean, var = normalised([7], [1], training=False, mean=3.0, var=4 - 1e-5, scale=10.0, bias=1.0)
    np.testing.assert_allclose(y, [21], rtol=1e-6)
    assert (mean, var) == (3.0, np.float32(4 - 1e-5))


def test_a_batch_without_rows_leaves_the_statistics():
    y, mean, var = normalised([5, -5], [0, 0], mean=3.0, var=4.0)
    assert (mean, var) == (3.0, 4.0)
    assert np.isfinite(y).all()


def test_a_single_row_has_a_finite_running_variance():  # n / (n - 1) is 1/0; the batch's variance is 0
    y, mean, var = normalised([5], [1])
    np.testing.assert_allclose(y, [0], atol=1e-6)
    np.testing.assert_allclose([mean, var], [0.5, 0.9], rtol=1e-6)


def test_the_variance_survives_a_large_mean():
    # E[x^2] - E[x]^2 in float32 has an error of 1e8 * 6e-8 = 6 here; the variance is 1.
    _, var, count = weighted_moments(jnp.array([[9999.0], [10001.0]]), jnp.ones(2))
    np.testing.assert_allclose(var, [1.0], rtol=1e-5)
    assert count == 2


def test_columns_are_normalised_apart():
    x = np.random.default_rng(0).normal([1, -5, 20], [0.1, 2, 7], (40, 3)).astype(np.float32)
    weight = np.random.default_rng(1).integers(0, 4, 40).astype(np.float32)
    y, updated = BatchNorm().apply(variables(3), x, weight, training=True, mutable=["batch_stats"])
    rows = np.repeat(x.astype(float), weight.astype(int), axis=0)
    np.testing.assert_allclose(y(x), (x - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)


TWO_DEVICES = """
    import jax, numpy as np
    from jax.sharding import AxisType, PartitionSpec as P
    from cgcnn_jax.nn.norm import BatchNorm

    assert jax.device_count() == 2
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    params = {"scale": np.float32([1.5]), "bias": np.float32([-0.5])}
    stats = {"mean": np.float32([0.5]), "var": np.float32([2.0])}
    x = np.float32([1, 2, 4, 77, 9, 77, 77, 77])[:, None]
    target = np.float32([1, -1, 2, 0, 3, 0, 0, 0])[:, None]

    def results(weight, axis_name):
        def f(params, x, weight, target):
            y, updated = BatchNorm(axis_name=axis_name).apply(
                {"params": params, "batch_stats": stats}, x, weight, training=True, mutable=["batch_stats"]
            )
            return y(x), updated["batch_stats"]

        if axis_name:
            f = jax.shard_map(f, mesh=mesh, in_specs=(P(), P("batch"), P("batch"), P("batch")), out_specs=(P("batch"), P()))

        def loss(params, x):
            y = f(params, x, weight, target)[0]
            return (weight[:, None] * (y - target) ** 2).sum()

        y, new = jax.jit(f)(params, x, weight, target)
        return y[weight > 0], new, *jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x)

    # Three real rows on one device and one on the other; then four and none.
    for weight in ([1, 1, 1, 0, 1, 0, 0, 0], [1, 2, 3, 1, 0, 0, 0, 0]):
        weight = np.float32(weight)
        one, two = results(weight, None), results(weight, "batch")
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, two)
    # Rows 1, 2, 4, 9: mean 4, variance (9 + 4 + 0 + 25) / 4 = 9.5.
    y = results(np.float32([1, 1, 1, 0, 1, 0, 0, 0]), "batch")[0]
    expected = (np.array([1, 2, 4, 9]) - 4) / np.sqrt(9.5 + 1e-5) * 1.5 - 0.5
    np.testing.assert_allclose(np.asarray(y)[:, 0], expected, rtol=1e-5)
    print("equal")
"""


def test_two_devices_with_unequal_shares_equal_one(on_devices):
    assert on_devices(2, TWO_DEVICES, quick=True) == "equal"
