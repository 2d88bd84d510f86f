"""Checkpoints by orbax: the state, and a JSON that says all that restoring it needs."""

import json
import shutil
import textwrap
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from cgcnn_jax.train.state import TrainState, Tree, Weights

KEEP = 2  # the latest, and one to fall back on


class Checkpoints:
    """The checkpoints of one run.

    Saving is asynchronous and whole: a killed save leaves no step behind. Reading raises ValueError if a checkpoint is
    damaged, and says which to remove. The JSON holds checksums of itself, the state and the weights, because orbax's files
    have none of the numbers in them.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._is_tidy = False
        # orbax takes absolute paths only.
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(KEEP),
                enable_background_delete=False,
                create=False,
                multiprocessing_options=_alone(),
            ),
            item_names=("state", "weights", "about"),
        )

    def save(self, state: TrainState, about: Mapping[str, Any]) -> None:
        """Saves under the state's step, which is that of all members of a population; nothing if that step is there."""
        # Copied to the host first: training goes on and gives the device buffers to the next state.
        on_host = jax.device_get(state)
        # The weights by themselves too, so that prediction depends on no optimiser.
        trees = {"state": on_host, "weights": on_host.best}
        self._save(int(np.max(state.step)), trees, about, has_best=bool(np.max(state.best_epoch) >= 0))

    def save_weights(self, weights: Weights, about: Mapping[str, Any]) -> None:
        """Saves weights alone, as step 0: they predict and others may start from them, but no training goes on."""
        self._save(0, {"weights": jax.device_get(weights)}, about)
        self._manager.wait_until_finished()
        # orbax asks only whether these files are there, and writes the folder's name into them: others may not know it.
        for file in self._folder.rglob("commit_success.txt"):
            file.write_text("whole\n")

    def _save(self, step: int, trees: Mapping[str, Tree], about: Mapping[str, Any], *, has_best: bool = True) -> None:
        if step in self._manager.all_steps():
            return
        if not self._is_tidy:
            # What killed saves left. Readers leave it alone: who saves may be at it.
            for left in self._folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)
            self._is_tidy = True
        plain = json.loads(json.dumps(dict(about)))
        checksums = {"about": _text_checksum(plain)} | {name: _checksum(tree) for name, tree in trees.items()}
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        content = ocp.args.JsonSave({"about": plain, "checksums": checksums, "has_best": has_best})
        self._manager.save(step, args=ocp.args.Composite(**items, about=content))

    def latest_step(self) -> int:
        """Steps of the latest state, 0 if there is none."""
        return self._manager.latest_step() or 0

    @property
    def has_state(self) -> bool:
        """Whether the latest checkpoint is of a training that can go on, not of weights alone."""
        checksums = self._read(lambda step: self._about(step)[1])
        return checksums is not None and (not checksums or "state" in checksums)

    @property
    def has_best(self) -> bool:
        """Whether the latest weights have an epoch behind them: until then the best ones are those it began with."""
        return bool(self._read(lambda step: self._item(step, "about", ocp.args.JsonRestore()).get("has_best", True)))

    def restore(self, like: TrainState) -> TrainState | None:
        """The latest state, shaped like `like`; None if there is none."""
        return self._restore("state", like)

    def restore_weights(self, like: Weights) -> Weights | None:
        """The best weights so far, shaped like `like`; None if there is no checkpoint."""
        return self._restore("weights", like)

    def about(self) -> dict[str, Any] | None:
        """What the latest checkpoint says of itself; None if there is none."""
        return self._read(lambda step: self._about(step)[0])

    def _restore(self, item: str, like: Tree) -> Tree:
        def read(step: int) -> Tree:
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
            found = jax.device_get(self._item(step, item, ocp.args.StandardRestore(abstract)))
            _, checksums = self._about(step)
            if checksums and _checksum(found) != checksums[item]:
                raise ValueError(f"the checksum of {item} differs")
            # orbax pins arrays to a device; a mix of pinned and free ones would compile every function a second time.
            return jax.tree.map(jnp.array, found)

        return self._read(read)

    def _about(self, step: int) -> tuple[dict[str, Any], dict[str, int]]:
        """What a checkpoint says of itself, and its checksums; those before there were any have none."""
        content = self._item(step, "about", ocp.args.JsonRestore())
        if "checksums" not in content and "about" not in content:
            return content, {}
        if _text_checksum(content["about"]) != content["checksums"]["about"]:
            raise ValueError("the checksum of about differs")
        return content["about"], content["checksums"]

    def _item(self, step: int, item: str, wanted: ocp.args.CheckpointArgs) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**{item: wanted}))[item]

    def _read(self, read: Callable[[int], Any]) -> Any:
        """What is read of the latest step; None if there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        try:
            return read(step)
        except (MemoryError, PermissionError):
            raise  # of this machine at this moment, not of the checkpoint
        except Exception as error:  # orbax raises whatever the damaged bytes lead to
            self._manager.reload()
            steps = self._manager.all_steps()
            if step not in steps and steps:
                return self._read(read)  # a training that goes on meanwhile has put others in its place
            before = max((one for one in steps if one < step), default=None)
            way_out = (
                "It holds a network without its training, which whoever has that must export again"
                if step == 0
                else "It is the only one, so that the run must be trained again, in another folder"
                if before is None
                else f"Remove that folder, and step {before}, the one before, is taken instead"
            )
            raise ValueError(
                f"{self._folder / str(step)}: this checkpoint cannot be read; it is damaged, or of another version of the "
                f"library. {way_out} ({type(error).__name__}: {textwrap.shorten(str(error), 160)})"
            ) from error

    def close(self) -> None:
        """Waits for the last save."""
        self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def has_whole(folder: Path) -> bool:
    """Whether a folder has a checkpoint that a save has finished: orbax gives it its step as name at the end."""
    return folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


def _checksum(tree: Tree) -> int:
    """CRC-32 of the numbers of all leaves."""
    found = 0
    for leaf in jax.tree.leaves(tree):
        found = zlib.crc32(np.asarray(leaf).tobytes(), found)
    return found


def _text_checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _alone() -> ocp.options.MultiprocessingOptions:
    """Options with which orbax waits for no other process: the state is the same in all, and one writes it."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process_{process}"
    )
