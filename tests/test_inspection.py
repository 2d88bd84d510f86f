"""Predictor.inspect_graphs: what it returns belongs to the crystals asked about, and adds up to their predictions."""

import dataclasses

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.graph import CrystalGraphs, concatenate, node_graph
from cgcnn_jax.predict import compiled_for
from cgcnn_jax.train.step import inspect_batch, predict_batch
from tests.predictors import CLASSES, make_predictor

pytestmark = pytest.mark.usefixtures("quicker_compiling")


@pytest.fixture(scope="module")
def crystals(rock_salt: Crystal) -> list[Crystal]:
    """Four of 1 to 8 atoms."""
    coords = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return [
        Crystal.from_arrays("Po", 3.35 * np.eye(3), ["Po"], [[0, 0, 0]]),
        rock_salt,
        Crystal.from_arrays("CaTiO3", 3.89 * np.eye(3), ["Ca", "Ti", "O", "O", "O"], coords),
        Crystal.from_arrays("FeS", np.diag([3.0, 4.1, 5.2]), ["Fe", "S"], [[0, 0, 0], [0.4, 0.45, 0.52]]),
    ]


def graphs_of(predictor, crystals) -> CrystalGraphs:
    return concatenate([predictor.featurizer(crystal).graphs for crystal in crystals])


@pytest.mark.parametrize("pool", ["mean", "softmax", "site"])
def test_the_values_are_the_predictions_and_the_vectors_lead_to_them(crystals, pool):
    predictor = make_predictor(pool=pool)
    full = dataclasses.replace(predictor.featurizer, use_quotient=False)
    graphs = concatenate([full(crystal).graphs for crystal in crystals])
    found = predictor.inspect_graphs(graphs)
    np.testing.assert_allclose(found.values, predictor.predict_graphs(graphs), rtol=1e-6)
    values, vectors = predictor.embed_graphs(graphs)
    np.testing.assert_allclose(values, found.values, rtol=1e-6)
    np.testing.assert_allclose(vectors, found.crystals, rtol=1e-5, atol=1e-6)
    assert (found.sites is None) == (pool != "site")
    if pool != "softmax":
        # The pooled vector of both is the mean of the atoms', of another layer's in "softmax".
        means = [found.atoms[node_graph(graphs) == number].mean(axis=0) for number in range(4)]
        np.testing.assert_allclose(found.crystals, means, rtol=1e-5, atol=1e-6)
    assert np.abs(np.diff(found.crystals, axis=0)).max(axis=1).min() > 1e-3  # no two crystals alike


def test_sites_in_units_have_the_prediction_as_their_weighted_mean(crystals):
    predictor = make_predictor()
    graphs = graphs_of(predictor, crystals)
    assert graphs.node_weight.max() == 4  # of the rock salt's quotient
    found = predictor.inspect_graphs(graphs)
    sums = np.bincount(node_graph(graphs), found.sites[:, 0] * graphs.node_weight)
    np.testing.assert_allclose(
        sums / np.bincount(node_graph(graphs), graphs.node_weight), found.values[:, 0], rtol=1e-6
    )
    assert np.ptp(found.sites) > 0.01


def test_sites_of_a_classifier_are_logits(crystals):
    predictor = make_predictor(scaler=CLASSES)
    graphs = graphs_of(predictor, crystals)
    found = predictor.inspect_graphs(graphs)
    weights = np.stack([(node_graph(graphs) == number) * graphs.node_weight for number in range(4)])
    logits = weights @ found.sites / weights.sum(axis=1, keepdims=True)
    odds = np.exp(logits[:, 1] - logits[:, 0])
    np.testing.assert_allclose(found.values[:, 1], odds / (1 + odds), rtol=1e-5)


def test_crystals_in_several_batches_keep_their_own(crystals, monkeypatch):
    predictor = make_predictor()
    mixed = [crystals[number] for number in (2, 0, 1, 3, 2, 1, 0, 0, 3)]
    whole = predictor.inspect_graphs(graphs_of(predictor, mixed))
    monkeypatch.setattr("cgcnn_jax.predict._BATCH_SIZE", 2)
    monkeypatch.setattr("cgcnn_jax.predict._GPU_BATCH_SIZE", 2)
    again = make_predictor.__wrapped__()
    again._budget = None
    parts = again.inspect_graphs(graphs_of(again, mixed))
    assert again._budget.n_graph < len(mixed)  # or there would be one batch only
    assert whole.gates.shape == (len(graphs_of(predictor, mixed).distances), 2)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_batches_compile_once_and_prediction_stays_its_own_program(crystals):
    compiled_for.cache_clear()
    for _ in range(3):  # the network and two others of its architecture
        predictor = make_predictor.__wrapped__()
        predictor._budget = None
        graphs = graphs_of(predictor, crystals)
        for _ in range(3):
            predictor.inspect_graphs(graphs)
    assert compiled_for(predictor.model, inspect_batch)._cache_size() == 1
    assert compiled_for(predictor.model, predict_batch)._cache_size() == 0


@pytest.mark.parametrize("pool", ["mean", "site"])
def test_no_crystal_gives_empty_arrays(pool):
    predictor = make_predictor(pool=pool)
    nothing = CrystalGraphs(*(array[:0] for array in graphs_of(predictor, [_one_atom()])))
    found = predictor.inspect_graphs(nothing)
    assert found.values.shape == (0, 1)
    assert found.crystals.shape == found.atoms.shape == (0, 6)
    assert (found.sites is None) == (pool == "mean")


@pytest.mark.parametrize("conv", ["gated", "gated_mlp", "gated_update"])
def test_gates_belong_to_the_edges_of_their_crystal(crystals, conv):
    predictor = make_predictor(conv=conv, pool="mean")
    together = predictor.inspect_graphs(graphs_of(predictor, crystals))
    alone = [predictor.inspect_graphs(graphs_of(predictor, [crystal])) for crystal in crystals]
    for name in ("gates", "messages"):
        expected = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_allclose(getattr(together, name), expected, rtol=1e-4)
    assert 0 < together.gates.min() < together.gates.max() < 1
    assert np.ptp(together.gates, axis=0).min() > 0.01


def test_a_sum_has_no_gates(crystals):
    predictor = make_predictor(conv="sum", pool="mean")
    found = predictor.inspect_graphs(graphs_of(predictor, crystals))
    assert found.gates is None
    assert found.messages is None


def _one_atom() -> Crystal:
    return Crystal.from_arrays("Po", 3.35 * np.eye(3), ["Po"], [[0, 0, 0]])


def test_embeddings_of_a_supercell_are_those_of_its_cell(rock_salt):
    predictor = make_predictor(pool="mean")
    salt = rock_salt.to_structure()
    primitive, large = salt.get_primitive_structure(), salt.make_supercell([2, 1, 1], in_place=False)
    table = predictor.embed([salt, primitive, large])
    assert list(table["id"]) == ["0", "1", "2"]
    assert list(table["formula"]) == ["NaCl"] * 3
    vectors = table[[f"v_{k}" for k in range(6)]].to_numpy()
    np.testing.assert_allclose(vectors[1:], vectors[[0, 0]], rtol=1e-5)
    atoms = predictor.embed(large, atoms=True)
    assert list(atoms["atom"]) == list(range(16))
    assert list(atoms["element"]) == [site.specie.symbol for site in large]
    of_atoms = atoms[[f"v_{k}" for k in range(6)]].to_numpy()
    assert len(np.unique(of_atoms, axis=0)) == 2  # sodium and chlorine
    np.testing.assert_allclose(of_atoms.mean(axis=0), vectors[0], rtol=1e-5)


def test_embeddings_keep_their_order_around_structures_without_one(rock_salt, tmp_path):
    rock_salt.to_structure().to(str(tmp_path / "b.cif"))
    (tmp_path / "a.cif").write_text("data_x\n_cell_length_a 3\n")
    for atoms, count in ((False, 1), (True, 8)):
        table = make_predictor().embed([tmp_path, tmp_path / "absent.cif"], atoms=atoms)
        assert list(table["id"]) == ["a", *["b"] * count, str(tmp_path / "absent.cif")]
        assert "cannot be read" in table["reason"].iloc[0]
        assert "no such file" in table["reason"].iloc[-1]
        assert table["v_0"].isna().tolist() == [True, *[False] * count, True]
    assert make_predictor().embed([]).empty
    assert list(make_predictor().predict([tmp_path / "[bc].cif", tmp_path / "d.jsonl"])["id"]) == [
        "b",
        f"{tmp_path}/d.jsonl",
    ]
