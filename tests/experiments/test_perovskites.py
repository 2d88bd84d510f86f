"""The study on 108 made-up cells whose energy is a sum of one number for A and one for B."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cgcnn_jax.run import Watcher, load_dataset
from cgcnn_jax.studies.perovskites.energies import by_element
from cgcnn_jax.studies.perovskites.study import Study, _thinned, run_study
from configs import perovskite_sites
from tests.experiments.runs import Run
from tests.studies.perovskite_cells import ON_A, ON_B, write_cells

# The command below predicts what the study of this process has learned, to the same digits.
pytestmark = pytest.mark.usefixtures("quicker_compiling")

SETTINGS = {
    "train.epochs": 3,
    "train.batch_size": 16,
    "model.features": 8,
    "model.num_convs": 1,
    "model.crystal_features": 8,
    "data.workers": 1,
    "data.cache": "",
}
LABEL = "e_form_eV_per_cell"


class Stops(Watcher):
    """Asks to stop once the linear model is trained."""

    def __init__(self, folder: Path) -> None:
        self.finished = folder / "models" / "linear" / "summary.json"

    def should_stop(self) -> bool:
        return self.finished.exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cells(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(data: Path):
    config = perovskite_sites.get_config()
    config.update_from_flattened_dict(SETTINGS)
    config.data.source, config.data.path, config.split.kind = "jsonl", str(data / "matbench_perovskites"), "source"
    return config


@pytest.fixture(scope="module")
def study(config, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Stopped after the first model, then finished by the same call."""
    folder = tmp_path_factory.mktemp("study")
    loaded = []

    def load(*arguments):
        loaded.append(load_dataset(*arguments))
        return loaded[-1]

    assert run_study(config, folder, load=load, watcher=Stops(folder)) is None
    assert not (folder / "index.md").exists()
    before = (folder / "models" / "linear" / "summary.json").read_bytes()
    found = run_study(config, folder, load=load, command="python -m experiments.perovskites")
    assert found is not None
    assert (folder / "models" / "linear" / "summary.json").read_bytes() == before
    return found


def test_both_models_are_judged_beside_the_paper(study):
    errors = study.errors.set_index("model")
    assert errors["published"].to_dict() == {"linear": 0.130, "full": 0.099}
    test = study.crystals[study.crystals["split"] == "test"]
    for model in ("linear", "full"):
        assert errors.loc[model, "mae"] == pytest.approx((test[model] - test[LABEL]).abs().mean(), rel=1e-5)


def test_every_crystal_is_in_the_table_those_without_a_label_too(study):
    crystals = study.crystals
    assert len(crystals) == 108
    assert crystals[LABEL].isna().sum() == (crystals["split"] == "").sum() == 4
    mean = (crystals["energy_A"] + crystals["energy_B"] + 3 * crystals["energy_X"]) / 5
    np.testing.assert_allclose(mean, crystals["linear"], rtol=1e-5, atol=1e-6)


def test_elements_have_the_crystals_with_them_on_the_site(study):
    for site, made in (("A", ON_A), ("B", ON_B)):
        table = study.elements[study.elements["site"] == site].set_index("element")
        assert table["crystals"].to_dict() == dict.fromkeys(made, 18)
        # Every element meets all others, so mean labels differ by what the elements were given, but for four unknown.
        np.testing.assert_allclose(table["mean_label"], [1 + made[element] for element in table.index], atol=0.25)


def test_the_counts_are_those_of_the_labels(study):
    # Pb and Sn on A, Ti and Nb on B, three sets of anions; 0.3 eV more with O2F leaves all of them below.
    _, by_label, by_heat, by_either = study.counts.to_dict("records")
    labelled = study.crystals.dropna(subset=[LABEL])
    pairs = labelled["A"].isin(["Pb", "Sn"]) & labelled["B"].isin(["Ti", "Nb"])
    assert by_label["candidates"] == by_label["below"] == by_either["below"] == pairs.sum() == len(study.found)
    assert by_heat["all"] == study.crystals["heat_all_eV_per_cell"].notna().sum() < by_label["all"] == 104
    assert study.found[LABEL].is_monotonic_increasing


def test_the_page_shows_files_that_are_there_and_tables_are_kept(study):
    page = (study.folder / "index.md").read_text()
    pictures = re.findall(r"\]\((\w+\.png)\)", page)
    assert len(pictures) == len(set(pictures)) == len(study.figures) == 5
    assert all((study.folder / name).stat().st_size > 10_000 for name in pictures)
    assert not re.search(r"\bnan\b", page)
    kept = pd.read_csv(study.folder / "crystals.csv", index_col="id")
    again = by_element(kept.assign(split=kept["split"].fillna("")), LABEL)
    np.testing.assert_allclose(again["energy"], study.elements["energy"], rtol=1e-4)


def test_the_command_finds_the_same_study_finished(run: Run, study, data):
    flags = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    before = {path.name: path.read_bytes() for path in study.folder.glob("*.csv")}
    done = run("perovskites", f"--data={data}", f"--workdir={study.folder}", *flags)
    assert f"report    {study.folder}/index.md" in done.stdout
    assert {path.name: path.read_bytes() for path in study.folder.glob("*.csv")} == before


def test_a_quick_look_takes_crystals_from_all_over_the_data():
    assert _thinned(list(range(101)), 5) == [0, 25, 50, 75, 100]
    assert _thinned([1, 2, 3], 0) == _thinned([1, 2, 3], 3) == [1, 2, 3]


def test_crystals_without_a_graph_are_counted_out_and_the_papers_label_is_known(config, tmp_path):
    file = next((write_cells(tmp_path) / "matbench_perovskites").iterdir())
    records = [json.loads(line) for line in file.read_text().splitlines()]
    heat = "heat_all_eV_per_cell"
    # No neighbour within the cutoff, with a label and without one.
    apart = [
        next(one for one in records if (heat in one["properties"]) == is_labelled) for is_labelled in (True, False)
    ]
    for one in apart:
        one["lattice"] = (40 * np.eye(3)).tolist()
    file.write_text("\n".join(map(json.dumps, records)) + "\n")
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.data.path, own.data.target, own.data.unit, own.train.epochs = str(file), heat, "eV", 1
        own.data.on_error = "skip"
    found = run_study(own, tmp_path / "study")
    ids = {one["id"] for one in apart}
    assert len(found.crystals) == 106 and not ids & set(found.crystals.index)
    assert found.crystals["energy_A"].notna().all()
    assert found.elements.groupby("site")["crystals"].sum().to_dict() == {"A": 106, "B": 106}
    rejected = pd.read_csv(tmp_path / "study" / "rejected.csv").set_index("id")["reason"]
    assert set(rejected.index) == ids and rejected.str.contains("has no neighbour").all()
    page = (tmp_path / "study" / "index.md").read_text()
    assert "which these data do not have" not in page and "The paper counts by heat_all as well" in page


def test_what_cannot_be_studied_is_told(config, data, tmp_path):
    other = config.copy_and_resolve_references()
    with other.unlocked():
        other.data.target, other.data.unit = f"{LABEL},heat_all_eV_per_cell", "eV,eV"
    with pytest.raises(ValueError, match="the study is of one energy"):
        run_study(other, tmp_path)
    with other.unlocked():
        other.data.target, other.data.unit = LABEL, "eV"
        other.split.kind, other.split.ratios = "ratio", (0.8, 0.2, 0.0)
    with pytest.raises(ValueError, match="the split has none"):
        run_study(other, tmp_path)
    salt = tmp_path / "salt.jsonl"
    salt.write_text(
        '{"id": "salt", "lattice": [[4,0,0],[0,4,0],[0,0,4]], "species": ["Na", "Cl"], '
        f'"frac_coords": [[0,0,0],[0.5,0.5,0.5]], "properties": {{"{LABEL}": 1.0}}}}\n'
    )
    with other.unlocked():
        other.data.path = str(salt)
    with pytest.raises(ValueError, match="none of 1 crystals is a cubic ABX3 perovskite"):
        run_study(other, tmp_path)
