"""Checkpoints that are damaged say so, and what they say to do helps."""

import contextlib
import gc
import itertools
import json
import os
import shutil
import threading
import time

import jax
import numpy as np
import pytest

from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.state import Sums, TrainState, Weights
from tests.pickles import unpickled


@pytest.fixture(scope="module")
def state() -> TrainState:
    weights = Weights({"kernel": np.arange(6.0, dtype=np.float32)}, {}, {})
    return TrainState(
        step=np.array(5, np.int32),
        weights=weights,
        average=None,
        opt_state=(),
        sums=jax.tree.map(np.asarray, Sums.zero(1)),
        best=weights,
        best_error=np.array(0.5, np.float32),
        best_epoch=np.array(0, np.int32),
    )


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """The checkpoints of steps 5 and 10."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state, {"epochs": 1})
        checkpoints.save(state.replace(step=np.array(10, np.int32)), {"epochs": 2})
    return folder


def cut_short(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (cut_short, "state/_METADATA"),
        (cut_short, "state/manifest.ocdbt"),
        (remove, "state/_METADATA"),
        (remove, "state"),
        (cut_short, "about/metadata"),
        (remove, "about/metadata"),
        (remove, "about"),
    ],
)
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_as_the_message_says(
    saved, state, tmp_path, damage, place
):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    damage(folder / "10" / place)

    def read():
        with Checkpoints(folder) as checkpoints:
            return checkpoints.about(), checkpoints.restore(state)

    with pytest.raises(ValueError, match="cannot be read") as error:
        read()
    assert str(error.value).startswith(
        f"{folder / '10'}: this checkpoint cannot be read; it is damaged, or of another version of the library. "
        "Remove that folder, and step 5, the one before, is taken instead ("
    )
    assert "\n" not in str(error.value)
    shutil.rmtree(folder / "10")
    about, restored = read()
    assert about == {"epochs": 1}
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


def test_no_flipped_byte_gives_other_numbers(saved, state, tmp_path):
    """orbax's files have checksums of their structure alone; a byte of the numbers is any number."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    outcomes = []
    for file in sorted((folder / "10").rglob("*")):
        if not file.is_file() or not file.stat().st_size:
            continue
        content = file.read_bytes()
        for position in np.linspace(0, len(content) - 1, 5).astype(int):
            file.write_bytes(flipped(content, position))
            try:
                with Checkpoints(folder) as checkpoints:
                    found = checkpoints.about(), checkpoints.restore(state), checkpoints.restore_weights(state.best)
            except ValueError as error:
                outcomes.append(str(error).partition("; it is damaged")[0])
            else:
                assert found[0] == {"epochs": 2} and int(found[1].step) == 10, file
                jax.tree.map(np.testing.assert_array_equal, (found[1].best, found[2]), (state.best, state.best))
                outcomes.append("right")
        file.write_bytes(content)
    told = f"{folder / '10'}: this checkpoint cannot be read"
    assert set(outcomes) == {told, "right"} and outcomes.count(told) > 30


def test_a_checkpoint_from_before_there_were_checksums_is_read(saved, state, tmp_path):
    shutil.copytree(saved, tmp_path / "checkpoints")
    file = tmp_path / "checkpoints" / "10" / "about" / "metadata"
    file.write_text(json.dumps(json.loads(file.read_text())["about"]))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.about() == {"epochs": 2} and int(checkpoints.restore(state).step) == 10
        assert checkpoints.has_state


def test_weights_alone_are_told_from_a_training(saved, state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert not checkpoints.has_state
        checkpoints.save_weights(state.best, {"epochs": 1})
    with Checkpoints(tmp_path) as alone, Checkpoints(saved) as whole:
        assert (alone.has_state, whole.has_state) == (False, True)
        assert alone.about() == {"epochs": 1}
        jax.tree.map(np.testing.assert_array_equal, alone.restore_weights(state.best), state.best)


def test_who_reads_while_another_trains_takes_the_checkpoint_that_is_there(saved, state, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    with Checkpoints(folder) as reader, Checkpoints(folder) as writer:
        for step in (15, 20):
            writer.save(state.replace(step=np.array(step, np.int32)), {"epochs": step})
        writer.close()
        assert sorted(path.name for path in folder.iterdir()) == ["15", "20"]
        assert reader.about() == {"epochs": 20} and int(reader.restore(state).step) == 20


def test_what_a_killed_save_left_is_removed_by_the_next_save_alone(saved, state, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    shutil.copytree(saved / "10" / "state", folder / "15.orbax-checkpoint-tmp" / "state")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 10 and checkpoints.about() == {"epochs": 2}
    assert (folder / "15.orbax-checkpoint-tmp").exists()
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state.replace(step=np.array(15, np.int32)), {"epochs": 3})
    assert sorted(path.name for path in folder.iterdir()) == ["10", "15"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what the save left unawaited
@pytest.mark.parametrize("hours", [40, -40])
@pytest.mark.parametrize("calls", [1, 30, 40])
def test_a_clock_that_jumps_in_the_midst_of_a_save_costs_at_most_that_save(saved, state, tmp_path, hours, calls):
    """orbax measures its patience of 20 minutes by the wall clock, and gives a save up."""
    folder, real, asked = tmp_path / "checkpoints", time.time, itertools.count()
    shutil.copytree(saved, folder)
    later = state.replace(step=np.array(15, np.int32))
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(OSError):  # TimeoutError is one
        patch.setattr(time, "time", lambda: real() + 3600 * hours * (next(asked) >= calls))
        # A thread of orbax goes on waiting for the save that was given up, and would hold the end of pytest as long.
        patch.setattr(threading.Thread, "daemon", True)
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(later, {"epochs": 3})
    gc.collect()  # so that what was left unawaited warns here
    # Nor do dates of files count: the latest checkpoint is that of the most steps.
    os.utime(folder / "10", (0, 0))
    with Checkpoints(folder) as checkpoints:
        step = checkpoints.latest_step()
        assert step in (10, 15) and int(checkpoints.restore(state).step) == step
        checkpoints.save(later, {"epochs": 3})
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.about() == {"epochs": 3} and int(checkpoints.restore(state).step) == 15


def test_of_the_only_checkpoint_nothing_can_go_on(saved, tmp_path):
    shutil.copytree(saved / "5", tmp_path / "5")
    cut_short(tmp_path / "5" / "about" / "metadata")
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="It is the only one, so that the run"):
        checkpoints.about()


def test_a_checkpoint_holds_no_pickle(saved, state):
    with unpickled() as names, Checkpoints(saved) as checkpoints:
        assert checkpoints.about() == {"epochs": 2}
        assert int(checkpoints.restore(state).step) == 10
        checkpoints.restore_weights(state.best)
    assert names == []
