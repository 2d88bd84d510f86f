import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from cgcnn_jax import JudgingPredictor, Predictor, TargetScaler
from cgcnn_jax.data.sources import read_input
from experiments import data
from tests.experiments.runs import TINY, Run, directory_flags


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_prediction_from_files_equals_that_of_training(run: Run, trained: Path, cif_folder: Path) -> None:
    known = {row["id"]: float(row["prediction"]) for row in read_csv((trained / "predictions.csv").read_text())}
    inputs = [f"--input={cif_folder / id}.cif" for id in known]
    rows = read_csv(run("predict", f"--workdir={trained}", *inputs).stdout)
    assert [row["id"] for row in rows] == list(known)
    for row in rows:
        # float32, in batches of another shape
        assert float(row["prediction"]) == pytest.approx(known[row["id"]], rel=1e-5)
        assert row["unit"] == "Å³/atom"


def test_rows_keep_the_order_of_inputs_and_say_why_one_is_empty(
    run: Run, trained: Path, cif_folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.cif"
    broken.write_text("data_x\n_cell_length_a 3\n")
    output = tmp_path / "out.csv"
    names = [cif_folder / "x5.cif", broken, tmp_path / "absent.cif", cif_folder / "x2.cif"]
    done = run("predict", f"--workdir={trained}", *(f"--input={name}" for name in names), f"--output={output}")
    rows = read_csv(output.read_text())
    assert [row["id"] for row in rows] == ["x5", "broken", str(tmp_path / "absent.cif"), "x2"]
    assert [bool(row["prediction"]) for row in rows] == [True, False, False, True]
    assert "cannot be read" in rows[1]["reason"]
    assert "no such file" in rows[2]["reason"]
    assert "2 predictions" in done.stderr
    assert "2 structures without one" in done.stderr
    assert "the id of an earlier one" not in done.stderr
    # Two calculations, and the folder above them.
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        Structure.from_file(cif_folder / "x5.cif").to(str(tmp_path / place / "CONTCAR"), fmt="poscar")
    both = (f"--input={tmp_path / 'one' / 'CONTCAR'}", f"--input={tmp_path / 'two' / 'CONTCAR'}")
    assert "1 rows have the id of an earlier one" in run("predict", f"--workdir={trained}", *both).stderr
    broken.unlink()
    above = run("predict", f"--workdir={trained}", f"--input={tmp_path}", status=0)
    assert [row["id"] for row in read_csv(above.stdout)] == ["one/CONTCAR", "two/CONTCAR"]


@pytest.fixture(scope="module")
def other_seed(run: Run, trained: Path, cif_folder: Path) -> Path:
    """A run beside the trained one, alike but for its seed."""
    run("train", *directory_flags(cif_folder), f"--workdir={trained.parent / 'b'}", *TINY, "--config.train.seed=1")
    return trained.parent / "b"


def test_several_runs_predict_together(run: Run, trained: Path, other_seed: Path, cif_folder: Path) -> None:
    inputs = (f"--input={cif_folder / 'x5.cif'}", f"--input={cif_folder / 'x2.cif'}")
    one, other, together = (
        read_csv(run("predict", *(f"--workdir={workdir}" for workdir in workdirs), *inputs).stdout)
        for workdirs in ((trained,), (other_seed,), (trained, other_seed))
    )
    assert list(together[0]) == ["id", "formula", "prediction", "unit", "std", "outside", "reason"]
    assert [row["outside"] for row in together] == [row["outside"] for row in one]
    # The first that knows its training crystals judges.
    assert not (other_seed / "applicability.npz").exists()
    judging = JudgingPredictor.restore(other_seed, trained)
    assert judging.known.is_of(Predictor.restore(trained))
    assert list(judging.predict([cif_folder / "x5.cif"])["outside"]) == [one[0]["outside"]]
    for a, b, both in zip(one, other, together, strict=True):
        a, b = (float(row["prediction"]) for row in (a, b))
        assert a != b
        assert float(both["prediction"]) == pytest.approx((a + b) / 2, rel=1e-6)
        assert float(both["std"]) == pytest.approx(abs(a - b) / 2**0.5, rel=1e-4)
    done = run("predict", f"--workdir={trained}", f"--workdir={trained}/", *inputs, status=1)
    assert "are the same network; leave one of them out" in done.stderr


def test_three_lines_of_python_predict_structures_in_memory(trained: Path, cif_folder: Path) -> None:
    structures = [Structure.from_file(cif_folder / f"x{n}.cif") for n in range(5)]
    table = Predictor.restore(trained).predict(structures)
    again = Predictor.restore(trained).predict([s.make_supercell([2, 1, 1], in_place=False) for s in structures])
    np.testing.assert_allclose(table["prediction"], again["prediction"], rtol=1e-5)
    assert list(table["formula"]) == list(again["formula"])


def test_input_without_a_structure_is_an_error(run: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    for name, output in (("predict", "table.csv"), ("interpret", "explained")):
        flags = f"--input={tmp_path / 'empty.jsonl'}", f"--output={tmp_path / output}"
        done = run(name, f"--workdir={trained}", *flags, status=1)
        assert "empty.jsonl: no structure there" in done.stderr


def test_several_properties_are_judged_in_the_order_of_the_network() -> None:
    scaler = TargetScaler("regression", ("gap", "e_form"), ("eV", "eV/atom"), (0.0, 0.0), (1.0, 1.0))
    data.check_target(scaler, ("gap", "e_form"), ("", ""))
    data.check_target(scaler, ("e_gap", "form"), ("", ""))  # which may be called otherwise there
    with pytest.raises(ValueError, match=r"predicts gap, e_form in this order.*--config\.data\.target=gap,e_form$"):
        data.check_target(scaler, ("e_form", "gap"), ("", ""))


def test_evaluate_repeats_the_test_error_and_judges_other_data(
    run: Run, trained: Path, cif_folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "results"
    expected = json.loads((trained / "summary.json").read_text())["metrics"]["test"]["mae"]
    (trained / "evaluation_test").mkdir(exist_ok=True)
    (trained / "evaluation_test" / "roc.png").write_text("of an earlier call")
    (trained / "evaluation_test" / "summary.json").write_text("{}")
    run("evaluate", f"--workdir={trained}")
    assert [path.name for path in (trained / "evaluation_test").glob("*.png")] == ["parity.png"]
    found = json.loads((trained / "evaluation_test" / "summary.json").read_text())["metrics"]["test"]["mae"]
    assert found == pytest.approx(expected, rel=1e-5)
    on_all = (f"--workdir={trained}", "--split=all", f"--config.data.path={cif_folder}")
    done = run("evaluate", *on_all)
    assert "all (60 crystals)" in done.stdout
    assert "48 of the 60 crystals have ids that the run was trained on or chosen by" in done.stdout
    summary = json.loads((trained / "evaluation_all" / "summary.json").read_text())
    assert summary["crystals"] == {
        "judged": 60,
        "left_out": 0,
        "of_the_run": 48,
        "like_those_of_the_run": 0,
        "looks_compared_with": "all",
    }
    # Others' names hide none of those that trained.
    shutil.copytree(cif_folder, tmp_path / "renamed")
    for file in (tmp_path / "renamed").glob("*.cif"):
        file.rename(file.with_name(f"my {file.name}"))
    table = tmp_path / "renamed" / "id_prop.csv"
    table.write_text("".join(f"my {line}\n" for line in table.read_text().splitlines()))
    done = run("evaluate", *on_all[:2], f"--config.data.path={tmp_path / 'renamed'}", f"--output={tmp_path / 'mine'}")
    n_train = len(json.loads((trained / "split.json").read_text())["train"])
    assert f"{n_train} of the 60 crystals look like some that the run was trained on, under other ids" in done.stdout
    for flag, labels in (("--config.data.unit=nm³/atom", "in nm³/atom"), ("--config.data.log10", "in log10(Å³/atom)")):
        wrong = run("evaluate", *on_all, flag, status=1).stderr
        assert "the network predicts " in wrong and labels in wrong
    # Elsewhere, if asked for, and not over others' without a word.
    (elsewhere / "all").mkdir(parents=True)
    for name in ("mine.png", "parity_mine.png"):
        (elsewhere / "all" / name).write_text("a picture of the user's")
    done = run("evaluate", *on_all, f"--output={elsewhere}/all")
    assert {path.name for path in (elsewhere / "all").glob("*.png")} == {"mine.png", "parity_mine.png", "parity.png"}
    before = (trained / "summary.json").read_bytes()
    assert "is the folder of a run" in run("evaluate", *on_all, f"--output={trained}/.", status=1).stderr
    assert (trained / "summary.json").read_bytes() == before and (trained / "parity.png").exists()
    summary = json.loads((elsewhere / "all" / "summary.json").read_text())
    assert summary["crystals"]["judged"] == 60 and "replace" not in done.stderr
    shutil.copytree(cif_folder, elsewhere / "cifs")
    (elsewhere / "cifs" / "x0.cif").write_text("")
    flags = (f"--config.data.path={elsewhere / 'cifs'}", "--config.data.on_error=skip", f"--output={elsewhere}/all")
    done = run("evaluate", *on_all[:2], *flags)
    assert f"{elsewhere}/all had results of other data, which these replace" in done.stderr
    assert f"1 crystals of the data are left out: {elsewhere}/all/rejected.csv says why" in done.stdout


def test_evaluate_tells_that_the_crystals_of_the_split_are_others(
    run: Run, trained: Path, cif_folder: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(cif_folder, tmp_path / "other")
    labels = (other / "id_prop.csv").read_text().splitlines()
    id, value = labels[0].split(",")
    (other / "id_prop.csv").write_text("\n".join([f"{id},{float(value) + 1}", *labels[1:]]) + "\n")
    told = "these are not the data that the run was trained on"
    output = "--output=others"
    assert told not in run("evaluate", f"--workdir={trained}", output).stderr
    assert told in run("evaluate", f"--workdir={trained}", output, f"--config.data.path={other}").stderr


def test_several_runs_are_judged_together(
    run: Run, trained: Path, other_seed: Path, cif_folder: Path, tmp_path: Path
) -> None:
    one, other = (read_csv((workdir / "predictions.csv").read_text()) for workdir in (trained, other_seed))
    errors = [
        (float(a["prediction"]) + float(b["prediction"])) / 2 - float(a["target"])
        for a, b in zip(one, other, strict=True)
    ]
    done = run("evaluate", f"--workdir={trained}", f"--workdir={other_seed}")
    folder = trained.parent / "evaluation_test"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"]["test"]["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert summary["networks"] == [str(trained), str(other_seed)]
    assert str(folder) in done.stdout and (folder / "parity.png").exists()
    for row, a, b in zip(read_csv((folder / "predictions.csv").read_text()), one, other, strict=True):
        assert row["id"] == a["id"] == b["id"]
        assert float(row["std"]) == pytest.approx(
            abs(float(a["prediction"]) - float(b["prediction"])) / 2**0.5, rel=1e-3
        )
    # Of one of them, and of crystals with which it was chosen, over these.
    done = run("evaluate", f"--workdir={trained}", "--split=val", f"--output={folder}")
    assert f"{folder} had results of other networks and other crystals, which these replace" in done.stderr


def test_networks_with_and_without_angles_are_judged_together(
    run: Run, trained: Path, cif_folder: Path, tmp_path: Path
) -> None:
    angular = tmp_path / "angular"
    run("train", *directory_flags(cif_folder), f"--workdir={angular}", *TINY, "--config.graph.angles")
    one, other = (read_csv((workdir / "predictions.csv").read_text()) for workdir in (trained, angular))
    for first, second in ((trained, angular), (angular, trained)):
        folder = tmp_path / f"{first.name} first"
        done = run("evaluate", f"--workdir={first}", f"--workdir={second}", f"--output={folder}")
        assert "not the data that the run was trained on" not in done.stderr
        for row, a, b in zip(read_csv((folder / "predictions.csv").read_text()), one, other, strict=True):
            mean = (float(a["prediction"]) + float(b["prediction"])) / 2
            assert row["id"] == a["id"] == b["id"] and float(row["prediction"]) == pytest.approx(mean, rel=1e-5)


def test_of_networks_that_learned_more_what_all_learned_is_judged(
    run: Run, trained: Path, cif_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(cif_folder, tmp_path / "labels")
    rows = [line.split(",") for line in (folder / "id_prop.csv").read_text().splitlines()]
    (folder / "id_prop.csv").write_text("".join(f"{id},{1 / float(value)},{value}\n" for id, value in rows))
    flags = [flag for flag in directory_flags(folder) if "target" not in flag and "unit" not in flag]
    flags += ["--config.data.columns=density,volume", "--config.data.unit=1/Å³,Å³/atom"]
    run("train", *flags, "--config.data.target=density,volume", f"--workdir={tmp_path / 'both'}", *TINY)
    together = (f"--workdir={tmp_path / 'both'}", f"--workdir={trained}", f"--output={tmp_path / 'judged'}")
    assert "not the data that the run was trained on" not in run("evaluate", *together).stderr
    one, other, judged = (
        read_csv((place / "predictions.csv").read_text()) for place in (trained, tmp_path / "both", tmp_path / "judged")
    )
    for a, b, both in zip(one, other, judged, strict=True):
        assert both["id"] == a["id"] == b["id"] and both["target"] == a["target"]
        values = [float(a["prediction"]), float(b["prediction:volume"])]
        assert float(both["prediction"]) == pytest.approx(sum(values) / 2, rel=1e-5)
    # The other folder has volumes alone.
    of_volumes = ("--config.data.target=volume", "--config.data.columns=", "--config.data.unit=Å³/atom")
    run("evaluate", *together[:2], f"--output={tmp_path / 'again'}", f"--config.data.path={cif_folder}", *of_volumes)
    again = read_csv((tmp_path / "again" / "predictions.csv").read_text())
    assert [row["prediction"] for row in again] == [row["prediction"] for row in judged]


@pytest.mark.slow
def test_a_crystal_that_one_network_was_trained_on_judges_no_ensemble_unless_asked(
    run: Run, trained: Path, cif_folder: Path, tmp_path: Path
) -> None:
    flags = [*directory_flags(cif_folder), *TINY, "--config.split.seed=1", "--config.train.epochs=1"]
    run("train", *flags, f"--workdir={tmp_path / 'c'}")
    both = (f"--workdir={trained}", f"--workdir={tmp_path / 'c'}")
    assert (
        "have different crystals in test; judge networks of one split together"
        in run("evaluate", *both, status=1).stderr
    )
    used = {id for place in (trained, tmp_path / "c") for id in _used(place)}
    counted = f"{len(used)} of the 60 crystals have ids that the run was trained on or chosen by"
    assert counted in run("evaluate", *both, "--split=all", "--output=whole").stdout
    assert len(used) > 48


def _used(workdir: Path) -> list[str]:
    split = json.loads((workdir / "split.json").read_text())
    return split["train"] + split["val"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--workdir=nowhere", "--input=x"),
            "nowhere: no such folder; a trained network is the folder of a training run",
        ),
        (("--input=x",), "--workdir"),
        (("--workdir=nowhere",), "--input"),
        (("--workdri=x", "--input=x"), "Did you mean: workdir"),
    ],
)
def test_mistakes_are_told_in_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("predict", *arguments, status=1 if "a trained network" in message else 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_one_structure_or_one_path_need_no_list(trained: Path, cif_folder: Path) -> None:
    predictor = Predictor.restore(trained)
    structure = Structure.from_file(cif_folder / "x3.cif")
    values = [predictor.predict(one)["prediction"].tolist() for one in (structure, [structure], cif_folder / "x3.cif")]
    assert values[0] == values[1] == values[2]
    # The library's own crystals and files, too.
    (file,) = read_input(cif_folder / "x3.cif")
    for own in (file, file.read()):
        table = predictor.predict(own)
        assert table["prediction"].tolist() == values[0] and table["id"][0] == "x3"
    assert len(predictor.predict(str(cif_folder))) == 60


def test_nothing_predicted_is_an_error(run: Run, trained: Path) -> None:
    done = run("predict", f"--workdir={trained}", "--input=absent.cif", status=1)
    assert "no structure could be predicted" in done.stderr
