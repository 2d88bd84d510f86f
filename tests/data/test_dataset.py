"""Every kind of bad input is counted, shown, or left out and recorded."""

import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal, CrystalFile, Rejected
from cgcnn_jax.data.dataset import DataError, load
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import read_directory

CIF = """data_x
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{sites}
"""


def cif(*sites: str, a: float = 4.12) -> str:
    return CIF.format(a=a, sites="\n".join(f"{site.split()[0]}{n} {site}" for n, site in enumerate(sites)))


GOOD = cif("Cs 0 0 0 1", "Cl 0.5 0.5 0.5 1")
BAD = {
    "partial occupancy": (cif("Cs 0 0 0 0.5", "Cl 0.5 0.5 0.5 1"), r"site 0 \(Cs.*0.5\) is partially occupied"),
    "unknown element": (cif("X 0 0 0 1", "Cl 0.5 0.5 0.5 1"), "unknown element 'X"),
    "overlap": (cif("Cs 0 0 0 1", "Cl 0.1 0 0 1"), r"sites 0 \(Cs\) and 1 \(Cl\) overlap, 0.412 Å apart"),
    "isolated": (cif("Ar 0 0 0 1", a=20), r"site 0 \(Ar\) has no neighbour within 8.0 Å"),
    "truncated": (GOOD[:150], "cannot be read"),
    "empty": ("", "cannot be read"),
    "not a CIF": ("\x00\x01binary", "cannot be read"),
}


@pytest.fixture
def folder(tmp_path):
    """Three good crystals with a table."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.cif").write_text(GOOD)
    (tmp_path / "id_prop.csv").write_text("a,1.0\nb,2.0\nc,3.0\n")
    return tmp_path


def load_folder(path, **kwargs):
    return load(read_directory(path, ["gap"]), Featurizer(), ["gap"], **kwargs)


def crystal(id: str, split: str | None = None, **targets: float) -> Crystal:
    return Crystal.from_arrays(id, 4.12 * np.eye(3), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], targets, split)


def test_labels_stand_beside_their_graphs(folder):
    dataset = load_folder(folder)
    assert dataset.ids == ("a", "b", "c") and len(dataset) == 3
    np.testing.assert_array_equal(dataset.targets, [[1], [2], [3]])
    assert dataset.formulas() == ["CsCl"] * 3
    assert dataset.rejected == ()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_an_error_or_a_recorded_skip(folder, kind):
    text, message = BAD[kind]
    (folder / "bad.cif").write_text(text)
    (folder / "id_prop.csv").write_text("a,1.0\nbad,9.0\nb,2.0\nc,3.0\n")
    with pytest.raises(DataError, match=rf"1 of 4 crystals cannot be used:\n  bad.*{message}(.|\n)*data.on_error=skip"):
        load_folder(folder)
    dataset = load_folder(folder, on_error="skip")
    assert dataset.ids == ("a", "b", "c")
    np.testing.assert_array_equal(dataset.targets, [[1], [2], [3]])  # labels follow their crystals, not their places
    assert [one.id for one in dataset.rejected] == ["bad"]
    assert re.search(message, dataset.rejected[0].reason)


def test_deuterium_in_a_cif_is_hydrogen(folder):
    """pymatgen reads D as H; only records and arrays, which nothing interprets, are refused."""
    (folder / "a.cif").write_text(cif("D 0 0 0 1", "Cl 0.5 0.5 0.5 1"))
    assert load_folder(folder).formulas()[0] == "HCl"


@pytest.mark.parametrize(
    ("row", "id", "message"),
    [
        ("a,5.0", "a", "a: the id stands twice; ids must be unique, and the one before is taken"),
        ("d,", "d", "d: no value for gap"),
        ("d,nan", "d", "d: no value for gap"),
        ("d,n/a", "d", "d: no value for gap"),
        ("d,inf", "d", "d: gap holds an infinite value"),
        ("e,5.0", "e", r"e: stands in id_prop\.csv but there is no e\.cif"),
    ],
)
def test_a_bad_row_is_an_error_or_a_recorded_skip(folder, row, id, message):
    with (folder / "id_prop.csv").open("a") as table:
        table.write(f"{row}\n")
    if id == "d":
        (folder / "d.cif").write_text(GOOD)
    with pytest.raises(DataError, match=rf"1 of 4 crystals cannot be used:\n  {message}"):
        load_folder(folder)
    dataset = load_folder(folder, on_error="skip")
    np.testing.assert_array_equal(dataset.targets, [[1], [2], [3]])
    assert [one.id for one in dataset.rejected] == [id]


def test_a_file_without_a_row_is_an_error_or_a_recorded_skip(folder):
    (folder / "z.cif").write_text(GOOD)
    with pytest.raises(DataError, match=r"1 of 4 crystals cannot be used:\n  z: z\.cif has no row in"):
        load_folder(folder)
    assert [one.id for one in load_folder(folder, on_error="skip").rejected] == ["z"]


def test_many_bad_ones_are_counted_and_the_first_five_shown():
    entries = [crystal("good", gap=1.0), *(Rejected(f"r{n}", f"r{n}: broken") for n in range(8))]
    with pytest.raises(DataError, match=r"8 of 9 crystals (.|\n)*r0: broken\n(.|\n)*r4: broken\n  and 3 more") as info:
        load(entries, Featurizer(), ["gap"])
    assert "r5" not in str(info.value)


def test_an_unknown_target_lists_those_there_are():
    with pytest.raises(DataError, match=r"no crystal has the target 'gpa'; the data have gap, k \(data\.target\)"):
        load([crystal("a", gap=1.0, k=2.0)], Featurizer(), ["gap", "gpa"])
    with pytest.raises(DataError, match="no crystal has the target 'gap'; the data have no labels"):
        load([crystal("a")], Featurizer(), ["gap"], on_error="skip")


def test_unreadable_data_are_not_reported_as_an_unknown_target():
    with pytest.raises(DataError, match="1 of 1 crystals cannot be used:\n  line 1 is broken"):
        load([Rejected("1", "line 1 is broken")], Featurizer(), ["gap"])


@pytest.mark.parametrize("entries", [[], [Rejected("1", "broken")], [crystal("a", gap=np.nan)]])
def test_nothing_left_is_an_error(entries):
    with pytest.raises(DataError, match=f"no crystal is left of {len(entries)}"):
        load(entries, Featurizer(), ["gap"], on_error="skip")


@pytest.mark.parametrize("value", [0.0, -2.5])
def test_no_logarithm_of_what_is_not_positive(value):
    entries = [crystal("a", k=100.0), crystal("b", k=value)]
    with pytest.raises(DataError, match=rf"b: k is {value:g}, which has no logarithm \(data\.log10\)"):
        load(entries, Featurizer(), ["k"], log10=True)
    dataset = load(entries, Featurizer(), ["k"], log10=True, on_error="skip")
    np.testing.assert_allclose(dataset.targets, [[2.0]], rtol=1e-15)


def test_one_of_several_targets_is_enough():
    entries = [crystal("a", gap=1.0, k=10.0), crystal("b", k=1000.0), crystal("c", gap=np.nan, k=np.nan)]
    dataset = load(entries, Featurizer(), ["k", "gap"], on_error="skip", log10=True)
    np.testing.assert_array_equal(dataset.targets, [[1, 0], [3, np.nan]])
    assert [one.reason for one in dataset.rejected] == ["c: no value for k, gap"]


def test_without_targets_no_label_is_needed():
    dataset = load([crystal("a"), crystal("b", gap=np.nan)], Featurizer(), [])
    assert dataset.targets.shape == (2, 0)


def test_odd_labels_in_memory_count_as_unknown():
    dataset = load([crystal("a", gap=1.0), crystal("b", gap=None)], Featurizer(), ["gap"], on_error="skip")
    assert [one.reason for one in dataset.rejected] == ["b: no value for gap"]


def test_the_sources_split_stays_with_its_crystal():
    lonely = Crystal.from_arrays("x", 20 * np.eye(3), ["Ar"], [[0, 0, 0]], {"gap": 1.0}, "val")
    dataset = load(
        [crystal("a", "train", gap=1.0), lonely, crystal("b", "test", gap=1.0), crystal("c", gap=1.0)],
        Featurizer(),
        ["gap"],
        on_error="skip",
    )
    assert dataset.source_split == ("train", "test", None)


def test_labels_may_change_without_building_graphs_anew(tmp_path):
    for value in (1.0, 2.0):
        dataset = load([crystal("a", gap=value)], Featurizer(), ["gap"], cache=tmp_path)
        assert dataset.targets[0, 0] == value
    assert len(list(tmp_path.iterdir())) == 1


def test_progress_counts_what_is_to_be_built(phonons):
    calls: list[tuple[int, int]] = []
    load([crystal("a"), Rejected("b", "b")], Featurizer(), [], on_error="skip", on_progress=lambda *c: calls.append(c))
    assert calls == [(1, 1)]


# ---- Real data ----


def test_first_200_phonon_crystals_load(phonons):
    dataset = load(phonons, Featurizer(), ["last_phdos_peak_cm-1"])
    assert len(dataset) == 200 and dataset.rejected == ()
    np.testing.assert_allclose(dataset.targets[:2, 0], [98.585771, 701.58572])
    assert dataset.store.n_atom.sum() == sum(len(c.species) for c in phonons)
    for formula, one in zip(dataset.formulas(), phonons, strict=True):
        assert formula == one.formula


def test_published_sample_loads_with_its_labels(shared_data):
    folder = shared_data / "cgcnn_reference" / "sample-regression"
    dataset = load(read_directory(folder, ["label"]), Featurizer(), ["label"])
    np.testing.assert_array_equal(dataset.targets[:, 0], np.arange(1, 11))
    assert dataset.ids[0] == "1000041" and dataset.ids[-1] == "9012304"
    # As the CIFs state their formulas: rock salt, sylvite, sphalerite, BaTiO3, rutile, graphite, ...
    assert dataset.formulas() == ["NaCl", "KCl", "ZnS", "BaTiO3", "TiO2", "C", "CsCl", "Ge", "Si", "C"]
    assert all(isinstance(entry, CrystalFile) for entry in read_directory(folder, ["label"]))


class Counted:
    """So many crystals of equal content, made anew each time they are gone through."""

    def __init__(self, crystal: Crystal, number: int) -> None:
        self._crystal = crystal
        self._number = number

    def __iter__(self):
        for n in range(self._number):
            yield replace(self._crystal, id=f"crystal-{n:09d}", targets={"gap": n / 7}, split=str(n % 5))


def test_a_crystal_on_its_way_into_a_stored_set_takes_a_few_numbers(tmp_path, rock_salt):
    graph = Featurizer()(rock_salt)
    peaks = []
    for number in (1500, 7500):
        crystals = Counted(rock_salt, number)
        tracemalloc.start()
        found = load(crystals, lambda crystal: graph, ["gap"], cache=tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.targets[:, 0].tolist() == [n / 7 for n in range(number)]
        assert found.source_split[:6] == ("0", "1", "2", "3", "4", "0")
    # 250 bytes: the id twice, its place in a dictionary, a label, a mark, and the parts of the index. With a list and a
    # float object for each label, and a dictionary of marks, it would be 500. Where the collector of garbage happens to run
    # moves each peak by some 150 kB, so it takes this many crystals to tell them apart.
    assert (peaks[1] - peaks[0]) / 6000 < 400
