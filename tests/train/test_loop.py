"""fit: it learns, keeps the best weights, stops when it should, says where it diverged, and compiles once."""

import itertools

import jax
import numpy as np
import pytest

from cgcnn_jax.data import batching
from cgcnn_jax.graph import PadBudget, select
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train import loop, metrics
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.loop import Diverged
from cgcnn_jax.train.optimizer import build_optimizer
from cgcnn_jax.train.state import init_state
from cgcnn_jax.train.step import compile_steps, predict_batch, take_batch, to_device

pytestmark = pytest.mark.usefixtures("quicker_compiling")


def mae(problem, values, part) -> float:
    index = problem.split[part]
    return float(np.abs(values[index] - problem.targets[index]).mean())


@pytest.mark.parametrize(("conv", "pool"), [("sum", "mean"), ("gated", "softmax"), ("gated_norm", "site")])
def test_fit_learns_the_mean_atomic_number(make_problem, conv, pool):
    problem = make_problem(
        model={"conv": conv, "pool": pool, "crystal_layers": 0 if pool == "site" else 1},
        settings={"epochs": 60},
        optimizer={"learning_rate": 0.02},
    )
    values = problem.run().values
    of_the_mean = np.abs(problem.targets - problem.scaler.mean)
    for part in ("train", "val", "test"):
        assert mae(problem, values, part) < 0.25 * of_the_mean[problem.split[part]].mean()


def test_fit_lowers_the_loss_it_is_told(make_problem):
    problem = make_problem(
        model={"conv": "gated_mlp"},
        settings={"epochs": 60, "loss": "mae"},
        optimizer={"name": "adamw", "learning_rate": 0.02, "l2": 1e-5},
    )
    records = []
    values = problem.run(on_epoch=records.append).values
    # The loss is of scaled targets, the error in their unit; under mse they would differ by more than a factor.
    in_units = [record["train_loss"] * problem.scaler.std[0] for record in records]
    np.testing.assert_allclose(in_units, [record["train_mae"] for record in records], rtol=1e-5)
    test = problem.split["test"]
    assert mae(problem, values, "test") < 0.25 * np.abs(problem.targets - problem.scaler.mean)[test].mean()


def test_fit_learns_classes(make_problem):
    problem = make_problem()
    labels = (problem.targets > 3.5).astype(float)
    labels[problem.split["train"][0]] = np.nan
    problem = problem.changed(
        targets=labels,
        scaler=TargetScaler.for_classes(labels, "heavy", 2),
        model={"n_output": 2},
        settings={"epochs": 60},
        optimizer={"learning_rate": 0.02},
    )
    records = []
    probabilities = problem.run(on_epoch=records.append).values
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    # The best epoch is the first that orders the six validation crystals; its threshold need not be in place.
    known = ~np.isnan(labels[:, 0])
    assert metrics.classification_metrics(labels[known, 0], probabilities[known])["roc_auc"] > 0.9
    assert records[-1]["train_accuracy"] > 0.9
    # ln 2 is the loss of a coin.
    assert records[-1]["train_loss"] < 0.5 * np.log(2)


def test_two_targets_with_missing_labels_are_both_learned(make_problem):
    problem = make_problem()
    both = np.concatenate([problem.targets, 5 - 10 * problem.targets], axis=1)
    both[problem.split["train"][::4], 0] = np.nan
    both[problem.split["train"][1::4], 1] = np.nan
    problem = problem.changed(
        targets=both,
        scaler=TargetScaler.fit(both[problem.split["train"]], ("Z", "other"), ("", "")),
        model={"n_output": 2},
        settings={"epochs": 60},
        optimizer={"learning_rate": 0.02},
    )
    records = []
    values = problem.run(on_epoch=records.append).values
    test = problem.split["test"]
    error = np.abs(values[test] - both[test]).mean(axis=0)
    assert (error < 0.25 * np.nanstd(both, axis=0)).all()
    assert {"train_mae/Z", "train_mae/other", "val_mae/Z", "val_mae/other"} <= records[-1].keys()


def with_mirrored_validation(problem):
    """Validation labels fall where the others rise, so that the validation error grows as the network learns."""
    targets = problem.targets.copy()
    targets[problem.split["val"]] = 7 - targets[problem.split["val"]]  # 3.5 is the mean
    return problem.changed(targets=targets)


def test_the_best_weights_are_those_of_the_lowest_validation_error(make_problem):
    problem = with_mirrored_validation(make_problem(settings={"epochs": 15}, optimizer={"learning_rate": 0.02}))
    records = []
    result = problem.run(on_epoch=records.append)
    errors = [record["val_error"] for record in records]
    best = int(np.argmin(errors))
    assert best < len(errors) - 1
    assert int(result.state.best_epoch) == best
    assert float(result.state.best_error) == np.float32(errors[best])
    assert [record["is_best"] for record in records] == [
        error < min(errors[:epoch], default=np.inf) for epoch, error in enumerate(errors)
    ]
    # Their predictions have that error again, in units and scaled.
    assert mae(problem, result.values, "val") == pytest.approx(records[best]["val_mae"], rel=1e-6)
    assert records[best]["val_mae"] / problem.scaler.std[0] == pytest.approx(errors[best], rel=1e-6)


def test_the_record_of_an_epoch_averages_over_its_crystals(make_problem):
    # Without learning the weights stay, so the training errors are those of one set of weights, in training mode.
    problem = make_problem(
        model={"conv": "gated"}, optimizer={"name": "sgd", "learning_rate": 1e-30}, settings={"epochs": 2}
    )
    records = []
    result = problem.run(on_epoch=records.append)
    scaled = (result.values - problem.targets)[problem.split["train"]] / problem.scaler.std[0]
    for record in records:
        assert record["train_loss"] == pytest.approx(np.square(scaled).mean(), rel=1e-5)
        assert record["train_mae"] == pytest.approx(mae(problem, result.values, "train"), rel=1e-5)
    assert [record["step"] for record in records] == [5, 10]  # 20 crystals, 4 a step


def test_patience_stops_after_so_many_epochs_without_a_better_one(make_problem):
    problem = with_mirrored_validation(
        make_problem(settings={"epochs": 200, "patience": 3}, optimizer={"learning_rate": 0.02})
    )
    records = []
    result = problem.run(on_epoch=records.append)
    errors = [record["val_error"] for record in records]
    assert len(errors) < 200
    assert result.is_finished
    assert len(errors) - 1 - int(np.argmin(errors)) == 3
    assert int(result.state.best_epoch) == int(np.argmin(errors))


def test_the_average_of_weights_predicts(make_problem):
    problem = make_problem(settings={"epochs": 1, "batch_size": 20, "average_decay": 0.75})
    state = problem.run().state
    start = problem.run(should_stop=lambda: True)
    assert int(state.step) == int(start.state.step) == 1  # one step an epoch
    before = jax.tree.map(np.asarray, init_weights(problem))
    # After step 0 the decay is 1/10, not yet 3/4: a tenth of the initial weights, running statistics included.
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, before, state.weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.average, expected)
    jax.tree.map(np.testing.assert_array_equal, state.best, state.average)
    assert max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (state.average, state.weights)), strict=True))


def test_the_average_leaves_the_element_table_as_it_is(make_problem):
    problem = make_problem(settings={"epochs": 4, "average_decay": 0.9})
    table = np.random.default_rng(0).uniform(size=problem.table.shape).astype(np.float32)
    state = problem.changed(table=table).run().state
    # Bit for bit, as fine-tuning compares it.
    np.testing.assert_array_equal(state.best.constants["atom_table"], table)


def test_an_error_that_equals_the_best_is_no_better(make_problem, monkeypatch):
    problem = make_problem(settings={"epochs": 20, "patience": 3})
    # 0.1 is rounded up to float32.
    monkeypatch.setattr(loop, "val_record", lambda *arguments: {"val_error": 0.1})
    records = []
    problem.run(on_epoch=records.append)
    assert [record["is_best"] for record in records] == [True, False, False, False]


def without_validation(problem):
    """The same problem whose validation crystals are in no split."""
    return problem.changed(split={**problem.split, "val": np.array([], dtype=int)})


@pytest.mark.parametrize("feed", ["device", "stream"])
def test_without_validation_the_last_weights_are_the_best(make_problem, assert_same, feed):
    # Validated, the first epochs are the best here; the training crystals, and so the steps, are the same.
    validated = with_mirrored_validation(
        make_problem(settings={"epochs": 6, "feed": feed}, optimizer={"learning_rate": 0.02})
    )
    problem = without_validation(validated)
    records, own = [], []
    chosen, last = validated.run(on_epoch=records.append), problem.run(on_epoch=own.append)
    assert int(chosen.state.best_epoch) < 5 == int(last.state.best_epoch)
    assert_same(chosen.state.weights, last.state.weights)
    assert_same(last.state.best, last.state.weights)
    for record, with_val in zip(own, records, strict=True):
        kept = {key: value for key, value in with_val.items() if not key.startswith("val_") and key != "is_best"}
        assert record | {"seconds": 0} == kept | {"seconds": 0}
    # What predicts are those weights: crystal by crystal, in the shape of a batch of its own.
    alone = predict_batch(problem.model, last.state.weights, select(problem.graphs, np.array([7]), PadBudget(3, 16, 2)))
    np.testing.assert_allclose(last.values[7], problem.scaler.unscale(alone[:1])[0], rtol=1e-5)


def test_without_validation_the_average_of_the_last_weights_predicts(make_problem, assert_same):
    problem = without_validation(make_problem(settings={"average_decay": 0.9}))
    state = problem.run().state
    assert_same(state.best, state.average)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (state.best, state.weights)), strict=True))


def test_without_validation_a_stopped_run_goes_on_to_the_same_weights(make_problem, assert_same, tmp_path):
    problem = without_validation(make_problem(model={"dropout": 0.3}))
    whole = problem.run()
    for _ in range(3):
        part = problem.run(tmp_path, should_stop=lambda: True)
    assert part.is_finished or problem.run(tmp_path).is_finished
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore_weights(whole.state.best), whole.state.best)


def test_patience_without_validation_is_refused(make_problem):
    with pytest.raises(ValueError, match=r"train\.patience needs crystals to validate on, and val is empty; got 2"):
        without_validation(make_problem(settings={"patience": 2})).run()


def test_validation_crystals_without_a_label_are_refused(make_problem):
    problem = make_problem()
    targets = problem.targets.copy()
    targets[problem.split["val"]] = np.nan
    with pytest.raises(ValueError, match="none of the 6 crystals of the validation split has a label"):
        problem.changed(targets=targets).run()


def init_weights(problem):
    optimizer = build_optimizer(problem.optimizer, lambda step: 0.1)
    return init_state(init_variables(problem.model, 0, problem.table), optimizer, 1, averages=False).weights


def test_a_huge_learning_rate_diverges_with_the_step_named(make_problem):
    problem = make_problem(model={"conv": "gated"}, optimizer={"name": "sgd", "learning_rate": 1e30})
    with pytest.raises(
        Diverged, match=r"not finite at step \d+ \(epoch \d+\); in a new --workdir, lower optimizer.learning_rate"
    ):
        problem.run()


def test_divergence_names_the_step_and_leaves_the_last_good_checkpoint(make_problem, tmp_path):
    problem = make_problem()
    # A label of inf strikes at the step of the second epoch that holds its crystal; in the first it is not there yet.
    budget = batching.training_budget(problem.graphs, problem.split["train"], 5, 0)
    plan = batching.epoch_plan(problem.graphs, problem.split["train"], budget, 5, (0, 1))
    victim = int(plan[3][0])
    with_inf = problem.targets.copy()
    with_inf[victim] = np.inf
    good = problem.changed(settings={"epochs": 1}).run(tmp_path)
    assert int(good.state.step) == 5
    with pytest.raises(Diverged, match=r"at step 8 \(epoch 2\)"):  # 5 steps of the first, then 0, 1, 2, 3
        problem.changed(targets=with_inf, settings={"save_seconds": 0.0}).run(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        step = checkpoints.latest_step()
        assert 5 <= step <= 8
        kept = checkpoints.restore(good.state)
    assert int(kept.sums.bad_step) == -1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept.weights))


def test_a_prediction_of_nan_is_not_a_small_validation_error(make_problem):
    scaler = make_problem().scaler
    with np.errstate(all="ignore"):
        record = loop.val_record(np.array([[1.0], [2.0]]), np.array([[1.0], [np.nan]]), scaler)
    assert not record["val_error"] < np.inf


def test_validation_without_a_label_of_one_target_is_quiet(make_problem):
    scaler = TargetScaler("regression", ("a", "b"), ("", ""), (0.0, 0.0), (1.0, 2.0))
    record = loop.val_record(np.array([[1.0, np.nan]]), np.array([[4.0, 5.0]]), scaler)
    assert record["val_error"] == 3
    assert record["val_mae/a"] == 3


@pytest.fixture
def compiled(monkeypatch):
    """What the fits of the test compile."""
    found = []
    loop.programs.cache_clear()

    def spy(*arguments, **keywords):
        found.append(compile_steps(*arguments, **keywords))
        return found[-1]

    monkeypatch.setattr(loop, "compile_steps", spy)
    return found


def test_an_epoch_compiles_once(make_problem, compiled):
    progress = []
    make_problem(settings={"average_decay": 0.9}).run(on_step=lambda *where: progress.append(where))
    assert len(progress) > 3 and progress[0] == (0, 1, 5)  # stretches of different lengths, three epochs
    (functions,) = compiled
    assert functions.train._cache_size() == 1
    assert functions.predict._cache_size() == 1


def test_a_run_that_goes_on_and_one_of_other_initial_weights_compile_nothing(make_problem, compiled, tmp_path):
    make_problem().run(tmp_path, should_stop=lambda: True)
    make_problem().run(tmp_path)
    (functions,) = compiled
    assert functions.train._cache_size() == 1
    assert functions.predict._cache_size() == 1
    make_problem().changed(seed=1).run()
    make_problem(optimizer={"learning_rate": 0.5}).run()  # which is in the program
    assert len(compiled) == 2
    assert functions.train._cache_size() == 1


def test_stretches_of_any_length_take_the_same_steps(make_problem, assert_same):
    problem = make_problem(model={"dropout": 0.3})
    graphs, train = problem.graphs, problem.split["train"]
    optimizer = build_optimizer(problem.optimizer, lambda step: 0.01)
    budget = batching.training_budget(graphs, train, 5, 0)
    functions = compile_steps(problem.model, optimizer, "regression", budget, batching.packing_budget(graphs, 4), 0.0)
    data = to_device(graphs, problem.targets, problem.scaler)
    plan = batching.epoch_plan(graphs, train, budget, 5, (0, 0))
    finals = []
    for cuts in ([0, 5], [0, 1, 2, 3, 4, 5], [0, 3, 5]):
        state = init_state(init_variables(problem.model, 0, problem.table), optimizer, 1, averages=False)
        for start, stop in itertools.pairwise(cuts):
            state = functions.train(state, data, plan, start, stop, 0)
        finals.append(jax.device_get(state))
    assert functions.train._cache_size() == 1
    assert_same(finals[0], finals[1])
    assert_same(finals[0], finals[2])


def test_a_batch_holds_the_crystals_and_labels_of_its_places(make_problem):
    problem = make_problem()
    targets = problem.targets.copy()
    targets[7] = np.nan
    data = to_device(problem.graphs, targets, problem.scaler)
    batch = jax.jit(lambda index: take_batch(data, index, PadBudget(16, 64, 6)))(np.array([7, -1, 3], np.int32))
    np.testing.assert_array_equal(batch.target_mask[:, 0], [False, False, True, False, False, False])
    scaled = (problem.targets[3, 0] - problem.scaler.mean[0]) / problem.scaler.std[0]
    np.testing.assert_allclose(batch.targets[:, 0], [0, 0, scaled, 0, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(batch.graphs.graph_mask, [True, False, True, False, False, False])
    # Places 0 and 2 are pairs of elements (2, 4) and (1, 5), the rows 7 and 3 of all ordered pairs.
    np.testing.assert_array_equal(np.sort(batch.graphs.species[:2]), [2, 4])
    np.testing.assert_array_equal(np.sort(batch.graphs.species[2:4]), [1, 5])


def test_predictions_stand_in_the_order_of_the_set(make_problem):
    # Every crystal alone gives the number that it has among all, whatever batch it was packed into.
    problem = make_problem(settings={"epochs": 1})
    result = problem.run()
    scaler = problem.scaler
    budget = PadBudget(3, 16, 2)
    alone = [
        scaler.unscale(
            predict_batch(problem.model, result.state.best, select(problem.graphs, np.array([c]), budget))[:1]
        )[0]
        for c in range(30)
    ]
    np.testing.assert_allclose(result.values, alone, rtol=1e-5)
    assert len(np.unique(result.values)) >= 15
