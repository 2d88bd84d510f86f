"""JARVIS files, and the splits of its leaderboard."""

import json
import re
import zipfile
from collections import Counter

import numpy as np
import pytest

from cgcnn_jax.data import elements, sets
from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.sources import read_jarvis, read_jsonl
from cgcnn_jax.data.sources.jarvis import read_benchmark, read_task_lines, task_of


def zipped(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(path.name.removesuffix(".zip"), json.dumps(content))
    return path


def record(id: str = "JVASP-1", **more) -> dict:
    """Rock salt as jarvis-tools writes it: conventional symbols padded, unknown values as text."""
    atoms = {
        "lattice_mat": [[0.0, 2.82, 2.82], [2.82, 0.0, 2.82], [2.82, 2.82, 0.0]],
        "coords": [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]],
        "elements": ["Na ", "Cl"],
        "cartesian": False,
    }
    return {"jid": id, "atoms": atoms, "spg_number": "225", "slme": "na", "optb88vdw_bandgap": 5.0, **more}


def test_a_list_is_read_with_its_numbers(tmp_path):
    cartesian = record("JVASP-2")
    cartesian["atoms"] |= {"cartesian": True, "coords": [[0.0, 0.0, 0.0], [2.82, 2.82, 2.82]]}
    path = zipped(tmp_path / "jdft_3d.json.zip", [record(), cartesian])
    first, second = read_jarvis(path)
    assert (first.id, first.split, dict(first.targets)) == ("JVASP-1", None, {"optb88vdw_bandgap": 5.0})
    assert [elements.symbol(int(z)) for z in first.species] == ["Na", "Cl"]
    np.testing.assert_allclose(second.frac_coords, first.frac_coords, atol=1e-12)


def test_a_benchmark_chooses_crystals_values_and_split(tmp_path):
    path = zipped(tmp_path / "jdft_3d.json.zip", [record(f"JVASP-{number}") for number in range(6)])
    benchmark = zipped(
        tmp_path / "dft_3d_mbj_bandgap.json.zip",
        # JVASP-3 stands in two splits, as some do in published benchmarks.
        {"train": {"JVASP-1": 1.5, "JVASP-3": 3.5}, "val": {"JVASP-2": 2.5}, "test": {"JVASP-3": 3.5}},
    )
    crystals = list(read_jarvis(path, benchmark))
    assert [(one.id, one.split, one.targets["mbj_bandgap"]) for one in crystals] == [
        ("JVASP-1", "train", 1.5),
        ("JVASP-2", "val", 2.5),
        ("JVASP-3", "test", 3.5),
    ]
    assert crystals[0].targets["optb88vdw_bandgap"] == 5.0
    # MEGNet's values are texts, and its crystals have an id instead of a jid.
    renamed = {"id": "mp-10", "atoms": record()["atoms"]}
    zipped(tmp_path / "megnet.json.zip", [renamed])
    values = zipped(tmp_path / "megnet_e_form.json.zip", {"train": {"mp-10": "-0.5"}, "test": {"mp-11": "0"}})
    crystal, absent = read_jarvis(tmp_path / "megnet.json.zip", values)
    assert (crystal.id, crystal.split, crystal.targets["e_form"]) == ("mp-10", "train", -0.5)
    assert absent.id == "mp-11" and absent.reason.endswith(f"{tmp_path / 'megnet.json.zip'} does not hold")


def test_what_cannot_be_used_is_rejected_or_refused(tmp_path):
    broken, disordered = record("JVASP-2"), record("JVASP-3")
    del broken["atoms"]["elements"]
    disordered["atoms"]["elements"] = ["Na", "Xx"]
    path = zipped(tmp_path / "a.json.zip", [record(), broken, disordered, {"jid": "JVASP-4"}, 5])
    good, *rejected = read_jarvis(path)
    assert isinstance(good, Crystal) and all(isinstance(one, Rejected) for one in rejected)
    assert [one.id for one in rejected] == ["JVASP-2", "JVASP-3", "JVASP-4", "a.json.zip:5"]
    assert "not atoms as JARVIS writes them (KeyError: 'elements')" in rejected[0].reason
    assert "unknown element 'Xx'" in rejected[1].reason
    assert "a JARVIS record has jid and atoms" in rejected[2].reason

    other = zipped(tmp_path / "b.json.zip", {"train": {"JVASP-9": 1.0}, "test": {}})
    of_broken = zipped(tmp_path / "c.json.zip", {"train": {"JVASP-2": 1.0}, "test": {}})
    assert [one.id for one in read_jarvis(path, of_broken)] == ["JVASP-2"]  # which it holds
    with pytest.raises(ValueError, match=r"a\.json\.zip: holds none of the 1 crystals of .*b\.json\.zip"):
        list(read_jarvis(path, other))
    with pytest.raises(ValueError, match=r"a benchmark is .* this is not"):
        read_benchmark(path)
    with pytest.raises(ValueError, match="a JARVIS file is a JSON list of records; this holds none"):
        list(read_jarvis(other))
    with pytest.raises(FileNotFoundError, match=r"no\.json: no such file"):
        list(read_jarvis(tmp_path / "no.json"))


def test_json_lines_carry_a_split_for_each_property(shared_data):
    path = shared_data / "jarvis_dft3d"
    # As its README says; formation energy is the property of `split` itself.
    counts = Counter(one.split for one in read_jarvis(path, targets=("formation_energy_eV_per_atom",)))
    assert {name: counts[name] for name in ("train", "val", "test")} == {"train": 14390, "val": 1844, "test": 1806}
    own = {one.id: one.split for one in read_jarvis(path, targets=("gap_mbj_eV",))}
    # Its first record: test for the formation energy, train for the mBJ gap.
    assert own["JVASP-5"] == "train"


def test_several_properties_are_learned_together_where_their_splits_agree(tmp_path):
    def line(id, split, known="fgh", **other):
        properties = dict.fromkeys(known, 1.0)
        cell = {"lattice": np.eye(3).tolist(), "species": ["Na"], "frac_coords": [[0, 0, 0]]}
        return {"id": id, "split": split, "properties": properties, "meta": {"split_other": other}, **cell}

    path = tmp_path / "a.jsonl"
    # split is f's own; only what differs from it stands in split_other.
    lines = [line("one", "test", g="train"), line("two", "train", g="train"), line("three", None, g="val")]
    path.write_text("\n".join(map(json.dumps, lines)))

    def splits(*targets):
        return [one if isinstance(one, Rejected) else one.split for one in read_jarvis(path, targets=targets)]

    assert splits("f") == ["test", "train", None]
    assert splits("g") == ["train", "train", "val"]
    assert splits("f", "h") == ["test", "train", None]
    for targets in (("f", "g"), ("g", "f")):
        # A test crystal of f, which would train.
        rejected, *others = splits(*targets)
        assert rejected.reason.endswith(f"{targets[0]}, {targets[1]} have different splits")
        # In the benchmark of g alone.
        assert others == ["train", "val"]
    # A benchmark's own split is that of all.
    benchmark = zipped(tmp_path / "b.json.zip", {"train": {"one": 2.0}, "test": {}})
    (one,) = read_jarvis(path, benchmark, targets=("f", "g"))
    assert (one.split, one.targets["f"], one.targets["b"]) == ("train", 1.0, 2.0)
    # What a record lacks has no split that could differ.
    path.write_text(json.dumps(line("four", "test", "gh", g="train", h="train")) + "\n")
    assert splits("f", "g", "h") == ["train"]


def test_every_task_of_the_leaderboard_finds_its_property_among_the_lines(shared_data):
    text = (shared_data / "jarvis_dft3d" / "README.md").read_text()
    listed = set(re.findall(r"^\| (\w+) \| \d+ \| [-.\d]+ \|", text, re.MULTILINE))
    tasks = {name for name in sets.SETS if name.startswith("dft_3d_")}
    # Settings of the calculations, which the lines do not have.
    tasks -= {"dft_3d_encut", "dft_3d_kpoint_length_unit"}
    assert {task_of(name).target for name in tasks} == listed


@pytest.mark.slow
def test_json_lines_give_a_task_its_crystals_and_their_split(shared_data):
    # Counts as the README has them: 18,067 records, of which 6,041 have a bulk modulus.
    task = task_of("dft_3d_bulk_modulus_kv")
    assert (task.target, task.unit, task.size, task.suite) == ("K_voigt_GPa", "GPa", 19680, "jarvis_dft3d")
    path = shared_data / "jarvis_dft3d"
    crystals = list(read_task_lines(path, task))
    assert len(crystals) == 6041
    # For each, what its own split of this property says.
    own = {one.id: one.split for one in read_jarvis(path, targets=(task.target,))}
    assert all(one.split == own[one.id] for one in crystals)
    with pytest.raises(ValueError, match=r"no record has gap_pbe_eV and a split; is it data of megnet_gappbe\?"):
        list(read_task_lines(path, task_of("megnet_gappbe")))


def test_both_forms_give_the_same_crystals(tmp_path, shared_data):
    lines = [one for _, one in zip(range(300), read_jsonl(shared_data / "jarvis_dft3d"), strict=False)]
    listed = [
        {
            "jid": one.id,
            "atoms": {
                "lattice_mat": one.lattice.tolist(),
                "coords": one.frac_coords.tolist(),
                "elements": [elements.symbol(int(z)) for z in one.species],
                "cartesian": False,
            },
        }
        for one in lines
    ]
    crystals = read_jarvis(zipped(tmp_path / "jdft_3d.json.zip", listed))
    assert [(one.id, one.digest()) for one in crystals] == [(one.id, one.digest()) for one in lines]
