"""Batches shared by several devices: the steps are those of one device."""

import json
from collections.abc import Callable

import jax
import numpy as np
import pytest

from cgcnn_jax.train.parallel import Devices, any_process, from_first_process

# 20 crystals in 3 batches: 7, 7 and 6 on 8 devices leave some devices without a crystal, and of those that have one
# many have no label.
PROGRAM = """
    import json, sys
    from pathlib import Path
    import jax, numpy as np
    from cgcnn_jax.nn.model import init_variables
    from cgcnn_jax.train import loop
    from cgcnn_jax.train.step import compile_steps
    from tests.train.conftest import build

    assert jax.local_device_count() == 8
    jax.config.update("jax_compilation_cache_dir", sys.argv[1] + "/programs")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compiled = []

    def kept(*arguments):
        compiled.append(compile_steps(*arguments))
        return compiled[-1]

    loop.compile_steps = kept

    def problem(settings, **model):
        plain = build(
            model=model,
            settings={"epochs": 2, "batch_size": 7, "average_decay": 0.9} | settings,
            optimizer={"name": "sgd", "learning_rate": 0.02},
        )
        targets = np.repeat(plain.targets, 2, axis=1)
        targets[plain.split["train"][:9], 0] = np.nan
        targets[plain.split["train"][5:12], 1] = np.nan
        scaler = type(plain.scaler).fit(targets[plain.split["train"]], ("Z", "Z again"), ("", ""))
        split = {**plain.split, "val": np.array([], int)}
        return plain.changed(targets=targets, scaler=scaler, split=split, model={"n_output": 2})

    def leaves(fitted):
        named = jax.tree_util.tree_leaves_with_path(
            {"weights": fitted.state.weights, "average": fitted.state.average, "values": fitted.values}
        )
        return {jax.tree_util.keystr(path): np.asarray(leaf, float).ravel().tolist() for path, leaf in named}

    def run(folder=None, should_stop=None, **settings):
        model = {key: settings.pop(key) for key in ("conv", "dropout") if key in settings}
        stop = {"should_stop": should_stop} if should_stop else {}
        return problem(settings, **model).run(folder, **stop)

    found = {}
    for conv in sys.argv[2:]:
        for count in (1, 8):
            found[f"{conv} {count}"] = leaves(run(conv=conv, devices=count))
"""
AND_MORE = """
    found["compilations"] = [f._cache_size() for f in (compiled[-1].train, compiled[-1].predict)]
    found["pmap"] = leaves(run(devices=8, parallel="pmap"))
    found["stream 3"] = leaves(run(devices=3, feed="stream"))
    folder = Path(sys.argv[1]) / "run"
    run(folder, should_stop=lambda: True, devices=8)
    found["8, then 1"] = leaves(run(folder, devices=1))

    # Eight times the same crystal, one on each device, with half of the features dropped.
    same = problem({"epochs": 1, "batch_size": 8, "average_decay": 0.0}, dropout=0.5)
    same = same.changed(split={**same.split, "train": np.repeat(same.split["train"][-1:], 8)})
    before = init_variables(same.model, same.seed, same.table)["params"]
    after = same.run().state.weights.params
    moved = np.asarray(after["output"]["kernel"]) != np.asarray(before["output"]["kernel"])
    found["features moved"] = moved.any(axis=1).tolist()
"""


@pytest.fixture(scope="module")
def on_eight_devices(on_devices, tmp_path_factory) -> Callable[..., dict]:
    """on_eight_devices(program, *convolutions): what the program found."""
    tell = "    print(json.dumps(found))"

    def run(program: str, *convolutions: str) -> dict:
        arguments = (tmp_path_factory.mktemp("devices"), *convolutions)
        return json.loads(on_devices(8, program + tell, *arguments, quick=True).splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def found(on_eight_devices) -> dict:
    return on_eight_devices(PROGRAM + AND_MORE, "sum", "gated_update", "gated_norm")


def assert_close(one: dict, other: dict) -> None:
    """The same numbers up to the rounding of float32 sums in another order, over a few steps."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-5, atol=1e-6, err_msg=name)


def assert_steps_of_one(found: dict, conv: str) -> None:
    one = found[f"{conv} 1"]
    assert_close(one, found[f"{conv} 8"])
    assert any("batch_stats" in name for name in one) is (conv in ("gated_norm", "gated_mlp", "gated_update"))
    # Something was learned: what is equal is not what training began with.
    assert (
        np.abs(
            np.subtract(one["['weights'].params['output']['kernel']"], one["['average'].params['output']['kernel']"])
        ).max()
        > 1e-3
    )


@pytest.mark.parametrize("conv", ["sum", "gated_norm", "gated_update"])
def test_eight_devices_take_the_steps_of_one(found, conv):
    assert_steps_of_one(found, conv)


@pytest.mark.slow
def test_eight_devices_take_the_steps_of_one_with_parts_of_those_convolutions(on_eight_devices):
    # gated is gated_norm without its normalisation, gated_mlp is gated_update without the network at every atom.
    found = on_eight_devices(PROGRAM, "gated", "gated_mlp")
    for conv in ("gated", "gated_mlp"):
        assert_steps_of_one(found, conv)


def test_eight_devices_compile_once(found):
    assert found["compilations"] == [1, 1]


@pytest.mark.parametrize("other", ["pmap", "stream 3"])
def test_pmap_and_streams_take_the_same_steps(found, other):
    assert_close(found["gated_norm 1"], found[other])


def test_a_run_goes_on_on_another_number_of_devices(found):
    assert_close(found["gated_norm 1"], found["8, then 1"])


def test_dropout_differs_between_devices(found):
    # Each feature is dropped on a device with probability 1/2; with equal draws everywhere half of them would not move.
    assert found["features moved"] == [True] * 5


def test_more_devices_than_there_are_and_unknown_ways_are_refused():
    with pytest.raises(ValueError, match=r"train\.devices is 99, but this process has \d+"):
        Devices.choose(99)
    with pytest.raises(ValueError, match=r"unknown train\.parallel 'threads'; choose one of \['shard', 'pmap'\]"):
        Devices.choose(1, "threads")


def test_the_only_process_is_asked_nothing():
    state = {"a": jax.numpy.ones(3)}
    assert from_first_process(state) is state
    assert (any_process(True), any_process(False)) == (True, False)
