"""What must not leak: other crystals of the batch, and padding. What must add up: the quotient in training."""

import functools

import jax
import numpy as np

from cgcnn_jax.graph import PadBudget, node_graph, pad


def assert_trees_close(one, other, rtol, atol):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), one, other)


def test_no_gradient_reaches_another_crystal(network, graphs_of, to_batch, rock_salt, perovskite, triclinic):
    graphs = to_batch(graphs_of(rock_salt, perovskite, triclinic)).graphs
    node_owner = node_graph(graphs)
    edge_owner = node_owner[graphs.receivers]
    for number in range(3):
        derivatives = network.sensitivity(graphs, number)
        for name, owner in (
            ("edge_weight", edge_owner),
            ("distances", edge_owner),
            ("angles", edge_owner),
            ("node_weight", node_owner),
        ):
            derivative = np.asarray(derivatives[name])
            np.testing.assert_array_equal(derivative[owner != number], 0.0, err_msg=name)
            if name == "edge_weight":
                assert np.abs(derivative[owner == number]).min() > 0


def dirty(batch):
    """Finite garbage wherever a padding node, edge or graph lies; weights and masks stay. Senders point at an atom."""
    graphs = batch.graphs
    is_node, is_edge = graphs.node_weight > 0, graphs.edge_weight > 0
    assert not is_node.all() and not is_edge.all() and not graphs.graph_mask.all()
    return batch._replace(
        graphs=graphs._replace(
            species=np.where(is_node, graphs.species, 5),
            distances=np.where(is_edge, graphs.distances, np.float32(1e3)),
            angles=np.where(is_edge[:, None], graphs.angles, np.float32(-9)),
            senders=np.where(is_edge, graphs.senders, 0),
        ),
        targets=np.where(batch.target_mask, batch.targets, np.float32(-7.0)),
    )


def test_garbage_in_the_padding_is_invisible_in_training(network, graphs_of, to_batch, rock_salt, triclinic):
    clean = to_batch(graphs_of(rock_salt, triclinic))
    # Loss, gradient and updated batch statistics; the same sums of the same numbers, plus weight 0 times garbage.
    assert_trees_close(network.training(dirty(clean)), network.training(clean), rtol=1e-5, atol=1e-6)


def test_garbage_in_the_padding_is_invisible_in_prediction(network, graphs_of, to_batch, rock_salt, triclinic):
    clean = to_batch(graphs_of(rock_salt, triclinic))
    np.testing.assert_allclose(
        network.outputs(dirty(clean).graphs)[:2], network.outputs(clean.graphs)[:2], rtol=1e-6, atol=1e-6
    )


def test_padding_graphs_are_finite(network, graphs_of, to_batch, triclinic):
    assert np.isfinite(network.outputs(to_batch(graphs_of(triclinic)).graphs)).all()


def test_the_quotient_trains_like_the_full_graph(network, graphs_of, to_batch, rock_salt, perovskite, triclinic):
    crystals = (rock_salt, perovskite, triclinic)
    full = network.training(to_batch(graphs_of(*crystals)))
    reduced = network.training(to_batch(graphs_of(*crystals, quotient=True)))
    # Loss, gradient, batch statistics: sums of about 150 bonds in float32.
    assert_trees_close(reduced, full, rtol=1e-3, atol=5e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(full[1])) > 1e-2


def test_training_moves_the_batch_statistics(network, graphs_of, to_batch, rock_salt, triclinic):
    before = network.variables["batch_stats"]
    after = network.training(to_batch(graphs_of(rock_salt, triclinic)))[2]
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (np.abs(old - new) > 1e-6).all()


def test_the_amount_of_padding_does_not_matter(network, graphs_of, triclinic):
    graphs = graphs_of(triclinic)
    tight = pad(graphs, PadBudget(len(graphs.species) + 1, len(graphs.distances), 2))
    np.testing.assert_allclose(network.outputs(tight)[:1], network.predict(graphs), rtol=1e-5, atol=1e-5)
