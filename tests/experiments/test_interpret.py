"""The command that explains predictions, from files to files."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure

from cgcnn_jax import Predictor
from cgcnn_jax.applicability import Applicability
from tests.experiments.runs import TINY, Run, directory_flags


@pytest.fixture(scope="module")
def site_run(run: Run, cif_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("site") / "run"
    site = ("--config.model.pool=site", "--config.model.crystal_layers=0", "--config.train.epochs=1")
    run("train", *directory_flags(cif_folder), f"--workdir={workdir}", *TINY, *site)
    return workdir


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


def test_training_crystals_are_their_own_nearest_and_broken_files_keep_a_row(explained: Path, site_run: Path) -> None:
    train = Predictor.restore(site_run).about["split"]["train"]
    table = pd.read_csv(explained / "neighbours.csv")
    assert list(table["id"]) == ["x5", "broken", "x2", "x5"]
    assert "cannot be read" in table["reason"][1]
    for _, row in table[table["id"] != "broken"].iterrows():
        assert row["neighbour_1"] in train
        assert row["distance_1"] <= row["distance_2"] <= row["distance_5"]
        if row["id"] in train:
            assert row["neighbour_1"] == row["id"]
            assert row["distance_1"] == pytest.approx(0, abs=1e-4)
    known = Applicability.load(site_run)
    assert list(known.ids) == train
    assert table["threshold"][0] == pytest.approx(known.threshold, rel=1e-6)


def test_the_other_files_are_there(explained: Path) -> None:
    bonds = pd.read_csv(explained / "bonds.csv")
    assert bonds["gate"].between(0, 1).all()
    assert list(bonds["id"].unique()) == ["x5", "x2"]
    vectors = pd.read_csv(explained / "embeddings.csv")
    assert vectors["v_7"].isna().tolist() == [False, True, False, False]
    np.testing.assert_allclose(vectors["v_0"][0], vectors["v_0"][3], rtol=1e-6)
    for name in ("map", "map_prediction", "gates"):
        assert (explained / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_mean_pool_says_why_there_are_no_sites_and_moved_data_are_told(
    run: Run, trained: Path, cif_folder: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "copy"
    shutil.copytree(trained, workdir)
    done = run(
        "interpret", f"--workdir={workdir}", f"--input={cif_folder / 'x1.cif'}", f"--config.data.path={tmp_path}/gone"
    )
    assert "no sites.csv: this model pools by 'mean'" in done.stderr
    assert "--config.model.pool=site" in done.stderr
    assert "no neighbours.csv" in done.stderr
    assert not (workdir / "applicability.npz").exists()
    written = {path.name for path in (workdir / "interpretation").iterdir()}
    assert written == {"bonds.csv", "embeddings.csv", "gates.png"}  # one crystal spans no plane


def test_mistakes_are_told_in_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("interpret", "--workdir=nowhere", "--input=x", f"--output={tmp_path}/file", status=1)
    assert "is a file; name a folder" in done.stderr
    done = run("interpret", "--workdir=nowhere", "--input=x", "--neighbors=0", status=2)
    assert "neighbors" in done.stderr
    assert "Traceback" not in done.stderr
