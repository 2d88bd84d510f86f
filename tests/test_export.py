"""Cards of all kinds of runs, and a network saved for others: what is kept of it, and what a kill leaves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax import Predictor
from cgcnn_jax import config as configs
from cgcnn_jax.data import elements
from cgcnn_jax.data.sources import matbench
from cgcnn_jax.export import card, export
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.predict import describe
from cgcnn_jax.report import finished
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.state import Weights
from configs import base
from tests.predictors import ENERGY
from tests.report.finished_runs import classes, regression, write_run


def predictor(table: np.ndarray | None = None, **changes: str) -> Predictor:
    """Random weights with the configuration of a run; changes of its fields by name, group__field."""
    config = base.get_config()
    config.model.features, config.model.num_convs = 4, 1
    own = configs.build_atom_table(config) if table is None else table
    for name, value in changes.items():
        group, field = name.split("__")
        config[group][field] = value
    model = configs.build_model(config, own.shape, 1)
    weights = Weights(**init_variables(model, 0, own))
    about = describe(config, ENERGY, own.shape, {"train": ["a"], "val": [], "test": ["b"]})
    return Predictor(model, weights, ENERGY, configs.build_featurizer(config, own), about)


def table_of(text: str, title: str) -> dict[str, list[str]]:
    """The table below a heading of a card: first cell -> the others."""
    lines = text.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in line.strip("| ").split(" | ")] for line in lines)}


def test_a_card_has_errors_crystals_and_origin_but_no_path(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        *regression(),
        changes={"data.path": "/home/me/crystals", "atoms.table": "/home/me/mine.json", "train.epochs": 9},
    )
    config = json.loads((folder / "config.json").read_text()) | {"init_from": "/home/me/other"}
    (folder / "config.json").write_text(json.dumps(config))
    text = card(finished.read(folder))
    assert text.startswith("# formation_energy_eV_per_atom (eV/atom)\n")
    assert "/home/me" not in text
    facts = table_of(text, "What was trained on what")
    assert facts["train / val / test"] == ["300 / 100 / 40"]
    # Stopped early, after 5 of 9.
    assert facts["epochs"] == ["5 of 9; weights of epoch 5 kept"]
    assert facts["started from"] == ["other"]
    assert "labels of a machine-learned potential" in facts["crystals from"][0]
    mae = json.loads((folder / "summary.json").read_text())["metrics"]["test"]["mae"]
    errors = table_of(text, "Errors of formation_energy_eV_per_atom")
    assert errors["test"][0].startswith(f"{mae:.4g} [")


def test_a_card_names_the_public_set_and_whom_to_cite(tmp_path: Path) -> None:
    target = matbench.task_of("matbench_phonons").target
    changes = {"data.source": "matbench", "data.task": "matbench_phonons", "data.target": target}
    folder = write_run(tmp_path / "run", *regression(), changes=changes)
    text = card(finished.read(folder))
    assert (
        "\n\nLearned from `last phdos peak` of matbench_phonons, 443 of its 1,265 crystals.\n\n- What it is: " in text
    )
    assert "Petretto et al., Sci. Data 5, 180065 (2018)" in text and "CC BY 4.0" in text
    both = "gap_pbe_eV,formation_energy_eV_per_atom"
    changes = {"data.source": "jarvis", "data.task": "megnet_gappbe", "data.target": both}
    text = card(finished.read(write_run(tmp_path / "gaps", *regression(), changes=changes)))
    assert "443 of its 69,239 crystals, and from `formation_energy_eV_per_atom` of the same crystals." in text
    assert "; MP-2018.6.1, the MEGNet set" in text and "NIST" in text


def test_what_has_no_number_is_undefined_on_a_card(tmp_path: Path) -> None:
    # One class in the test split: there is no area under a curve, and summary.json says null.
    labels, probabilities = classes()
    folder = write_run(
        tmp_path / "classes", np.zeros_like(labels), probabilities, names=("metal",), units=("",), task="classification"
    )
    assert json.loads((folder / "summary.json").read_text())["metrics"]["test"]["roc_auc"] is None
    assert "undefined" in card(finished.read(folder))
    both = np.concatenate([regression()[0], regression(seed=1)[0]], axis=1)
    folder = write_run(tmp_path / "two", both, both + 0.1, names=("gap", "energy"), units=("eV", "eV/atom"))
    text = card(finished.read(folder))
    assert text.startswith("# gap (eV), energy (eV/atom)\n")
    assert table_of(text, "Errors of gap")["test"][0].startswith("0.1 [")


def test_paths_are_left_out_and_names_kept() -> None:
    config = base.get_config()
    config.init_from, config.data.path, config.data.cache = "/home/me/before", "/home/me/crystals", "/home/me/cache"
    config.split.files, config.atoms.table = ("/home/me/train.txt", "", "/home/me/test.txt"), "/home/me/mine.json"
    plain = configs.to_dict(config)
    new = configs.portable(plain)
    assert "/home" not in json.dumps(new)
    assert new["init_from"] == "before" and new["atoms"]["table"] == "mine.json"
    assert new["split"]["files"] == ["train.txt", "", "test.txt"]
    # All else is as it was, the argument too.
    assert plain == configs.to_dict(config)
    assert {line.split(":")[0] for line in configs.differences(plain, new)} == {
        "init_from",
        "split.files",
        "atoms.table",
    }


def test_a_table_of_one_s_own_goes_with_the_network_which_stays_the_same(tmp_path: Path) -> None:
    own = elements.atom_features("released")[:, :7].copy()
    for name, table in (("mine.json", "/home/me/mine.json"), ("atom_init.json", "auto")):
        folder = tmp_path / name / "given"
        model = predictor(own, atoms__table=table)
        model.save(folder)
        again = Predictor.restore(folder)
        assert again.digest() == model.digest()
        np.testing.assert_array_equal(elements.read_atom_init(folder / name), own)
        # As training that starts from it would have it.
        again.variables_for(again.model, elements.read_atom_init(folder / name), ENERGY)
        with pytest.raises(ValueError, match=r"its file lies in an exported network's folder"):
            again.variables_for(again.model, own + 1, ENERGY)
    # As a run from before the field was there.
    old = predictor()
    del old.about["config"]["graph"]["share_last_shell"]
    old.save(tmp_path / "old")
    assert Predictor.restore(tmp_path / "old").digest() == old.digest()
    predictor().save(tmp_path / "released")
    assert not list((tmp_path / "released").glob("*init*"))


def test_a_kill_leaves_nothing_that_hinders_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, model = tmp_path / "given", predictor()

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save_weights", killed)
        with pytest.raises(KeyboardInterrupt):
            model.save(folder, {"card.md": b"text"})
    assert not folder.exists()
    folder.mkdir()  # an empty one may be there
    model.save(folder, {"card.md": b"text"})
    assert [path.name for path in tmp_path.iterdir()] == ["given"]
    assert Predictor.restore(folder).digest() == model.digest() and (folder / "card.md").read_bytes() == b"text"
    with pytest.raises(ValueError, match="given is there already; name a new folder"):
        model.save(folder)
    with pytest.raises(ValueError, match="put together without a configuration"):
        Predictor(model.model, model.weights, model.scaler, model.featurizer, {}).save(tmp_path / "other")


def test_damage_is_told_with_a_way_out(tmp_path: Path) -> None:
    predictor().save(tmp_path / "given")
    largest = max((tmp_path / "given").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:200] + bytes([content[200] ^ 4]) + content[201:])
    with pytest.raises(ValueError, match=r"cannot be read; .* which whoever has that must export again"):
        Predictor.restore(tmp_path / "given")


def test_a_run_that_has_not_ended_is_not_exported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", *regression())
    predictor().save(tmp_path / "saved")
    shutil.copytree(tmp_path / "saved" / "checkpoints", run / "checkpoints")
    (run / "split.json").write_text("{}")
    (run / "metrics.jsonl").unlink()
    (run / ".judging").touch()
    with pytest.raises(ValueError, match="run is no run that was trained to its end"):
        export(run, tmp_path / "x")
    (run / ".judging").unlink()
    assert "Nothing in it warns of crystals unlike those it was trained on" in export(run, tmp_path / "x")
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["card.md", "checkpoints", "config.json"]
