"""Any batch: whichever crystals meet, in whatever order, each as quotient or full graph, none notices the others."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgcnn_jax.graph import concatenate

# As in test_invariances: float32 sums in another order.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(scope="module")
def forms(graphs_of, rock_salt, perovskite, triclinic):
    """Three crystals, each as its full graph and as its quotient."""
    return [
        [graphs_of(one, quotient=quotient) for quotient in (False, True)] for one in (rock_salt, perovskite, triclinic)
    ]


@pytest.fixture(scope="module")
def alone(network, forms):
    return [network.predict(full)[0] for full, _ in forms]


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5))
def test_a_prediction_is_that_of_the_crystal_alone_in_any_batch(network, forms, alone, members):
    together = network.predict(concatenate([forms[crystal][reduced] for crystal, reduced in members]))
    np.testing.assert_allclose(together, np.stack([alone[crystal] for crystal, _ in members]), **CLOSE)


def test_gradients_of_a_batch_are_those_of_its_crystals_added_up(network, forms, to_batch):
    if network.variables["batch_stats"]:
        pytest.skip(
            "batch normalisation is a function of the batch: there tests/paper and tests/numbers hold the numbers"
        )
    graphs = [full for full, _ in forms]
    whole = to_batch(concatenate(graphs))
    parts = []
    for number, one in enumerate(graphs):
        batch = to_batch(one)
        batch = batch._replace(targets=np.where(batch.target_mask, whole.targets[number], 0).astype(np.float32))
        parts.append(network.training(batch)[1])
    mean = jax.tree.map(lambda *slopes: sum(slopes) / len(slopes), *parts)
    # Means over three labels of three times as many terms.
    found = network.training(whole)[1]
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(mean))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6 * largest), found, mean)
    assert largest > 1e-2
