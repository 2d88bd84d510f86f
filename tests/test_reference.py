"""The published checkpoints, against what the published PyTorch code predicts with them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax import reference, torchfile
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_files, read_jsonl
from cgcnn_jax.predict import Predictor
from cgcnn_jax.torchfile import TorchFileError
from tests.experiments.starts import start

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def published(shared_data: Path) -> Path:
    return shared_data / "cgcnn_reference"


@pytest.fixture(scope="session")
def expected(published: Path) -> list[dict]:
    return json.loads((published / "expected_predictions.json").read_text())


@pytest.fixture(scope="session")
def crystals(shared_data: Path, expected: list[dict]) -> list[Crystal]:
    wanted = {record["id"] for record in expected}
    found = {c.id: c for c in read_jsonl(shared_data / "mp_2018_6_1") if isinstance(c, Crystal) and c.id in wanted}
    return [found[record["id"]] for record in expected]


@pytest.mark.parametrize("name", reference.PUBLISHED)
def test_predictions_are_those_of_the_published_code(
    name: str, published: Path, crystals: list[Crystal], expected: list[dict]
) -> None:
    table = reference.load(published / "pre-trained" / f"{name}.pth.tar").predict_entries(crystals)
    column = "probability_1" if "probability_1" in table else "prediction"
    # float32 in another order of summation; what is asked for is 1e-4.
    np.testing.assert_allclose(table[column], [record["predictions"][name] for record in expected], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", reference.PUBLISHED)
def test_predictions_from_cif_are_those_of_the_published_command(name: str, published: Path) -> None:
    samples = json.loads((Path(__file__).parent / "reference_samples.json").read_text())["predictions"]
    predictor = reference.load(published / "pre-trained" / f"{name}.pth.tar")
    table = predictor.predict_entries(read_files([published / "sample-regression"]))
    column = "probability_1" if "probability_1" in table else "prediction"
    assert list(table["id"]) == sorted(samples)
    np.testing.assert_allclose(table[column], [samples[id][name] for id in table["id"]], rtol=0, atol=2e-5)


def test_there_are_eight_models_and_each_has_the_published_number_of_parameters(published: Path) -> None:
    names = {path.name.removesuffix(".pth.tar") for path in (published / "pre-trained").glob("*.pth.tar")}
    assert names == set(reference.PUBLISHED)
    for name in names:
        found = reference.read(published / "pre-trained" / f"{name}.pth.tar")
        total = sum(np.size(leaf) for part in found.weights.params.values() for leaf in _leaves(part))
        # A classifier has one output more: 32 weights and a bias.
        assert total == 96_641 + (33 if found.scaler.task == "classification" else 0)


def _leaves(tree: object) -> list:
    return [leaf for value in tree.values() for leaf in _leaves(value)] if isinstance(tree, dict) else [tree]


@pytest.mark.parametrize(
    ("name", "error"),
    [("formation-energy-per-atom", 0.03972), ("band-gap", 0.36897), ("poisson-ratio", 0.02931)],
)
def test_stored_errors_and_normalisers_are_read(published: Path, name: str, error: float) -> None:
    found = reference.read(published / "pre-trained" / f"{name}.pth.tar")
    assert found.validation_error == pytest.approx(error, abs=5e-6)


def test_shared_places_make_the_published_models_invariant_and_keep_their_accuracy(
    published: Path, crystals: list[Crystal]
) -> None:
    cut = reference.load(published / "pre-trained" / "formation-energy-per-atom.pth.tar")
    shared = reference.load(published / "pre-trained" / "formation-energy-per-atom.pth.tar", invariant=True)
    labels = np.array([crystal.targets["formation_energy_eV_per_atom"] for crystal in crystals])
    errors = [np.abs(p.predict_entries(crystals)["prediction"] - labels).mean() for p in (cut, shared)]
    assert errors[1] < 1.02 * errors[0]
    small = [crystal.to_structure() for crystal in crystals if len(crystal.species) < 12][:10]
    doubled = [structure.make_supercell([2, 1, 1], in_place=False) for structure in small]
    change = {
        name: np.abs(p.predict(small)["prediction"] - p.predict(doubled)["prediction"]).max()
        for name, p in (("cut", cut), ("shared", shared))
    }
    assert change["shared"] < 1e-5
    assert change["cut"] > 1e-3


def test_a_model_written_back_is_the_one_that_was_read(published: Path, tmp_path: Path) -> None:
    # That predict.py of the published code reads such a file, and predicts the same, was tried by hand: torch is no
    # dependency.
    original = published / "pre-trained" / "shear-moduli.pth.tar"
    flags = [f"--workdir={tmp_path / 'run'}", str(original)]
    assert start("import_reference", *flags).returncode == 0
    reference.save(tmp_path / "run", tmp_path / "again.pth.tar")
    before, after = torchfile.read(original), torchfile.read(tmp_path / "again.pth.tar")
    assert before["state_dict"].keys() == after["state_dict"].keys()
    for key, array in before["state_dict"].items():
        np.testing.assert_array_equal(array, after["state_dict"][key])
    for key in ("mean", "std"):
        assert float(after["normalizer"][key]) == pytest.approx(float(before["normalizer"][key]), rel=1e-7)


@pytest.mark.parametrize("invariant", [False, True])
def test_an_imported_model_predicts_as_the_one_that_is_loaded(published: Path, tmp_path: Path, invariant: bool) -> None:
    original = published / "pre-trained" / "bulk-moduli.pth.tar"
    flags = [f"--workdir={tmp_path / 'run'}", f"--checkpoint={original}", *["--invariant"] * invariant]
    assert start("import_reference", *flags, "--name=K", "--unit=log(GPa)").returncode == 0
    imported, loaded = Predictor.restore(tmp_path / "run"), reference.load(original, invariant=invariant)
    assert dataclasses.replace(imported.featurizer, known_species=None) == loaded.featurizer
    assert imported.model == loaded.model
    assert (imported.scaler.names, imported.scaler.units) == (("K",), ("log(GPa)",))
    samples = list(read_files([published / "sample-regression"]))
    one, other = (predictor.predict_entries(samples) for predictor in (imported, loaded))
    assert len(one) == 10 and one["id"].equals(other["id"])
    np.testing.assert_allclose(one["prediction"], other["prediction"], rtol=1e-6)


def test_from_cif_to_prediction(published: Path) -> None:
    # Formation energies of rock salt and caesium chloride are known: -2.13 and -2.3 eV/atom; diamond has none.
    table = reference.load(published / "pre-trained" / "formation-energy-per-atom.pth.tar").predict_entries(
        read_files([published / "sample-regression"])
    )
    value = dict(zip(table["id"], table["prediction"], strict=True))
    assert value["1000041"] == pytest.approx(-2.13, abs=0.06)
    assert value["9009743"] == pytest.approx(-2.3, abs=0.1)
    assert list(table["formula"][:3]) == ["NaCl", "KCl", "ZnS"]


def test_another_file_is_refused_with_the_reason(tmp_path: Path, published: Path) -> None:
    whole = (published / "pre-trained" / "band-gap.pth.tar").read_bytes()
    cut = tmp_path / "cut.pth.tar"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TorchFileError, match=r"cut\.pth\.tar: .*(cut short|not a whole torch checkpoint)"):
        reference.read(cut)
    with pytest.raises(TorchFileError, match="made with 92 atom features an element, but the table has 93"):
        reference.read(published / "pre-trained" / "band-gap.pth.tar", atom_table=np.zeros((104, 93), np.float32))
