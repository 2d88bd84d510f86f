"""Every preset, convolution and pool as a whole network: its equations in float64, and the numbers of the oldest versions.

Both in one test, because compiling a network takes longer than all else.
"""

import json

import jax
import numpy as np
import pytest

from cgcnn_jax.nn.pool import POOLS
from tests.numbers.cases import CASES, GOAL, GRAPHS, case
from tests.numbers.digest import COMMITTED, differences, numbers
from tests.numbers.float64 import STEP, as_float64
from tests.paper.test_equations import network


@pytest.fixture(scope="module")
def committed() -> dict:
    return json.loads(COMMITTED.read_text())["cases"]


def test_every_case_has_its_numbers(committed):
    assert committed.keys() == CASES.keys(), (
        "presets, convolutions or pools came or went; with jax 0.9.2 and Python 3.11, the oldest versions, run "
        "python -m tests.numbers.digest --output=tests/numbers/digest.json"
    )


def test_a_millionth_of_the_weights_would_show(committed):
    one = committed["reference"]
    off = one | {"outputs": [one["outputs"][0] * 1.01, *one["outputs"][1:]]}
    assert differences(off, one, case("reference").admitted).keys() == {"outputs"}
    off = one | {"weights": [x * (1 + 1e-6) for x in one["weights"]]}
    assert differences(off, one, case("reference").admitted).keys() == {"weights"}


def test_every_pool_is_in_the_network_of_the_supplement():
    missing = set(POOLS) - {"mean", "softmax", "site"}
    assert not missing, (
        f"no float64 reference for the pools {sorted(missing)}: write each into `network` of "
        "tests/paper/test_equations.py, and name it here"
    )


@pytest.mark.parametrize("name", CASES)
def test_a_network_is_its_equations_and_has_the_numbers_of_the_oldest_versions(committed, name):
    # Outputs, and the derivative of the loss along a random direction in the weights of each part of the network.
    one = case(name)
    params = one.variables["params"]
    rest = as_float64({key: one.variables[key] for key in ("batch_stats", "constants")})

    def outputs(params):
        return network(one.model, rest | {"params": as_float64(params)}, GRAPHS, True)

    gradient, (values, _) = one.of_loss(params)
    exact = outputs(params)
    np.testing.assert_allclose(values, exact, rtol=0, atol=one.admitted * np.abs(exact).max())
    random = np.random.default_rng(0)
    for part, weights in params.items():
        direction = jax.tree.map(lambda leaf: random.normal(size=leaf.shape) / np.sqrt(leaf.size), weights)
        products = jax.tree.leaves(
            jax.tree.map(lambda g, d: float((np.float64(g) * d).sum()), gradient[part], direction)
        )
        losses = []
        for step in (STEP, -STEP):
            moved = jax.tree.map(lambda leaf, d, step=step: np.float64(leaf) + step * d, weights, direction)
            losses.append(((outputs(params | {part: moved}) - GOAL) ** 2).sum())
        expected = (losses[0] - losses[1]) / (2 * STEP)
        # Products of either sign are added, which may cancel.
        off = abs(sum(products) - expected) / sum(map(abs, products))
        assert off < 10 * one.admitted, (part, sum(products), expected)
    # A changed network or configuration changes them too: make digest.json anew then, and say so in the commit.
    assert differences(numbers(name), committed[name], one.admitted) == {}
