"""Contributions belong to atoms, add up to the prediction, and do not depend on how the crystal was written down."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from cgcnn_jax import Predictor, interpret
from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.interpret import Explanation
from cgcnn_jax.scaling import TargetScaler
from tests.predictors import CLASSES, make_predictor

pytestmark = pytest.mark.usefixtures("quicker_compiling")

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return make_predictor()


@pytest.fixture(scope="module")
def tetragonal() -> Crystal:
    """CaTiO3 stretched by 5 % along c: the oxygen in the Ti plane's bonds along c differs from the two others."""
    coords = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal.from_arrays("CaTiO3", np.diag([3.89, 3.89, 4.08]), ["Ca", "Ti", "O", "O", "O"], coords)


def explained(predictor: Predictor, *crystals: Crystal, **options: bool) -> list[Explanation]:
    found = list(interpret.explain(predictor, crystals, **options))
    assert all(isinstance(one, Explanation) for one in found)
    return found


def test_every_atom_has_a_part_and_their_mean_is_the_prediction(predictor, tetragonal, rock_salt) -> None:
    crystals = [rock_salt, tetragonal]
    table = interpret.site_table(predictor, explained(predictor, *crystals))
    predictions = predictor.predict_entries(crystals)["prediction"]
    assert list(table["element"]) == ["Na"] * 4 + ["Cl"] * 4 + ["Ca", "Ti", "O", "O", "O"]
    assert list(table["atom"]) == [*range(8), *range(5)]
    np.testing.assert_allclose(table[["x", "y", "z"]].to_numpy()[8:], tetragonal.frac_coords)
    means = table.groupby("id", sort=False)["contribution"].mean()
    np.testing.assert_allclose(means, predictions, **CLOSE)
    assert set(table["unit"]) == {"eV/atom"}


def test_equivalent_atoms_share_a_contribution_and_others_do_not(predictor, tetragonal) -> None:
    parts = explained(predictor, tetragonal)[0].contributions[:, 0]
    assert parts[3] == parts[4]
    gaps = np.abs(np.subtract.outer(parts[:4], parts[:4]))[np.triu_indices(4, 1)]
    assert gaps.min() > 1e-3


def test_a_shuffled_supercell_has_the_contributions_of_its_cell(predictor, tetragonal) -> None:
    cells = np.indices((2, 1, 2)).reshape(3, -1).T
    coords = ((tetragonal.frac_coords[None] + cells[:, None]) / (2, 1, 2)).reshape(-1, 3)
    order = np.random.default_rng(0).permutation(len(coords))
    large = Crystal.from_arrays(
        "large", tetragonal.lattice * [[2], [1], [2]], np.tile(tetragonal.species, 4)[order], coords[order]
    )
    one, other = explained(predictor, tetragonal, large)
    np.testing.assert_allclose(other.contributions, np.tile(one.contributions, (4, 1))[order], **CLOSE)
    np.testing.assert_allclose(other.atoms, np.tile(one.atoms, (4, 1))[order], **CLOSE)
    np.testing.assert_allclose(other.vector, one.vector, **CLOSE)
    assert not np.array_equal(large.species[:5], tetragonal.species)


def test_the_quotient_changes_no_contribution(predictor, tetragonal, rock_salt) -> None:
    full = make_predictor(quotient=False)
    for one, other in zip(
        explained(predictor, tetragonal, rock_salt), explained(full, tetragonal, rock_salt), strict=True
    ):
        assert one.graphs.n_node[0] < other.graphs.n_node[0]
        np.testing.assert_allclose(one.contributions, other.contributions, **CLOSE)
        np.testing.assert_allclose(one.values, other.values, **CLOSE)


def test_other_pools_have_no_parts_and_say_what_to_train(tetragonal) -> None:
    predictor = make_predictor(pool="mean", conv="sum")
    found = explained(predictor, tetragonal)
    assert found[0].contributions is None
    assert found[0].bonds is None
    for ask in (interpret.site_table, lambda predictor, found: interpret.annotated(predictor, found[0])):
        with pytest.raises(ValueError, match=r"pools by 'mean'.*--config\.model\.pool=site"):
            ask(predictor, found)


def test_the_parts_of_a_classifier_are_logits(tetragonal) -> None:
    predictor = make_predictor(scaler=CLASSES)
    table = interpret.site_table(predictor, explained(predictor, tetragonal, with_bonds=False))
    mean = table[["logit_0", "logit_1"]].mean()
    expected = predictor.predict_entries([tetragonal])["probability_1"][0]
    np.testing.assert_allclose(1 / (1 + np.exp(mean["logit_0"] - mean["logit_1"])), expected, **CLOSE)


def test_several_properties_have_a_column_each(tetragonal) -> None:
    two = TargetScaler("regression", ("energy", "gap"), ("eV/atom", "eV"), (-1.5, 2.0), (0.7, 3.0))
    predictor = make_predictor(scaler=two)
    table = interpret.site_table(predictor, explained(predictor, tetragonal, with_bonds=False))
    expected = predictor.predict_entries([tetragonal])
    for name in ("energy (eV/atom)", "gap (eV)"):
        np.testing.assert_allclose(table[name].mean(), expected[name][0], **CLOSE)


def test_parts_that_miss_the_prediction_are_a_fault(predictor, tetragonal, monkeypatch) -> None:
    right = predictor.inspect_graphs

    def wrong(graphs):
        seen = right(graphs)
        return seen._replace(sites=seen.sites + 0.01)

    monkeypatch.setattr(predictor, "inspect_graphs", wrong)
    with pytest.raises(AssertionError, match="contributions make"):
        explained(predictor, tetragonal, with_bonds=False)


def test_a_structure_of_which_the_network_says_nothing_has_a_reason(predictor, tetragonal, monkeypatch) -> None:
    right = predictor.inspect_graphs
    monkeypatch.setattr(
        predictor, "inspect_graphs", lambda graphs: right(graphs)._replace(values=np.full((1, 1), np.nan))
    )
    (one,) = interpret.explain(predictor, [tetragonal], with_bonds=False)
    assert isinstance(one, Rejected) and one.reason == "CaTiO3: the network's output is not a finite number"


def test_bonds_are_those_of_the_crystal_with_both_atoms(predictor, rock_salt) -> None:
    # Rock salt of 5.64 Å: 6 of the other kind at 2.82 Å and, as 8 are wanted, all 12 of the same at 3.988 Å.
    table = interpret.bond_table(explained(predictor, rock_salt))
    assert len(table) == 8 * 18
    unlike = table["element_i"] != table["element_j"]
    np.testing.assert_allclose(table["distance"][unlike], 2.82, atol=1e-5)
    np.testing.assert_allclose(table["distance"][~unlike], 3.988, atol=1e-3)
    assert list(table.groupby("atom_i").size()) == [18] * 8
    for one in ("i", "j"):
        assert [rock_salt.species[atom] for atom in table[f"atom_{one}"]] == [
            {"Na": 11, "Cl": 17}[symbol] for symbol in table[f"element_{one}"]
        ]
    # Two kinds of receivers with two kinds of bonds each.
    gates = table.groupby(["element_i", "element_j"])["gate"]
    assert len(gates) == 4
    np.testing.assert_allclose(gates.std(), 0, atol=1e-6)
    assert gates.mean().to_numpy().std() > 0.01
    np.testing.assert_allclose(table["gate"], (table["gate_0"] + table["gate_1"]) / 2, rtol=1e-6)
    assert table["message_1"].min() > 0


def test_gates_do_not_depend_on_the_cell(predictor, tetragonal) -> None:
    structure = tetragonal.to_structure().make_supercell([1, 2, 1])
    doubled = Crystal.from_structure("doubled", structure)
    one, other = (interpret.bond_table([found]) for found in explained(predictor, tetragonal, doubled))
    assert len(other) == 2 * len(one)
    key = ["element_i", "element_j", "distance", "gate"]
    np.testing.assert_allclose(
        np.repeat(one.sort_values(key)["gate"].to_numpy(), 2), other.sort_values(key)["gate"], atol=1e-5
    )


def test_what_cannot_be_read_keeps_its_place(predictor, tetragonal, tmp_path: Path) -> None:
    entries = [Rejected("bad", "bad: no such file"), tetragonal, tetragonal]
    found = list(interpret.explain(predictor, entries, with_bonds=False))
    table = interpret.site_table(predictor, found)
    assert list(table["id"]) == ["bad"] + ["CaTiO3"] * 10
    assert list(table["reason"]) == ["bad: no such file"] + [""] * 10
    assert table["contribution"].isna().tolist() == [True] + [False] * 10
    assert interpret.bond_table(found).empty


def test_a_structure_carries_its_contributions_through_json_and_cif(predictor, tetragonal, tmp_path: Path) -> None:
    one = explained(predictor, tetragonal, with_bonds=False)[0]
    structure = interpret.annotated(predictor, one)
    structure.to(str(tmp_path / "x.json"))
    again = Structure.from_file(tmp_path / "x.json")
    np.testing.assert_array_equal(again.site_properties["contribution"], one.contributions[:, 0])

    text = interpret.cif_text(structure)
    back = interpret.read_cif(text)
    # Matched by place, not by order: whichever way pymatgen sorts the atoms it reads.
    for site, value in zip(structure, one.contributions[:, 0], strict=True):
        (same,) = [other for other in back if site.is_periodic_image(other, 1e-4)]
        assert same.specie == site.specie
        assert same.properties["contribution"] == pytest.approx(value, abs=1e-7)
    plain = Structure.from_str(text, fmt="cif")  # pymatgen by itself reads the atoms
    assert plain.matches(structure)


def test_awkward_names_of_properties_survive_the_cif(predictor, tetragonal) -> None:
    structure = tetragonal.to_structure()
    structure.add_site_property("energy (eV/atom)", [0.5, -1.25, 0, 3, 2])
    back = interpret.read_cif(interpret.cif_text(structure))
    assert sorted(back.site_properties["energy__eV_atom"]) == [-1.25, 0, 0.5, 2, 3]


def test_properties_in_other_letters_keep_a_column_each_in_the_cif(predictor, tetragonal) -> None:
    structure = tetragonal.to_structure()
    structure.add_site_property("\N{GREEK SMALL LETTER EPSILON}", [1, 2, 3, 4, 5])
    structure.add_site_property("\N{GREEK SMALL LETTER MU}", [6, 7, 8, 9, 10])
    back = interpret.read_cif(interpret.cif_text(structure))
    assert {name: sorted(values) for name, values in back.site_properties.items()} == {
        "u03b5": [1, 2, 3, 4, 5],
        "u03bc": [6, 7, 8, 9, 10],
    }


def test_properties_alike_to_a_cif_and_its_own_columns_are_kept_apart(predictor, tetragonal) -> None:
    structure = tetragonal.to_structure()
    names = ("K*", "K", "label", "occupancy", "K?")
    for number, name in enumerate(names):
        structure.add_site_property(name, [number] * 5)
    back = interpret.read_cif(interpret.cif_text(structure))
    expected = {"K_2": 0, "K": 1, "label_2": 2, "occupancy_2": 3, "K_3": 4}
    assert {name: values[0] for name, values in back.site_properties.items()} == expected


def test_the_plane_holds_the_directions_of_largest_variance() -> None:
    # Points on a cross: 3 units along (1, 1, 0) / sqrt 2, 1 unit along z, nothing else; variances 9 to 1.
    long, short = np.array([1, 1, 0]) * 3 / np.sqrt(2), np.array([0, 0, 1.0])
    vectors = np.array([long, -long, short, -short]) + [5, 6, 7]
    plane = interpret.principal_plane(vectors)
    np.testing.assert_allclose(plane.shares, [0.9, 0.1])
    np.testing.assert_allclose(np.abs(plane.project(vectors)), [[3, 0], [3, 0], [0, 1], [0, 1]], atol=1e-12)
    with pytest.raises(ValueError, match="a plane needs three vectors"):
        interpret.principal_plane(vectors[:2])


def test_the_full_graph_is_built_by_the_predictors_own_rule(predictor, rock_salt) -> None:
    nearest = dataclasses.replace(predictor.featurizer.neighbors, num_neighbors=6)
    featurizer = dataclasses.replace(predictor.featurizer, neighbors=nearest)
    other = Predictor(predictor.model, predictor.weights, predictor.scaler, featurizer, {})
    assert len(explained(other, rock_salt)[0].bonds.distances) == 8 * 6


def test_ids_that_are_paths_name_files_in_the_folder(predictor, rock_salt, tmp_path) -> None:
    ids = ["../../x", "/x", "a/b", "a_b", "A_B", "x\0", "y" * 400, ".."]
    crystals = [dataclasses.replace(rock_salt, id=id) for id in ids]
    folder = tmp_path / "in" / "structures"
    interpret.write_structures(predictor, explained(predictor, *crystals), folder)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in written} == {folder}
    assert len({path.name.lower() for path in written}) == 2 * len(ids)
    assert {"a_b.cif", "a_b_2.cif", "A_B_3.cif", "x_.json"} <= {path.name for path in written}
