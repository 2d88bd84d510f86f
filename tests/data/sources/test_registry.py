"""The sources by name, and what a configuration says of them."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.data import sources
from cgcnn_jax.data.crystal import CrystalError
from cgcnn_jax.data.dataset import Dataset, load
from cgcnn_jax.data.sources import Request
from configs import base


def configured(**data: object) -> ConfigDict:
    config = base.get_config()
    config.data.update(data)
    return config


@pytest.fixture(scope="module")
def phonons(shared_data: Path) -> tuple[ConfigDict, Dataset]:
    """As --config.data.source=matbench --config.data.path=PATH --config.data.task=matbench_phonons gives it."""
    config = configured(source="matbench", path=str(shared_data / "matbench_phonons"), task="matbench_phonons")
    configs.validate(config)
    featurizer = configs.build_featurizer(config, configs.build_atom_table(config))
    return config, load(configs.build_entries(config), featurizer, configs.target_names(config))


def test_a_task_says_target_unit_and_split(phonons):
    config, _ = phonons
    assert configs.target_names(config) == ("last_phdos_peak_cm-1",)
    assert configs.units(config) == ("1/cm",)
    assert configs.split_kind(config) == "source"
    stored = configs.to_dict(config)
    filled = (stored["data"]["target"], stored["data"]["unit"], stored["split"]["kind"])
    assert filled == ("last_phdos_peak_cm-1", "1/cm", "source")
    bulk = configured(source="matbench", task="matbench_log_kvrh", target="K_vrh_GPa")
    assert configs.units(bulk) == ("GPa",)
    bulk.data.unit = "MPa"
    assert configs.units(bulk) == ("MPa",)


def test_the_test_splits_of_all_folds_are_the_official_folds(phonons, shared_data):
    config, dataset = phonons
    folds = np.array([int(label) for label in dataset.source_split])
    assert np.bincount(folds).tolist() == [253] * 5
    seen = []
    for fold in range(5):
        config.data.fold = fold
        split = configs.build_split(config, dataset)
        np.testing.assert_array_equal(split["test"], np.flatnonzero(folds == fold))
        # A tenth of the other 1,012 chooses the model.
        assert (len(split["val"]), len(split["train"])) == (101, 911)
        assert len(set(np.concatenate(list(split.values())).tolist())) == 1265
        seen.append(set(split["val"].tolist()))
    assert len(set.union(*seen)) > 101
    config.data.fold = 5
    with pytest.raises(ValueError, match=r"data\.fold must be one of the source's folds, 0, 1, 2, 3, 4; got 5"):
        configs.build_split(config, dataset)
    config.data.fold = 0


def test_the_seed_draws_val_and_nothing_else(phonons):
    config, dataset = phonons
    first = configs.build_split(config, dataset)
    config.split.seed = 1
    second = configs.build_split(config, dataset)
    config.split.seed = 0
    np.testing.assert_array_equal(first["test"], second["test"])
    assert set(first["val"].tolist()) != set(second["val"].tolist())


def test_with_val_ratio_0_all_other_folds_train(phonons):
    config, dataset = phonons
    tested = configs.build_split(config, dataset)["test"]
    config = config.copy_and_resolve_references()
    config.split.val_ratio = 0.0
    split = configs.build_split(config, dataset)
    np.testing.assert_array_equal(split["test"], tested)
    assert (len(split["val"]), len(split["train"])) == (0, 1012)
    config.train.patience = 5
    for check in (lambda: configs.validate(config), lambda: configs.build_split(config, dataset)):
        with pytest.raises(ValueError, match=r"train\.patience must be 0 where config\.split leaves no .*; got 5"):
            check()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"source": "demo"}, "ratio"),
        ({"source": "jsonl", "path": "x"}, "ratio"),
        ({"source": "cdvae", "path": "x"}, "source"),
        ({"source": "cdvae", "path": "x/train.csv"}, "source"),
        ({"source": "cdvae", "path": "mine.csv"}, "ratio"),
        ({"source": "jarvis", "path": "x"}, "ratio"),
        ({"source": "jarvis", "path": "x", "task": "dft_3d_mbj_bandgap"}, "source"),
    ],
)
def test_auto_takes_an_official_split_where_there_is_one(data, kind):
    assert configs.split_kind(configured(**data)) == kind


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "matbench"}, r"data\.task must name the Matbench task"),
        ({"source": "matbench", "task": "phonons"}, "unknown Matbench task 'phonons'"),
        (
            {"source": "matbench", "task": "matbench_mp_is_metal"},
            r"model\.task must be classification for matbench_mp_is",
        ),
        ({"source": "jsonl", "target": "x"}, r"data\.path must say where the jsonl crystals lie"),
        ({"source": "cdvae", "target": "x"}, r"data\.path must say where the cdvae crystals lie"),
        ({"source": "jarvis"}, r"data\.target must name the property"),
        ({"source": "matbench", "task": "matbench_phonons", "fold": -1}, r"data\.fold must not be negative"),
    ],
)
def test_a_configuration_that_lacks_something_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        configs.validate(configured(**data))


@pytest.mark.parametrize(
    ("source", "task", "target", "name"),
    [
        ("matbench", "matbench_log_kvrh", "K_vrh_GPa", "matbench_log_kvrh"),
        ("cdvae", "mp_20", "band_gap", "mp_20"),
        ("jarvis", "", "mbj_bandgap", "jarvis_dft_3d_2021"),
        ("jarvis", "dft_3d_mbj_bandgap", "mbj_bandgap", "jarvis_dft_3d_2021"),
        ("jarvis", "megnet_e_form", "", "jarvis_megnet"),
        ("jarvis", "downloads/megnet_e_form.json.zip", "e_form", "jarvis_megnet"),
    ],
)
def test_an_empty_path_means_the_fetched_set(tmp_path, monkeypatch, source, task, target, name):
    monkeypatch.setenv("CGCNN_JAX_DATA", str(tmp_path))
    config = configured(source=source, task=task, target=target)
    configs.validate(config)
    with pytest.raises(FileNotFoundError, match=rf"{name} is not there .*\n  python -m experiments\.fetch {name}\n"):
        list(configs.build_entries(config))


def test_a_fetched_set_and_its_benchmark_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("CGCNN_JAX_DATA", str(tmp_path))
    atoms = {"lattice_mat": (4 * np.eye(3)).tolist(), "coords": [[0, 0, 0]], "elements": ["Po"], "cartesian": False}
    for folder, name, content in (
        ("jarvis_dft_3d_2021", "jdft_3d-8-18-2021.json", [{"jid": f"JVASP-{n}", "atoms": atoms} for n in range(4)]),
        ("dft_3d_mbj_bandgap", "dft_3d_mbj_bandgap.json", {"train": {"JVASP-1": 1.5}, "test": {"JVASP-2": 0.5}}),
    ):
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / folder / f"{name}.zip", "w") as archive:
            archive.writestr(name, json.dumps(content))
    config = configured(source="jarvis", task="dft_3d_mbj_bandgap")
    configs.validate(config)
    # The name that JSON lines and the configurations have; the official one holds the same.
    assert (configs.target_names(config), configs.units(config)) == (("gap_mbj_eV",), ("eV",))
    assert all(one.targets["gap_mbj_eV"] == one.targets["mbj_bandgap"] for one in configs.build_entries(config))
    found = [(one.id, one.split, one.targets["mbj_bandgap"]) for one in configs.build_entries(config)]
    assert found == [("JVASP-1", "train", 1.5), ("JVASP-2", "test", 0.5)]
    config.data.task = "dft_3d_gap"
    with pytest.raises(
        FileNotFoundError, match=r"data\.task=dft_3d_gap: no such file, and no benchmark among dft_3d_T"
    ):
        list(configs.build_entries(config))
    config.data.task = "dft_3d_slme"
    with pytest.raises(FileNotFoundError, match=r"python -m experiments\.fetch dft_3d_slme"):
        list(configs.build_entries(config))
    # The same by path.
    path = tmp_path / "dft_3d_mbj_bandgap" / "dft_3d_mbj_bandgap.json.zip"
    config.data.update(task=str(path), path=str(tmp_path / "jarvis_dft_3d_2021" / "jdft_3d-8-18-2021.json.zip"))
    assert configs.target_names(config) == ("gap_mbj_eV",)
    assert [one.id for one in configs.build_entries(config)] == ["JVASP-1", "JVASP-2"]


def test_files_takes_several_places(tmp_path):
    for name in ("a.cif", "b.cif"):
        (tmp_path / name).touch()
    request = Request(path=f"{tmp_path / 'a.cif'}, {tmp_path / 'b.cif'},")
    assert [entry.id for entry in sources.read("files", request)] == ["a", "b"]


def test_a_tree_of_the_crystallography_open_database_is_read_by_its_numbers(tmp_path, rock_salt):
    deep = tmp_path / "cif" / "1" / "00" / "00"
    deep.mkdir(parents=True)
    structure = rock_salt.to_structure()
    structure.to(str(deep / "1000041.cif"))
    structure.replace_species({"Na": {"Na": 0.5, "K": 0.5}})
    structure.to(str(deep / "1000042.cif"))
    ordered, disordered = sources.read("files", Request(path=str(tmp_path / "cif")))
    assert (ordered.id, ordered.read().formula) == ("1/00/00/1000041", "NaCl")
    with pytest.raises(CrystalError, match=r"1/00/00/1000042: .*partially occupied"):
        disordered.read()


def test_a_stored_fold_keeps_its_meaning():
    old = configs.to_dict(configured())
    del old["data"]["fold"], old["data"]["task"]
    old["split"] |= {"kind": "k_fold", "fold": 3}
    assert configs.from_dict(old).data.fold == 3
    assert configs.differences(configs.upgraded(old), configs.to_dict(configured(fold=3))) == [
        "split.kind: 'k_fold' -> 'ratio'"
    ]
