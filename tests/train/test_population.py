"""A population's members are what they are alone: shuffles, dropout, best weights, patience, divergence. Also a script."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.loop import Diverged
from cgcnn_jax.train.population import Member, fit_population

pytestmark = pytest.mark.usefixtures("quick_compiling")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]

WARM = {"schedule": "cosine", "warmup_epochs": 0.75}  # four steps of five, three of four
COMMON = {"settings": {"epochs": 6, "patience": 2, "average_decay": 0.5}, "optimizer": WARM}
# Seed, learning rate, l2, dropout. The second learns so fast that its patience ends; the third diverges.
OWN = ((0, 1e-2, 1e-3, 0.2), (1, 0.5, 1e-4, 0.0), (2, 1e12, 1e-3, 0.5))


def own_split(problem, number):
    """The second member holds out more of the crystals, so that its epochs have four steps and those of others five."""
    if number != 1:
        return problem.split
    train, val = problem.split["train"], problem.split["val"]
    return problem.split | {"train": train[:16], "val": np.sort(np.concatenate([train[16:], val]))}


def own_scaler(problem, number):
    train = own_split(problem, number)["train"]
    return TargetScaler.fit(problem.targets[train], problem.scaler.names, problem.scaler.units)


def fit_members(problem, *, own=OWN, parallel="shard", folder=None, **callbacks):
    members = [
        Member(
            init_variables(problem.model, one[0], problem.table),
            *one,
            own_split(problem, number),
            own_scaler(problem, number),
        )
        for number, one in enumerate(own)
    ]

    def go(checkpoints):
        return fit_population(
            problem.model,
            members,
            problem.graphs,
            problem.targets,
            problem.settings,
            problem.optimizer,
            parallel=parallel,
            checkpoints=checkpoints,
            **callbacks,
        )

    if folder is None:
        return go(None)
    with Checkpoints(folder) as checkpoints:
        return go(checkpoints)


def run_alone(problem, number, own=OWN, **callbacks):
    """What a member would end as without the others."""
    seed, learning_rate, l2, dropout = own[number]
    alone = problem.changed(
        model={"dropout": dropout},
        settings={"seed": seed},
        optimizer={"learning_rate": learning_rate, "l2": l2},
        split=own_split(problem, number),
        scaler=own_scaler(problem, number),
    )
    return replace(alone, seed=seed).run(**callbacks)


@pytest.fixture(scope="module")
def trained(make_problem):
    problem = make_problem(**COMMON)
    records = {number: [] for number in range(len(OWN))}
    ends = fit_members(problem, on_epoch=lambda number, record: records[number].append(record))
    return problem, ends, records


def test_members_of_muon_end_as_their_own_runs(make_problem):  # whose matrices are not updated number by number
    problem = make_problem(settings={"epochs": 2}, optimizer={"name": "muon", "learning_rate": 0.01})
    own = ((0, 0.01, 1e-3, 0.0), (1, 0.003, 1e-2, 0.0))
    ends = fit_members(problem, own=own)
    for number, end in enumerate(ends):
        expected = run_alone(problem, number, own).values
        np.testing.assert_allclose(end.values, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("number", [0, 1])
def test_a_member_ends_as_its_own_run(trained, number):
    problem, ends, records = trained
    expected_records = []
    expected = run_alone(problem, number, on_epoch=expected_records.append)
    end = ends[number]
    # Float32 rounding, which training amplifies: a shuffle or a draw of another kind would differ in the first digits.
    np.testing.assert_allclose(end.values, expected.values, rtol=1e-3, atol=1e-3)
    assert jax.tree.structure(end.state) == jax.tree.structure(expected.state)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=5e-3, atol=5e-3),
        end.state.best,
        expected.state.best,
    )
    assert int(end.state.best_epoch) == int(expected.state.best_epoch)
    assert len(records[number]) == len(expected_records)
    for mine, other in zip(records[number], expected_records, strict=True):
        assert mine.keys() == other.keys()
        for key in mine.keys() - {"seconds"}:
            assert mine[key] == pytest.approx(other[key], rel=2e-3, abs=1e-4), key


def test_patience_ends_one_member_before_the_others(trained):
    _, ends, records = trained
    assert len(records[0]) == 6
    assert len(records[1]) == int(ends[1].state.best_epoch) + 3 < 6


def test_a_diverging_member_is_left_behind(trained):
    # The warmup begins at 0. Adam's second step is a quarter of 1e12 whatever the gradient; the next error's square is beyond
    # float32.
    _, ends, records = trained
    assert isinstance(ends[2], Diverged)
    assert (ends[2].step, ends[2].epoch) == (2, 0)
    assert "not finite at step 2 (epoch 1)" in str(ends[2])
    assert records[2] == []


def test_the_speed_is_that_of_all_members(trained):
    problem, (end, *_), _ = trained
    n_train = sum(len(own_split(problem, number)["train"]) for number in range(len(OWN)))
    timed = end.crystals_per_second * end.seconds["training"] * len(OWN)
    # Six epochs of five steps; the first step is compiling.
    assert timed == pytest.approx(n_train * (6 * 5 - 1) / 5)


def test_members_with_and_without_validation_do_not_go_together(make_problem):
    problem = make_problem()
    variables = init_variables(problem.model, 0, problem.table)
    members = [
        Member(variables, seed, 0.1, 0.0, 0.0, split, problem.scaler)
        for seed, split in enumerate([problem.split, problem.split | {"val": np.arange(0)}])
    ]
    with pytest.raises(ValueError, match="validate on, or none; got 1 of 2 with such crystals"):
        fit_population(problem.model, members, problem.graphs, problem.targets, problem.settings, problem.optimizer)


@pytest.mark.slow
def test_a_stopped_population_goes_on_to_the_same_bits(trained, assert_same, tmp_path):
    problem, expected, records = trained
    again = {number: [] for number in range(len(OWN))}
    asked = []

    def stop():
        asked.append(None)
        # The second question comes after two of the five steps of an epoch.
        return len(asked) == 2

    def remember(number, record):
        again[number].append(record)

    assert fit_members(problem, folder=tmp_path, on_epoch=remember, should_stop=stop) is None
    assert not any(again.values())
    ends = fit_members(problem, folder=tmp_path, on_epoch=remember)
    for number in (0, 1):
        assert_same(ends[number].state, expected[number].state)
        np.testing.assert_array_equal(ends[number].values, expected[number].values)
        assert [record["val_error"] for record in again[number]] == [r["val_error"] for r in records[number]]
    # It diverged before the stop, and that is remembered.
    assert (ends[2].step, ends[2].epoch) == (2, 0)


@pytest.mark.slow
def test_eight_devices_and_pmap_give_the_same_numbers(trained, tmp_path):
    _, expected, _ = trained
    subprocess.run(
        [sys.executable, __file__, str(tmp_path / "values.npz")],
        check=True,
        env=os.environ
        | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    found = np.load(tmp_path / "values.npz")
    assert found["devices"] == 8
    for number in (0, 1):
        np.testing.assert_array_equal(found["pmap"][number], found["shard"][number])
        np.testing.assert_allclose(found["shard"][number], expected[number].values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("own", "parallel", "message"),
    [
        ((), "shard", "at least one member"),
        (
            ((0, 0.1, 0.0, 0.0), (1, 0.1, 1e-3, 0.0)),
            "shard",
            "l2 must be 0 for all members of a population or for none",
        ),
        (OWN, "threads", "unknown parallel 'threads'; choose one of shard, pmap"),
    ],
)
def test_mistakes_are_named(make_problem, own, parallel, message):
    with pytest.raises(ValueError, match=message):
        fit_members(make_problem(), own=own, parallel=parallel)


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("problem", HERE / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["problem"] = module
    spec.loader.exec_module(module)
    values = {
        way: np.stack([end.values for end in fit_members(module.build(**COMMON), parallel=way)[:2]])
        for way in ("shard", "pmap")
    }
    np.savez(sys.argv[1], devices=jax.local_device_count(), **values)
