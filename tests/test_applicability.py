"""What lies outside of the training crystals, and why: hand-made vectors and crystals with known bonds."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax import Predictor
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data import vacuum
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.dataset import load
from cgcnn_jax.graph import CrystalGraphs, concatenate
from tests.predictors import make_predictor

pytestmark = pytest.mark.usefixtures("quicker_compiling")


def rock_salt(cation: str, anion: str, length: float, id: str = "") -> Crystal:
    half = length / 2
    lattice = [[0, half, half], [half, 0, half], [half, half, 0]]
    name = id or f"{cation}{anion}"
    return Crystal.from_arrays(name, lattice, [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


TRAIN = [
    rock_salt("Na", "Cl", 5.64),
    rock_salt("Na", "Br", 5.97),
    rock_salt("K", "Cl", 6.29),
    rock_salt("Mg", "O", 4.21),
    rock_salt("Ca", "O", 4.81),
]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return make_predictor()


def graphs_of(predictor: Predictor, *crystals: Crystal) -> CrystalGraphs:
    return concatenate([predictor.featurizer(crystal).graphs for crystal in crystals])


@pytest.fixture(scope="module")
def fitted(predictor: Predictor) -> Applicability:
    return fit(predictor, *TRAIN)


def fit(predictor: Predictor, *crystals: Crystal, quantile: float = 1.0) -> Applicability:
    data = load(crystals, predictor.featurizer, [])
    return Applicability.fit(predictor, data, quantile=quantile)


def reasons(fitted: Applicability, predictor: Predictor, *crystals: Crystal) -> tuple[str, ...]:
    graphs = graphs_of(predictor, *crystals)
    empty = np.array([vacuum.thickness(crystal) for crystal in crystals])
    # Vectors of training crystals, so that none is far.
    return fitted.judge(graphs, empty, np.repeat(fitted.vectors[:1], len(crystals), axis=0)).reasons


def test_distances_and_threshold_by_hand(fitted: Applicability, predictor: Predictor) -> None:
    # Vectors 0, 1, 3, 7 and 7.5 on a line: to the nearest other one it is 1, 1, 2, 0.5 and 0.5, of which 1 is the median.
    line = np.array([[0.0], [1.0], [3.0], [7.0], [7.5]], np.float32)
    spacing = np.array([1, 1, 2, 0.5, 0.5])
    hand = dataclasses.replace(fitted, vectors=line, spacing=spacing, quantile=0.5)
    assert hand.threshold == 1
    found = hand.judge(graphs_of(predictor, *TRAIN[:3]), np.zeros(3), np.array([[2.2], [5.5], [9.0]]), k=2)
    np.testing.assert_allclose(found.distances, [[0.8, 1.2], [1.5, 2.0], [1.5, 2.0]], rtol=1e-6)
    np.testing.assert_array_equal(found.neighbors, [[2, 1], [3, 4], [4, 3]])
    far = "far from every training crystal: 1.5, when 50% of these have one within 1"
    assert found.reasons == ("", far, far)
    lost = hand.judge(graphs_of(predictor, *TRAIN[:2]), np.zeros(2), np.array([[np.nan], [2.9]]))
    np.testing.assert_allclose(lost.distances, [[np.inf], [0.1]], rtol=1e-5)
    assert lost.reasons[0].startswith("far from every training crystal: inf")
    assert lost.reasons[1] == ""
    assert hand.nearest(np.zeros((0, 1)), 9)[0].shape == (0, 5)


def test_the_distances_of_training_crystals_leave_out_themselves(fitted: Applicability) -> None:
    distance = np.linalg.norm(fitted.vectors[:, None] - fitted.vectors[None].astype(float), axis=-1)
    np.testing.assert_allclose(fitted.spacing, (distance + np.diag([np.inf] * 5)).min(axis=1), rtol=1e-12)
    assert fitted.spacing.min() > 1e-3
    assert not fitted.nearest(fitted.vectors)[0].any()


def test_no_rounding_sets_long_vectors_apart_from_themselves(fitted: Applicability) -> None:
    # So many columns are searched by |a|^2 + |b|^2 - 2ab.
    vectors = np.random.default_rng(0).normal(100, 1, (50, 64)).astype(np.float32)
    far = dataclasses.replace(fitted, ids=tuple(map(str, range(50))), vectors=vectors)
    distances, places = far.nearest(vectors, k=2)
    assert not distances[:, 0].any()
    np.testing.assert_array_equal(places[:, 0], range(50))
    apart = np.linalg.norm(vectors[:, None] - vectors[None].astype(float), axis=-1)
    np.testing.assert_allclose(distances[:, 1], np.sort(apart, axis=1)[:, 1], rtol=1e-12)
    # Nor does it give a crystal's place to its twin, which is as far away as float32 tells at this length.
    twins = vectors.copy()
    twins[25:] = vectors[:25]
    twins[25:, 0] = np.nextafter(twins[25:, 0], np.float32(np.inf))
    distances, places = dataclasses.replace(far, vectors=twins).nearest(twins)
    assert not distances.any()
    np.testing.assert_array_equal(places[:, 0], range(50))


def test_a_crystal_that_trained_is_known_by_its_looks(fitted: Applicability, predictor: Predictor) -> None:
    salt = TRAIN[0].to_structure()
    doubled = Crystal.from_structure("doubled", salt.make_supercell([2, 1, 1]))
    strained = rock_salt("Na", "Cl", 5.70, id="strained")
    sites = graphs_of(predictor, rock_salt("Na", "Cl", 5.64, id="mine"), doubled, strained, rock_salt("Li", "F", 4.02))
    vectors = predictor.embed_graphs(sites)[1]
    for known in (fitted, fitted.for_others()):
        assert known.alike(["NaCl", "NaCl", "NaCl", "LiF"], vectors).tolist() == [True, True, False, False]
        # Another crystal with such a vector is another crystal.
        assert not known.alike(["KCl"], vectors[:1]).any()
        assert known.alike([], vectors[:0]).shape == (0,)


def test_training_crystals_and_their_supercells_lie_within(fitted: Applicability, predictor: Predictor) -> None:
    doubled = [Crystal.from_structure(c.id, c.to_structure().make_supercell([2, 1, 1])) for c in TRAIN]
    graphs = graphs_of(predictor, *TRAIN, *doubled)
    empty = np.array([vacuum.thickness(crystal) for crystal in (*TRAIN, *doubled)])
    found = fitted.judge(graphs, empty, predictor.inspect_graphs(graphs).crystals)
    assert found.reasons == ("",) * 10
    np.testing.assert_array_equal(found.neighbors[:, 0], [*range(5), *range(5)])


def test_reasons_name_the_element_the_pair_and_the_bond(fitted: Applicability, predictor: Predictor) -> None:
    # Na and Cl are 2.82 Å apart in training, and equals 3.99 Å: in a cell of 5.50 Å 0.07 and 0.10 Å less.
    assert reasons(fitted, predictor, rock_salt("Na", "Cl", 5.50)) == ("",)
    found = reasons(
        fitted,
        predictor,
        rock_salt("Na", "I", 6.47),
        rock_salt("K", "Br", 6.60),
        rock_salt("Na", "Cl", 5.0),
        rock_salt("Na", "Cl", 8.0),
    )
    assert found[0] == "I is in no training crystal"
    assert found[1] == "K and Br are neighbours in no training crystal"
    assert "Na and Cl are 2.50 Å apart, at least 2.82 Å in training" in found[2]
    assert "Na and Na are 3.54 Å apart, at least 3.99 Å in training" in found[2]
    # In CaO the oxygens are 3.40 Å apart, and nowhere nearest to each other: only the first neighbours count as too far.
    assert found[3] == "Na and Cl are 4.00 Å apart as nearest neighbours, at most 2.82 Å in training"
    assert reasons(fitted, predictor, rock_salt("Na", "Cl", 6.0)) == ("",)


def test_slabs_and_molecules_are_told_by_their_empty_layer(fitted: Applicability, predictor: Predictor) -> None:
    # The densest planes of rock salt, (200), are a/2 apart; a is 6.29 and 5.97 Å in the two widest
    # of five crystals, between which the quantile 0.99 lies at 4 x 0.99 - 3 of the way.
    assert fitted.vacuum == pytest.approx((0.04 * 5.97 + 0.96 * 6.29) / 2, rel=1e-6)
    slab = Crystal.from_arrays("slab", np.diag([3.99, 3.99, 20]), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0]])
    (reason,) = reasons(fitted, predictor, slab)
    assert reason == "an empty layer of 20.0 Å, when 99% of the training crystals have none above 3.1 Å"


def test_what_is_saved_judges_alike_without_the_data(
    fitted: Applicability, predictor: Predictor, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    again = Applicability.load(tmp_path)
    graphs = graphs_of(predictor, rock_salt("Na", "I", 6.47), rock_salt("Mg", "O", 3.6))
    vectors = predictor.inspect_graphs(graphs).crystals
    one, other = (known.judge(graphs, np.array([0.0, 9.0]), vectors, k=3) for known in (fitted, again))
    np.testing.assert_array_equal(one.distances, other.distances)
    np.testing.assert_array_equal(one.neighbors, other.neighbors)
    assert one.reasons == other.reasons
    assert (again.ids, again.formulas) == (fitted.ids, ("NaCl", "NaBr", "KCl", "MgO", "CaO"))
    assert again.is_of(predictor)
    assert not again.is_of(make_predictor(conv="gated"))


def test_thinned_crystals_have_all_others_near_them(fitted: Applicability, predictor: Predictor) -> None:
    # On a line, with a threshold of 2: all that is within 1.5 of an earlier one that is kept is left out.
    line = np.array([[0.0], [0.1], [5.0], [5.1], [7.0], [9.0], [8.0]], np.float32)
    names, spacing = tuple("abcdefg"), np.array([1.0, 2, 2, 2, 2, 2, 2])
    labels = np.arange(7.0)[:, None]
    hand = dataclasses.replace(
        fitted, ids=names, formulas=names, labels=labels, vectors=line, spacing=spacing, quantile=0.5
    )
    some = hand.thinned()
    assert some.ids == some.formulas == tuple("acef") and some.labels[:, 0].tolist() == [0, 2, 4, 5]
    assert some.threshold == hand.threshold == 2 and some.is_thinned and not hand.is_thinned
    np.testing.assert_array_equal(some.vectors, line[[0, 2, 4, 5]])
    # What was in any training crystal stays known; a smaller threshold would make far what was left out.
    crystals = rock_salt("Na", "Cl", 5.5), rock_salt("Na", "I", 6.5)
    assert reasons(fitted.thinned(), predictor, *crystals) == reasons(fitted, predictor, *crystals)
    assert hand.at(0.01).threshold < 2 and some.at(0.9).threshold == 2
    with pytest.raises(ValueError, match=r"4 of 7 are kept, for the quantile 0\.5; a smaller one, 0\.01, needs all"):
        some.at(0.01)


@pytest.mark.parametrize("offset", [3, 1000, 1e5])  # f16 has steps of 0.5 at 1000, and ends at 65504
def test_no_training_crystal_is_far_from_what_is_exported(
    fitted: Applicability, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(0).normal(offset, 1, (400, 8)).astype(np.float32)
    apart = np.linalg.norm(vectors[:, None] - vectors[None].astype(float), axis=-1) + np.diag([np.inf] * 400)
    names = tuple(map(str, range(400)))
    known = dataclasses.replace(
        fitted,
        ids=names,
        formulas=names,
        labels=np.ones((400, 1)),
        vectors=vectors,
        spacing=apart.min(axis=1),
        quantile=0.95,
    )
    monkeypatch.setattr("cgcnn_jax.applicability._MOST_KEPT", vectors.size - 1)
    some = known.for_others()
    assert 100 < len(some.ids) < 350 and some.labels.shape == (len(some.ids), 0)
    assert some.nearest(vectors)[0].max() < 0.77 * known.threshold
    assert some.vectors.dtype == (np.float16 if offset == 3 else np.float32)
    monkeypatch.setattr("cgcnn_jax.applicability._MOST_KEPT", vectors.size)
    assert known.for_others().ids == names


def test_training_crystals_are_found_by_id_in_the_data(fitted: Applicability, predictor: Predictor) -> None:
    others = [rock_salt("Li", "F", 4.03), *TRAIN[::-1]]
    data = load(others, predictor.featurizer, [])
    predictor.about["split"] = {"train": [crystal.id for crystal in TRAIN]}
    found = Applicability.of_run(predictor, data, quantile=1.0)
    assert found.ids == fitted.ids
    np.testing.assert_allclose(found.vectors, fitted.vectors, rtol=1e-5)
    with pytest.raises(ValueError, match="2 of 5 training crystals are not in the data: KCl, MgO"):
        Applicability.of_run(predictor, load([others[0], others[1], others[4], others[5]], predictor.featurizer, []))
    predictor.about["split"] = {"train": []}
    with pytest.raises(ValueError, match="does not say which crystals it was trained on"):
        Applicability.of_run(predictor, data)


def test_one_crystal_has_no_distances_to_others(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="need two of them, got 1"):
        fit(predictor, TRAIN[0])


@pytest.mark.parametrize("quantile", [0.0, 1.5])
def test_a_quantile_is_between_0_and_1(predictor: Predictor, quantile: float) -> None:
    with pytest.raises(ValueError, match="quantile must be above 0 and at most 1"):
        fit(predictor, *TRAIN[:2], quantile=quantile)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m experiments\.interpret --workdir="):
        Applicability.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "emptied", "another archive"])
def test_a_damaged_file_is_named(fitted: Applicability, tmp_path: Path, damage: str) -> None:
    fitted.save(tmp_path)
    path = tmp_path / "applicability.npz"
    if damage == "another archive":
        np.savez(path, ids=np.array(["a"]))
    else:
        path.write_bytes(path.read_bytes()[: 1000 if damage == "cut" else 0])
    with pytest.raises(
        ValueError,
        match=r"applicability\.npz: damaged, or of an earlier version \(.*interpret --workdir=.* makes it anew",
    ):
        Applicability.load(tmp_path)
