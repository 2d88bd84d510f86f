"""Grids, products and random draws, expanded by hand."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest

from cgcnn_jax.config import build_split
from cgcnn_jax.data.dataset import load
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.sweep import Integers, Uniform, grid, product, random
from cgcnn_jax.sweep.space import MEMBER_FIELDS, with_overrides
from configs import formation_energy
from configs.sweeps import folds, seeds, table_s1


def test_a_grid_has_every_combination_the_last_field_fastest():
    layers = ("model.atom_layers", "model.crystal_layers")
    assert grid({"model.num_convs": [1, 2], layers: [(1, 0), (0, 3)]}) == [
        {"model.num_convs": 1, "model.atom_layers": 1, "model.crystal_layers": 0},
        {"model.num_convs": 1, "model.atom_layers": 0, "model.crystal_layers": 3},
        {"model.num_convs": 2, "model.atom_layers": 1, "model.crystal_layers": 0},
        {"model.num_convs": 2, "model.atom_layers": 0, "model.crystal_layers": 3},
    ]


def test_a_product_merges_trials_of_each_list():
    assert product([{"a.b": 1}, {"a.b": 2}], [{"c.d": 3, "c.e": 4}, {"c.d": 5}]) == [
        {"a.b": 1, "c.d": 3, "c.e": 4},
        {"a.b": 1, "c.d": 5},
        {"a.b": 2, "c.d": 3, "c.e": 4},
        {"a.b": 2, "c.d": 5},
    ]


def test_the_seed_makes_the_draws():
    space = {"model.features": Integers(10, 200), "optimizer.learning_rate": Uniform(1e-4, 1e-1, log=True)}
    assert random(5, space, seed=3) == random(5, space, seed=3)
    assert random(5, space, seed=3) != random(5, space, seed=4)
    assert random(9, space, seed=3)[:5] == random(5, space, seed=3)


def test_draws_fill_their_ranges_evenly():
    # Of 400: a value of four, 100 ± 26 (3 sigma); below the middle of a range, 200 ± 30; the middle of a logarithmic
    # range is the geometric mean.
    space = {
        "a.choice": [1, 2, 3, 4],
        "a.whole": Integers(1, 1000),
        "a.even": Uniform(0.0, 2.0),
        "a.log": Uniform(1e-4, 1.0, log=True),
    }
    drawn = random(400, space)
    assert all(74 <= count <= 126 for count in Counter(trial["a.choice"] for trial in drawn).values())
    for name, middle in (("a.whole", 500.5), ("a.even", 1.0), ("a.log", 1e-2)):
        assert 170 <= sum(trial[name] < middle for trial in drawn) <= 230, name
    assert all(1 <= trial["a.whole"] <= 1000 and 1e-4 <= trial["a.log"] <= 1 for trial in drawn)


def test_a_network_is_kept_for_some_trials_while_what_its_program_can_vary_is_drawn_anew():
    drawn = random(12, {"model.features": range(10, 200), "optimizer.l2": Uniform(1e-6, 1e-2, log=True)}, per_shape=4)
    widths = [trial["model.features"] for trial in drawn]
    assert [widths[i : i + 4] for i in (0, 4, 8)] == [[widths[0]] * 4, [widths[4]] * 4, [widths[8]] * 4]
    assert len({widths[0], widths[4], widths[8]}) == 3
    assert len({trial["optimizer.l2"] for trial in drawn}) == 12


def test_values_of_numpy_are_python_s_in_trials():
    space = {"model.num_convs": np.arange(2, 4), ("optimizer.l2", "model.conv"): [(np.float32(0.5), "sum")]}
    for trials in (grid(space), random(2, space)):
        assert sorted(json.loads(json.dumps(trials)), key=str) == [
            {"model.num_convs": 2, "optimizer.l2": 0.5, "model.conv": "sum"},
            {"model.num_convs": 3, "optimizer.l2": 0.5, "model.conv": "sum"},
        ]


def test_no_two_draws_are_alike_and_a_space_can_be_drawn_empty():
    space = {"model.num_convs": [1, 2, 3], "optimizer.l2": [0.0, 1e-4]}
    drawn = random(6, space, per_shape=4)
    assert sorted(map(str, drawn)) == sorted(map(str, grid(space)))
    with pytest.raises(ValueError, match="6 different trials, so that 7 cannot be drawn"):
        random(7, space)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid({"a.b": Uniform(0, 1)}), r"a grid needs a list of values for a\.b; got Uniform"),
        (lambda: grid({"a.b": []}), r"a\.b needs a list of values"),
        (lambda: grid({"a.b": "adam"}), r"a\.b needs a list of values, Uniform or Integers; got 'adam'"),
        (lambda: grid({"a.b": 3}), r"a\.b needs a list of values, Uniform or Integers; got 3"),
        (lambda: random(1, {"a.b": {1, 2}}), r"a\.b needs a list of values, Uniform or Integers; got \{1, 2\}"),
        (lambda: grid({"a.b": [1], ("a.b", "c.d"): [(1, 2)]}), r"a\.b stands there twice"),
        (lambda: grid({("a.b", "c.d"): [(1, 2), 3]}), r"a value of a\.b and c\.d must be 2 values; got 3"),
        (lambda: product([{"a.b": 1}], [{"a.b": 2}]), r"a\.b is set twice"),
        (lambda: random(0, {"a.b": [1]}), "must be at least 1; got 0"),
        (lambda: Uniform(0, 1, log=True), "low > 0 with log"),
        (lambda: Integers(3, 3), "need low < high"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_overrides_change_a_copy_and_unknown_fields_and_types_are_refused():
    config = formation_energy.get_config()
    changed = with_overrides(config, {"model.num_convs": 2, "optimizer.milestones": [5, 7]})
    assert (changed.model.num_convs, changed.optimizer.milestones, config.model.num_convs) == (2, (5, 7), 4)
    assert with_overrides(config, {"init_from": "runs/a"}).init_from == "runs/a"
    for name in ("model", "init", "train.", ".seed"):
        with pytest.raises(ValueError, match=f"sets {name}, which is no field"):
            with_overrides(config, {name: 1})
    with pytest.raises(ValueError, match=r"sets model\.depth, which is no field"):
        with_overrides(config, {"model.depth": 2})
    with pytest.raises(ValueError, match=r"sets model\.num_convs to 'two', which is of another type"):
        with_overrides(config, {"model.num_convs": "two"})


def test_table_s1_searches_what_the_paper_does():
    space = table_s1.get_space("sum")
    assert (space["model.num_convs"], space["atoms.properties"]) == ((1, 2, 3, 4, 5), (2, 3, 9))
    assert (min(space["model.features"]), max(space["model.features"])) == (10, 200)
    depths = space[("model.atom_layers", "model.crystal_layers")]
    assert sorted(depths) == sorted([(1, 0), (2, 0), (3, 0), (4, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5)])
    assert {"optimizer.l2", "model.init_scale", "optimizer.learning_rate", "model.dropout"} < space.keys()
    assert space["optimizer.learning_rate"][0] == pytest.approx(math.exp(-8), rel=1e-2)
    trials = table_s1.get_trials("sum")
    assert len(trials) == 80
    networks = {str({k: v for k, v in trial.items() if k not in MEMBER_FIELDS}) for trial in trials}
    assert len(networks) == 10
    assert len(table_s1.get_space("gated")) == 3
    for preset in ("sum", "gated"):
        assert table_s1.get_config(preset).model.conv == preset
        for trial in table_s1.get_trials(preset):
            with_overrides(table_s1.get_config(preset), trial)


def test_networks_of_an_ensemble_are_one_program_of_the_property_named():
    trials = seeds.get_trials()
    assert len({trial["train.seed"] for trial in trials}) == len(trials) == 5
    assert {field for trial in trials for field in trial} <= set(MEMBER_FIELDS)
    assert seeds.get_config().data.target == "formation_energy_eV_per_atom"
    assert seeds.get_config("band_gap").data.target == "gap_pbe_eV"
    assert seeds.get_config("band_gap:best").model.conv == "gated_update"
    with pytest.raises(ValueError, match=r"unknown property 'bandgap'; choose one of .*band_gap, base"):
        seeds.get_config("bandgap")


def test_folds_test_every_crystal_once():
    crystals = load(itertools.islice(read_demo(), 20), Featurizer(), ["formation_energy_eV_per_atom"])
    tested = []
    for trial in folds.get_trials():
        own = with_overrides(folds.get_config(), trial)
        split = build_split(own, crystals)
        assert not set(split["test"]) & {*split["train"], *split["val"]}
        tested += split["test"].tolist()
    assert sorted(tested) == list(range(20))
