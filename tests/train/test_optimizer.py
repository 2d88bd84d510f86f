"""Optimisers against torch's rules written in numpy, and schedules at the steps where they turn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cgcnn_jax.train.optimizer import OptimizerSettings, build_optimizer, learning_rate_schedule

GRADIENTS = np.array([[0.3, -2.0], [0.1, 0.5], [-1.0, 0.02]])
START = np.array([2.0, -1.0])


def follow(gradients=GRADIENTS, start=START, **settings) -> np.ndarray:
    """Parameters after each gradient."""
    chosen = OptimizerSettings(**settings)
    optimizer = build_optimizer(chosen, learning_rate_schedule(chosen, 1, len(gradients)))
    params = {"w": jnp.array(start, jnp.float32)}
    state = optimizer.init(params)
    path = []
    for gradient in gradients:
        updates, state = optimizer.update({"w": jnp.array(gradient, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params["w"]))
    return np.array(path)


def torch_adam(l2: float, decoupled: bool = False) -> np.ndarray:
    """torch.optim.Adam(lr=0.01, weight_decay=l2), or AdamW, as its documentation states it."""
    w, m, v, path = START.copy(), 0.0, 0.0, []
    for t, gradient in enumerate(GRADIENTS, start=1):
        if decoupled:
            w = w - 0.01 * l2 * w
        g = gradient if decoupled else gradient + l2 * w
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        w = w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_adam_couples_l2_as_torch_does(l2):
    np.testing.assert_allclose(follow(name="adam", learning_rate=0.01, l2=l2), torch_adam(l2), rtol=1e-6)


def test_adamw_decouples_it():
    path = follow(name="adamw", learning_rate=0.01, l2=0.5)
    np.testing.assert_allclose(path, torch_adam(0.5, decoupled=True), rtol=1e-6)
    assert np.abs(path - torch_adam(0.5)).max() > 1e-3


def test_adamw_decays_biases_and_normalisations_too():  # as torch without parameter groups: w - 0.01 * 0.5 * w
    optimizer = build_optimizer(OptimizerSettings(name="adamw", l2=0.5), optax.constant_schedule(0.01))
    params = {"gate": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, -1.0)}, "gate_norm": {"scale": jnp.ones(2)}}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    jax.tree.map(lambda u, w: np.testing.assert_allclose(u, -0.005 * w, rtol=1e-6), updates, params)


def numpy_muon(gradients: np.ndarray, start: np.ndarray, l2: float) -> np.ndarray:
    """Nesterov momentum of 0.95, each singular value s / |G| sent five times through 3.4445 s - 4.775 s^3 + 2.0315 s^5."""
    w, m = start.copy(), 0.0
    rows, columns = start.shape
    for t, g in enumerate(gradients, start=1):
        m = 0.95 * m + 0.05 * g
        ahead = 0.95 * m / (1 - 0.95 ** (t + 1)) + 0.05 * g / (1 - 0.95**t)
        left, s, right = np.linalg.svd(ahead / np.linalg.norm(ahead), full_matrices=False)
        for _ in range(5):
            s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
        assert (s > 0.6).all() and (s < 1.25).all()  # what the polynomial is for
        w = w - 0.01 * (max(1, columns / rows) ** 0.5 * (left * s) @ right + l2 * w)
    return w


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_muon_levels_the_singular_values_of_a_matrix(shape):
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=shape), random.normal(size=(3, *shape))
    path = follow(gradients, start, name="muon", learning_rate=0.01, l2=0.5)
    np.testing.assert_allclose(path[-1], numpy_muon(gradients, start, 0.5), rtol=1e-4, atol=1e-5)


def test_muon_leaves_biases_to_adam():
    # Nesterov's Adam by hand, after one gradient g: the mean 0.1 g, looked ahead to 0.9 * 0.1 g / (1 - 0.9^2), and
    # 0.1 g / (1 - 0.9), over |g|: 0.09 / 0.19 + 1 of the rate. They do not decay.
    path = follow(GRADIENTS[:1], name="muon", learning_rate=0.01, l2=0.5)
    np.testing.assert_allclose(path[0], START - 0.01 * (0.09 / 0.19 + 1) * np.sign(GRADIENTS[0]), rtol=1e-6)


def test_l2_enters_the_gradient():  # g = 0: Adam turns the L2 term alone into a full step, whatever its size
    path = follow(np.zeros((1, 2)), name="adam", learning_rate=0.01, l2=1e-4)
    np.testing.assert_allclose(path[0] - START, [-0.01, 0.01], rtol=1e-3)


def test_sgd_with_momentum_by_hand():
    # Velocity g1 = 1; 0.9 * 1 + 2 = 2.9; 0.9 * 2.9 + 0 = 2.61. Steps of 0.1: 2 - 0.1, - 0.29, - 0.261.
    path = follow(np.array([[1.0, 0], [2.0, 0], [0, 0]]), name="sgd", learning_rate=0.1, momentum=0.9)
    np.testing.assert_allclose(path[:, 0], [1.9, 1.61, 1.349], rtol=1e-6)
    np.testing.assert_allclose(path[:, 1], -1)


def test_sgd_with_l2_by_hand():
    # 2 - 0.1 (1 + 0.5 * 2) = 1.8; velocity 0.9 * 2 + (0 + 0.5 * 1.8) = 2.7: 1.8 - 0.27.
    path = follow(np.array([[1.0, 0], [0, 0]]), name="sgd", learning_rate=0.1, momentum=0.9, l2=0.5)
    np.testing.assert_allclose(path[:, 0], [1.8, 1.53], rtol=1e-6)


def test_sgd_without_momentum_goes_down_the_gradient():
    path = follow(name="sgd", learning_rate=0.1, momentum=0.0)
    np.testing.assert_allclose(path, START - 0.1 * np.cumsum(GRADIENTS, axis=0), rtol=1e-6)


def test_clipping_shortens_long_gradients_only():
    # (3, -4) has norm 5: scaled to (0.6, -0.8). (0.3, 0.4) has norm 0.5 and stays.
    gradients = np.array([[3.0, -4.0], [0.3, 0.4]])
    path = follow(gradients, name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=1.0)
    np.testing.assert_allclose(np.diff([START, *path], axis=0), [[-0.6, 0.8], [-0.3, -0.4]], rtol=1e-6)


def test_clipping_comes_before_l2():  # as torch: clip_grad_norm_ sees the loss's gradient, step() adds the decay
    path = follow(np.array([[3.0, -4.0]]), name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=1.0, l2=0.1)
    np.testing.assert_allclose(path[0], [2 - 0.6 - 0.2, -1 + 0.8 + 0.1], rtol=1e-6)


def rates(steps, *, epochs, steps_per_epoch, **settings) -> list[float]:
    schedule = learning_rate_schedule(OptimizerSettings(**settings), epochs, steps_per_epoch)
    return [float(schedule(step)) for step in steps]


def test_milestones_act_from_the_first_step_of_their_epoch():
    # Ten epochs of seven steps, milestones at epochs 2 and 8: steps 14 and 56.
    found = rates(
        [0, 13, 14, 55, 56, 69],
        epochs=10,
        steps_per_epoch=7,
        learning_rate=0.02,
        schedule="milestones",
        milestones=(2, 8),
        factor=0.1,
    )
    np.testing.assert_allclose(found, [0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002], rtol=1e-5)


def test_constant_is_constant():
    assert rates([0, 5, 10**6], epochs=2, steps_per_epoch=3, learning_rate=0.5) == [0.5] * 3


def test_cosine_falls_from_the_rate_to_zero():
    # cos^2: half at half of the 20 steps, (1 + cos(pi/4)) / 2 at a quarter.
    found = rates([0, 5, 10, 20, 30], epochs=5, steps_per_epoch=4, learning_rate=0.1, schedule="cosine")
    np.testing.assert_allclose(found, [0.1, 0.05 * (1 + 0.5**0.5), 0.05, 0, 0], atol=1e-8)


def test_cosine_warms_up_linearly():
    # Two epochs of four steps: 0, 1/8, ..., 1 at step 8; then half of the cosine at the middle of the other 12.
    found = rates(
        [0, 1, 4, 8, 14, 20], epochs=5, steps_per_epoch=4, learning_rate=0.8, schedule="cosine", warmup_epochs=2.0
    )
    np.testing.assert_allclose(found, [0, 0.1, 0.4, 0.8, 0.4, 0], atol=1e-7)


def test_one_cycle_starts_at_a_25th_peaks_at_30_percent_and_ends_near_zero():
    found = rates(range(101), epochs=10, steps_per_epoch=10, learning_rate=1.0, schedule="one_cycle")
    np.testing.assert_allclose([found[0], found[30], found[100]], [1 / 25, 1.0, 1 / 25e4], rtol=1e-4)
    assert int(np.argmax(found)) == 30
    # Halfway up, the mean of both ends; halfway down, half of the peak.
    np.testing.assert_allclose([found[15], found[65]], [(1 + 1 / 25) / 2, 0.5], rtol=1e-4)
    assert (np.diff(found[:31]) > 0).all() and (np.diff(found[30:]) < 0).all()


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match=r"unknown optimizer.schedule 'cosin'; choose one of \['constant', "):
        rates([0], epochs=1, steps_per_epoch=1, schedule="cosin")
    with pytest.raises(
        ValueError, match=r"unknown optimizer.name 'lion'; choose one of \['adam', 'sgd', 'adamw', 'muon'\]"
    ):
        build_optimizer(OptimizerSettings(name="lion"), optax.constant_schedule(1.0))
