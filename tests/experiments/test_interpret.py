"""The command that explains predictions, from files to files."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure

from cgcnn_jax import Predictor, TargetScaler
from cgcnn_jax import config as configs
from cgcnn_jax import run as run_module
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.predict import describe
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.state import Weights
from cgcnn_jax.workdir import Workdir
from configs import base
from experiments import data
from tests.experiments.runs import Run


@pytest.fixture(scope="module")
def site_run(cif_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site model with random weights, which do as well here."""
    config = base.get_config()
    config.data.source, config.data.path, config.data.workers = "directory", str(cif_folder), 1
    config.data.target, config.data.unit = "volume", "Å³/atom"
    config.model.features, config.model.num_convs = 8, 2
    config.model.pool, config.model.crystal_layers = "site", 0
    scaler = TargetScaler("regression", ("volume",), ("Å³/atom",), (15.0,), (5.0,))
    table = configs.build_atom_table(config)
    variables = init_variables(configs.build_model(config, table.shape, 1), 0, table)
    workdir = Workdir(tmp_path_factory.mktemp("site"))
    workdir.claim(configs.to_dict(config))
    split = {"train": [f"x{n}" for n in range(4, 40)], "val": ["x0"], "test": ["x1", "x2", "x3"]}
    with Checkpoints(workdir.checkpoints) as checkpoints:
        checkpoints.save_weights(Weights(**variables), describe(config, scaler, table.shape, split))
    return workdir.path


@pytest.fixture(scope="module")
def explained(run: Run, site_run: Path, cif_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results for three crystals of which one cannot be read, one more than once."""
    folder = tmp_path_factory.mktemp("explained")
    (folder / "broken.cif").write_text("data_x\n_cell_length_a 3\n")
    names = [cif_folder / "x5.cif", folder / "broken.cif", cif_folder / "x2.cif", cif_folder / "x5.cif"]
    done = run(
        "interpret", f"--workdir={site_run}", *(f"--input={name}" for name in names), f"--output={folder / 'out'}"
    )
    assert "3 structures explained" in done.stdout
    assert "1 structures could not be read" in done.stdout
    return folder / "out"


def test_the_contributions_in_the_file_average_to_the_prediction(
    explained: Path, site_run: Path, cif_folder: Path
) -> None:
    table = pd.read_csv(explained / "sites.csv")
    assert list(table["id"].unique()) == ["x5", "broken", "x2"]
    predicted = Predictor.restore(site_run).predict([cif_folder / "x2.cif"])["prediction"][0]
    structure = Structure.from_file(cif_folder / "x2.cif")
    one = table[table["id"] == "x2"]
    assert list(one["element"]) == [site.specie.symbol for site in structure]
    np.testing.assert_allclose(one[["x", "y", "z"]], structure.frac_coords, atol=1e-6)
    assert one["contribution"].mean() == pytest.approx(predicted, rel=1e-5)
    assert set(one["unit"]) == {"Å³/atom"}
    broken = table[table["id"] == "broken"].iloc[0]
    assert "cannot be read" in broken["reason"]
    assert np.isnan(broken["contribution"])


def test_structures_are_written_with_their_contributions(explained: Path) -> None:
    assert sorted(path.name for path in (explained / "structures").iterdir()) == [
        *("x2.cif", "x2.json", "x5.cif", "x5.json", "x5_2.cif", "x5_2.json")
    ]
    table = pd.read_csv(explained / "sites.csv")
    structure = Structure.from_file(explained / "structures" / "x2.json")
    np.testing.assert_allclose(
        structure.site_properties["contribution"], table.loc[table["id"] == "x2", "contribution"], rtol=1e-6
    )
    assert "_atom_site_contribution" in (explained / "structures" / "x2.cif").read_text()


def test_training_crystals_are_their_own_nearest_and_broken_files_keep_a_row(
    explained: Path, site_run: Path, cif_folder: Path
) -> None:
    train = Predictor.restore(site_run).about["split"]["train"]
    table = pd.read_csv(explained / "neighbours.csv")
    assert list(table["id"]) == ["x5", "broken", "x2", "x5"]
    assert "cannot be read" in table["reason"][1]
    for _, row in table[table["id"] != "broken"].iterrows():
        assert row["neighbour_1"] in train
        assert row["distance_1"] <= row["distance_2"] <= row["distance_5"]
        near = Structure.from_file(cif_folder / f"{row['neighbour_2']}.cif")
        assert row["volume_2 (Å³/atom)"] == pytest.approx(near.volume / len(near), rel=1e-4)
        if row["id"] in train:
            assert row["neighbour_1"] == row["id"]
            assert row["distance_1"] == pytest.approx(0, abs=1e-4)
    predicted = Predictor.restore(site_run).predict([cif_folder / "x2.cif"])["prediction"][0]
    assert table["prediction"][2] == pytest.approx(predicted, rel=1e-5) and table["unit"][2] == "Å³/atom"
    known = Applicability.load(site_run)
    assert list(known.ids) == train
    assert table["threshold"][0] == pytest.approx(known.threshold, rel=1e-6)


def test_in_a_folder_that_cannot_be_written_the_training_crystals_are_known_all_the_same(
    site_run: Path, explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(site_run, tmp_path / "run", ignore=shutil.ignore_patterns("applicability.npz"))

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Applicability, "save", refuse)
    monkeypatch.setattr(data, "load", run_module.load_dataset)
    found = data.applicability(Predictor.restore(folder), folder)
    kept = Applicability.load(site_run)
    assert (found.ids, found.formulas) == (kept.ids, kept.formulas)
    np.testing.assert_allclose(found.vectors, kept.vectors, rtol=1e-4, atol=1e-5)
    assert "not kept there: [Errno 13] Permission denied" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"the network predicts .* and the labels are log10"):
        data.applicability(Predictor.restore(folder), folder, ["--config.data.log10=True"])


def test_the_distance_that_is_far_is_the_quantile_asked_for(run: Run, site_run: Path, explained: Path) -> None:
    known = Applicability.load(site_run)
    for flags, quantile in (((), 0.95), (("--quantile=0.5",), 0.5)):
        far = float(np.quantile(known.spacing, quantile))
        assert f"the distance that is far: {far:.4g}\n" in run("interpret", f"--workdir={site_run}", *flags).stdout


def test_the_other_files_are_there(explained: Path) -> None:
    bonds = pd.read_csv(explained / "bonds.csv")
    assert bonds["gate"].between(0, 1).all()
    assert list(bonds["id"].unique()) == ["x5", "x2"]
    vectors = pd.read_csv(explained / "embeddings.csv")
    assert vectors["v_7"].isna().tolist() == [False, True, False, False]
    np.testing.assert_allclose(vectors["v_0"][0], vectors["v_0"][3], rtol=1e-6)
    for name in ("map", "map_prediction", "gates"):
        assert (explained / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_moved_data_cost_the_neighbours_only(run: Run, site_run: Path, cif_folder: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "copy"
    shutil.copytree(site_run, workdir)
    (workdir / "applicability.npz").unlink(missing_ok=True)
    (workdir / "interpretation").mkdir()
    (workdir / "interpretation" / "neighbours.csv").write_text("of an earlier call")
    done = run(
        "interpret", f"--workdir={workdir}", f"--input={cif_folder / 'x1.cif'}", f"--config.data.path={tmp_path}/gone"
    )
    assert f"no neighbours.csv: {tmp_path}/gone" in done.stderr
    assert not (workdir / "applicability.npz").exists()
    written = {path.name for path in (workdir / "interpretation").iterdir()}
    assert written == {
        "bonds.csv",
        "embeddings.csv",
        "gates.png",
        "sites.csv",
        "structures",
    }  # one point spans no plane


def test_an_output_that_is_a_file_is_told_in_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("interpret", "--workdir=nowhere", "--input=x", f"--output={tmp_path}/file", status=1)
    assert "is a file; name a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_input_that_is_missing_is_told_before_anything_is_written(run: Run, site_run: Path, tmp_path: Path) -> None:
    done = run("interpret", f"--workdir={site_run}", f"--input={tmp_path}/gone", f"--output={tmp_path}/out", status=1)
    assert f"--input={tmp_path}/gone: no such file or folder" in done.stderr
    assert not (tmp_path / "out").exists()
