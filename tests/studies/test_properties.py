import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.run import Watcher
from cgcnn_jax.studies.properties import (
    CONVOLUTIONS,
    PROPERTIES,
    SIZES,
    Job,
    PropertyStudy,
    Unavailable,
    curve_sizes,
    epochs_of,
    estimate,
    split_sizes,
)
from tests.studies.paper_data import FOLDERS, config_of, write_data

pytestmark = pytest.mark.usefixtures("quicker_compiling")

QUICK, SMALL, FULL = SIZES["quick"], SIZES["small"], SIZES["full"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), n_crystal=90, n_listed=80)


def test_training_sizes_are_geometric_and_end_with_all() -> None:
    assert curve_sizes(28046, 100, 10**0.5) == [100, 316, 1000, 3162, 10000, 28046]
    # 8000 is 2.53 times 3162, more than the root of the ratio, 1.78; 1917 is 1.92 times 1000; 1200 only 1.2 times.
    assert curve_sizes(8000, 100, 10**0.5) == [100, 316, 1000, 3162, 8000]
    assert curve_sizes(1917, 100, 10**0.5) == [100, 316, 1000, 1917]
    assert curve_sizes(1200, 100, 10**0.5) == [100, 316, 1200]
    assert curve_sizes(80, 100, 10**0.5) == [80]


def test_splits_have_the_papers_sizes_where_the_crystals_suffice() -> None:
    of = PROPERTIES["formation_energy"].sizes
    assert split_sizes(of, 60000, FULL) == {"train": 28046, "val": 9348, "test": 9348}
    # Half of the crystals: half of the judges, and the others train.
    assert split_sizes(of, 23371, FULL) == {"train": 14023, "val": 4674, "test": 4674}
    assert split_sizes(of, 60000, SMALL) == {"train": 8000, "val": 1000, "test": 1000}


def test_the_paper_says_what_the_properties_hold() -> None:
    # 60 : 20 : 20 of the lists of 46,744, 27,430 and 3,402 ids, and 80 : 10 : 10 for the classifier, all but a few.
    for name, of in PROPERTIES.items():
        listed = {"mp-ids-46744.csv": 46744, "mp-ids-27430.csv": 27430, "mp-ids-3402.csv": 3402, "": 46744}[of.id_list]
        assert listed - 5 < sum(of.sizes) <= listed
        share = 0.8 if name == "metal_classification" else 0.6
        assert of.sizes[0] / sum(of.sizes) == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("name", PROPERTIES)
def test_published_errors_are_those_in_the_configurations(name: str) -> None:
    import importlib

    text = importlib.import_module(f"configs.{name}").__doc__
    of = PROPERTIES[name]
    assert f"{of.published:.3f}" in text or f"{of.published:.2f}" in text
    assert name == "metal_classification" or f"{of.sizes[0]:,}" in text


def study(data: Path, folder: Path, size=QUICK, config=config_of) -> PropertyStudy:
    return PropertyStudy(data, folder, size, config)


def test_the_papers_ids_are_shuffled_once_into_test_val_and_train(data: Path, tmp_path: Path) -> None:
    table = study(data, tmp_path).table("formation_energy")
    # 80 of the 90 crystals are on the list.
    assert sorted(table["id"]) == sorted(f"x{number}" for number in range(80))
    assert table["split"].value_counts().to_dict() == {"train": 48, "val": 16, "test": 16}
    assert table["split"].tolist() == ["test"] * 16 + ["val"] * 16 + ["train"] * 48
    assert table["id"].tolist() != sorted(table["id"])
    # Without a list every crystal counts; what is beyond the size is there and not used.
    table = study(data, tmp_path).table("absolute_energy")
    assert len(table) == 90 and table["split"].value_counts()[""] == 10
    assert list(table) == ["id", "split", "formula", "elements", "atoms", "total_energy_eV_per_atom"]
    # The table is kept, and the other properties of a folder with it: nothing is read a second time.
    (absent := tmp_path / "absent").mkdir()
    assert study(absent, tmp_path).table("band_gap")["id"].nunique() == 80
    with pytest.raises(Unavailable, match="no such folder; Bulk modulus"):
        study(absent, tmp_path).table("bulk_modulus")


def test_a_table_that_is_there_is_what_its_runs_had_whatever_the_data_have_now(data: Path, tmp_path: Path) -> None:
    before = study(data, tmp_path).table("formation_energy")
    file = tmp_path / "crystals" / "formation_energy.csv"
    kept = file.read_bytes()
    (tmp_path / "crystals" / "band_gap.csv").unlink()
    fewer = write_data(tmp_path / "fewer", n_crystal=75, n_listed=70)
    assert len(study(fewer, tmp_path).table("band_gap")) == 70 < len(before)
    assert file.read_bytes() == kept


def test_labels_are_what_is_learned(data: Path, tmp_path: Path) -> None:
    one = study(data, tmp_path)
    table = one.table("bulk_modulus")
    labels, target, unit = one.labels("bulk_modulus")
    assert (target, unit) == ("log10(K_vrh_GPa)", "log10(GPa)")
    np.testing.assert_allclose(10 ** labels["test"], table["K_vrh_GPa"][:16])
    assert {split: len(values) for split, values in labels.items()} == {"train": 48, "val": 16, "test": 16, "": 0}
    assert one.labels("formation_energy")[1:] == ("formation_energy_eV_per_atom", "eV/atom")


def test_runs_of_a_property_are_nested_and_judged_alike(data: Path, tmp_path: Path) -> None:
    jobs = study(data, tmp_path).jobs("formation_energy", curve=True)
    assert [(job.conv, job.n_train) for job in jobs] == [(conv, n) for n in (16, 48) for conv in CONVOLUTIONS]
    assert [job.path for job in jobs[:2]] == ["formation_energy/sum_16", "formation_energy/gated_norm_16"]
    assert {job.n_val for job in jobs} == {16}
    # The convolution and what it cannot train without are all that is different.
    one, other = (configs.to_dict(study(data, tmp_path)._config(job)) for job in jobs[:2])
    assert configs.differences(other, one) == [
        "model.conv: 'gated_norm' -> 'sum'",
        "optimizer.clip_norm: 0.0 -> 1.0",
        "optimizer.learning_rate: 0.005 -> 0.002",
    ]


def test_small_training_sets_get_more_epochs_up_to_a_limit() -> None:
    # 64 crystals a step: 125 steps an epoch from 8000, so 60 epochs are enough; 16 from 1000, and 3000 / 16 epochs.
    assert [epochs_of(SMALL, n, 64) for n in (8000, 1000, 100)] == [60, 188, 400]


def test_the_estimate_grows_with_crystals_atoms_and_gates() -> None:
    one = Job(PROPERTIES["formation_energy"], "gated_norm", 6000, 0, 0, 10, 25.0)
    # 60,000 crystals of 25 atoms at 120,000 atoms a second (at 800,000 with Eq. 4), and 12 s to start.
    assert estimate(one) == pytest.approx(24.5)
    assert estimate(Job(one.of, "sum", 6000, 0, 0, 10, 25.0)) == pytest.approx(13.875)


@pytest.mark.parametrize("name", ["band_gap", "formation_energy"])
def test_what_the_data_lack_is_told(tmp_path: Path, name: str) -> None:
    write_data(tmp_path / "data", n_crystal=3, n_listed=2, labels={"mp_2018_6_1": FOLDERS["mp_2018_6_1"]})
    with pytest.raises(Unavailable, match=r"mp_2018_6_1 has 2 crystals with \w+, too few for three splits"):
        study(tmp_path / "data", tmp_path / "out").jobs(name)
    with pytest.raises(Unavailable, match="jarvis_dft3d: no such folder; Absolute energy has its crystals there"):
        study(tmp_path / "data", tmp_path / "out").jobs("absolute_energy")


def test_broken_crystals_are_counted(tmp_path: Path) -> None:
    class Listener(Watcher):
        def message(self, text: str) -> None:
            told.append(text)

    told: list[str] = []
    folder = write_data(tmp_path / "data", n_crystal=20, n_listed=20)
    with (folder / "mp_2018_6_1" / "crystals.jsonl").open("a") as file:
        file.write('{"id": "broken", "species": ["Na"]}\n')
    one = PropertyStudy(folder, tmp_path / "out", QUICK, config_of, watcher=Listener())
    assert len(one.table("formation_energy")) == 20
    assert [text for text in told if "left out" in text] == [
        "1 of 21 crystals are left out, the first: broken: the record has no lattice, frac_coords; it has id, species"
    ]


def test_another_size_is_refused(data: Path, tmp_path: Path) -> None:
    # A plan leaves the folder to whoever makes something there.
    planned = PropertyStudy(data, tmp_path / "out", FULL, config_of, writes=False).table("formation_energy")
    assert not (tmp_path / "out").exists()
    made = study(data, tmp_path / "out", FULL).table("formation_energy")
    assert planned["id"].tolist() == made["id"].tolist() and planned["split"].tolist() == made["split"].tolist()
    study(data, tmp_path)
    with pytest.raises(ValueError, match=r"holds a study of another size \(quick, not small"):
        study(data, tmp_path, SMALL)


def test_a_finished_run_of_another_configuration_is_refused(data: Path, tmp_path: Path) -> None:
    one = study(data, tmp_path)
    (job,) = one.jobs("formation_energy", convs=("gated_norm",))
    place = one.place(job)
    place.path.mkdir(parents=True)
    place.write_json("record.json", {"config": configs.to_dict(one._config(job)), "data_digest": "x"})
    assert one.run([job])

    def slower(name: str) -> ConfigDict:
        config = config_of(name).copy_and_resolve_references()
        config.optimizer.learning_rate = 1e-4
        return config

    with pytest.raises(ValueError, match=r"another configuration:\n  optimizer\.learning_rate: 0\.005 -> 0\.0001"):
        study(data, tmp_path, config=slower).run([job])
    # And other runs are not set beside it if the crystals are others.
    with pytest.raises(ValueError, match=r"the data changed since .*gated_norm_48 was finished"):
        one.run(one.jobs("formation_energy", convs=("sum",)))


def test_crystals_that_left_the_data_are_told(data: Path, tmp_path: Path) -> None:
    one = study(data, tmp_path)
    one.table("formation_energy")
    file = tmp_path / "crystals" / "formation_energy.csv"
    table = pd.read_csv(file, keep_default_na=False)
    table.loc[0, "id"] = "gone"
    table.to_csv(file, index=False)
    with pytest.raises(ValueError, match=r"1 crystals of .* are not in .*mp_2018_6_1 any more: gone"):
        study(data, tmp_path).run(study(data, tmp_path).jobs("formation_energy")[:1])


def test_a_diverged_run_is_recorded_and_not_repeated(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cgcnn_jax.studies import properties
    from cgcnn_jax.train.loop import Diverged

    def explode(config: ConfigDict, path: Path, **keywords: object) -> None:
        path.mkdir(parents=True)
        raise Diverged(7, 1)

    monkeypatch.setattr(properties, "run", explode)
    one = study(data, tmp_path)
    jobs = one.jobs("formation_energy")
    assert one.run(jobs)
    assert [one.record(job)["failed"] for job in jobs] == [str(Diverged(7, 1))] * 2
    assert json.loads((one.place(jobs[0]).path / "record.json").read_text())["convolution"] == "Eq. 4"
    monkeypatch.setattr(properties, "run", None)
    assert one.run(jobs)
