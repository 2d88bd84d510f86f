import dataclasses
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cgcnn_jax import Ensemble
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.dataset import load
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.judging import JudgingPredictor
from cgcnn_jax.predict import Predictor
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.state import Weights
from tests.predictors import CLASSES, ENERGY, make_predictor

pytestmark = pytest.mark.usefixtures("quicker_compiling")

SALT = Structure([[0, 2.82, 2.82], [2.82, 0, 2.82], [2.82, 2.82, 0]], ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CESIUM = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def another(predictor: Predictor, factor: float) -> Predictor:
    """The network with other weights in the output layer."""
    params = dict(predictor.weights.params)
    params["output"] = {name: factor * leaf for name, leaf in params["output"].items()}
    return with_params(predictor, params)


def with_params(predictor: Predictor, params: dict[str, Any]) -> Predictor:
    weights = Weights(params, predictor.weights.batch_stats, predictor.weights.constants)
    other = Predictor(predictor.model, weights, predictor.scaler, predictor.featurizer, {})
    other._budget = predictor._budget
    return other


@pytest.fixture(scope="module")
def three() -> list[Predictor]:
    first = make_predictor(pool="mean")
    return [first, another(first, 0.5), another(first, -2.0)]


def test_the_mean_predicts_and_the_spread_is_that_of_the_networks(three: list[Predictor]) -> None:
    table = Ensemble(three).predict([SALT, CESIUM])
    assert list(table.columns) == ["id", "formula", "prediction", "unit", "std", "reason"]
    alone = np.array([one.predict([SALT, CESIUM])["prediction"] for one in three])
    np.testing.assert_allclose(table["prediction"], alone.sum(axis=0) / 3, rtol=1e-12)
    apart = alone - alone.sum(axis=0) / 3
    np.testing.assert_allclose(table["std"], np.sqrt((apart**2).sum(axis=0) / 2), rtol=1e-12)
    assert (table["std"] > 0.01).all() and list(table["unit"]) == ["eV/atom"] * 2


def test_networks_that_agree_have_no_spread_and_the_same_one_twice_is_refused(three: list[Predictor]) -> None:
    # The units of a hidden layer in another order: other weights, the same function.
    params = dict(three[0].weights.params)
    params["crystal_0"] = {name: leaf[..., ::-1] for name, leaf in params["crystal_0"].items()}
    params["output"] = params["output"] | {"kernel": params["output"]["kernel"][::-1]}
    table = Ensemble([three[0], with_params(three[0], params)]).predict(SALT)
    assert table["std"][0] < 1e-5
    assert table["prediction"][0] == pytest.approx(three[0].predict(SALT)["prediction"][0], rel=1e-5)
    with pytest.raises(ValueError, match="runs/a and runs/a/ are the same network; leave one of them out"):
        Ensemble([three[0], three[1], three[0]], ["runs/a", "runs/b", "runs/a/"])


def test_classes_are_those_of_the_mean_probability(three: list[Predictor]) -> None:
    first = make_predictor(pool="mean", scaler=CLASSES)
    both = [first, another(first, -3.0)]
    table = Ensemble(both).predict([SALT, CESIUM])
    names = [f"probability_{k}" for k in (0, 1)]
    assert list(table.columns) == ["id", "formula", "class", *names, *(f"std of {name}" for name in names), "reason"]
    one, two = (predictor.predict([SALT, CESIUM]) for predictor in both)
    for name in names:
        np.testing.assert_allclose(table[name], (one[name] + two[name]) / 2, rtol=1e-12)
        # Of two values the sample's deviation is their distance over the root of 2.
        np.testing.assert_allclose(table[f"std of {name}"], np.abs(one[name] - two[name]) / np.sqrt(2), rtol=1e-9)
    assert list(table["class"]) == list(np.argmax(table[names].to_numpy(), axis=1))
    # Of a crystal without neighbours there is none, and the others' stays a whole number.
    alone = Crystal.from_arrays("alone", 30 * np.eye(3), ["Na"], [[0, 0, 0]])
    (_, *of_both), (_, *of_all) = (
        Ensemble(both).predict(them).to_csv(index=False).splitlines()
        for them in ([SALT, CESIUM], [SALT, CESIUM, alone.to_structure()])
    )
    assert of_all[:-1] == of_both and of_all[-1].startswith("2,,,")


def test_a_structure_without_graph_or_number_has_a_reason(three: list[Predictor]) -> None:
    alone = Structure(Lattice.cubic(40), ["Ne"], [[0, 0, 0]])
    table = Ensemble(three[:2]).predict([SALT, alone])
    assert table["reason"][0] == "" and "no neighbour" in table["reason"][1]
    assert np.isnan(table["prediction"][1]) and np.isnan(table["std"][1])
    # One network without a number leaves the mean none.
    table = Ensemble([three[0], another(three[0], np.nan)]).predict(SALT)
    assert table["prediction"][0] is None and "not a finite number" in table["reason"][0]
    assert list(Ensemble(three).predict([]).columns) == list(table.columns)


def test_networks_of_different_things_are_no_ensemble(three: list[Predictor]) -> None:
    first = three[0]
    gap = TargetScaler("regression", ("gap",), ("eV",), (1.0,), (1.0,))
    of_gap = Predictor(first.model, first.weights, gap, first.featurizer, {})
    with pytest.raises(
        ValueError, match=r"network 3 predicts gap \(eV\), those before it energy \(eV/atom\): leave some"
    ):
        Ensemble([first, three[1], of_gap])
    three_classes = dataclasses.replace(CLASSES, num_classes=3)
    with pytest.raises(ValueError, match="runs/b predicts 3 classes of is_metal, those before it 2 classes"):
        Ensemble(
            [
                Predictor(first.model, first.weights, scaler, first.featurizer, {})
                for scaler in (CLASSES, three_classes)
            ],
            ["runs/a", "runs/b"],
        )
    farther = Predictor(first.model, first.weights, ENERGY, Featurizer(WholeShells(num_neighbors=9)), {})
    with pytest.raises(ValueError, match=r"network 2 was trained on others than network 1"):
        Ensemble([first, farther])
    with pytest.raises(ValueError, match="needs at least two networks; got 1"):
        Ensemble([first])


def test_networks_with_and_without_angles_predict_together(three: list[Predictor]) -> None:
    without, with_angles = three[0], make_predictor(pool="mean", angles=True)
    apart = [one.predict([SALT, CESIUM])["prediction"].to_numpy() for one in (without, with_angles)]
    assert np.abs(apart[0] - apart[1]).min() > 1e-3
    for networks in ([without, with_angles], [with_angles, without]):
        ensemble = Ensemble(networks)
        assert ensemble.featurizer == with_angles.featurizer
        table = ensemble.predict([SALT, CESIUM])
        np.testing.assert_allclose(table["prediction"], np.mean(apart, axis=0), rtol=1e-5)


def test_networks_that_learned_several_properties_predict_what_all_of_them_learned(three: list[Predictor]) -> None:
    energy = three[0]
    both = TargetScaler("regression", ("gap", "energy"), ("eV", "eV/atom"), (1.0, -1.5), (2.0, 0.7))
    of_both = make_predictor(pool="mean", scaler=both)
    alone, other = energy.predict([SALT, CESIUM]), of_both.predict([SALT, CESIUM])
    for networks in ([energy, of_both], [of_both, energy]):
        ensemble = Ensemble(networks)
        assert (ensemble.scaler.names, ensemble.scaler.mean) == (("energy",), (-1.5,))
        table = ensemble.predict([SALT, CESIUM])
        assert list(table.columns) == ["id", "formula", "prediction", "unit", "std", "reason"]
        assert list(table["unit"]) == ["eV/atom"] * 2
        mean = (alone["prediction"] + other["energy (eV/atom)"]) / 2
        np.testing.assert_allclose(table["prediction"], mean, rtol=1e-12)
    # The same name in another unit is another property.
    in_meV = dataclasses.replace(both, units=("eV", "meV/atom"))
    gap = Ensemble([of_both, Predictor(of_both.model, another(of_both, 0.5).weights, in_meV, of_both.featurizer, {})])
    assert gap.columns() == ["prediction", "unit", "std"] and gap.scaler.names == ("gap",)
    half = another(of_both, 0.5)
    assert Ensemble([of_both, half]).columns() == [
        "gap (eV)",
        "energy (eV/atom)",
        "std of gap (eV)",
        "std of energy (eV/atom)",
    ]
    # Each shares a property with the first, and all three have none.
    of_gap = make_predictor(pool="mean", scaler=both.only(("gap",)))
    with pytest.raises(ValueError, match=r"network 3 predicts gap \(eV\), those before it energy \(eV/atom\)"):
        Ensemble([of_both, energy, of_gap])


def test_an_ensemble_is_judged_by_the_network_that_knows_its_training_crystals(three: list[Predictor]) -> None:
    # Of other convolutions, so that its vectors are others, too.
    first, second, third = make_predictor(pool="mean", conv="gated"), *three[:2]
    data = load([Crystal.from_structure("a", SALT), Crystal.from_structure("b", CESIUM)], second.featurizer, [])
    known = dataclasses.replace(Applicability.fit(second, data), spacing=np.full(2, 1e-3))
    assert not np.allclose(known.vectors, Applicability.fit(first, data).vectors)
    crystals = [SALT, Structure(SALT.lattice.scale(90), ["Na", "I"], SALT.frac_coords)]
    both = Ensemble([first, second])
    table, alone = JudgingPredictor(both, known).predict(crystals), JudgingPredictor(second, known).predict(crystals)
    assert list(table["outside"]) == list(alone["outside"]) == ["", alone["outside"][1]]
    assert "I is in no training crystal" in table["outside"][1] and "far from every" in table["outside"][1]
    assert list(table.columns) == ["id", "formula", "prediction", "unit", "std", "outside", "reason"]
    np.testing.assert_array_equal(table["prediction"], both.predict(crystals)["prediction"])
    with pytest.raises(ValueError, match="of other weights than those that predict"):
        JudgingPredictor(Ensemble([first, third]), known)
