"""Checkpoints by orbax: the state, and a JSON that says all that restoring it needs."""

import textwrap
from collections.abc import Mapping
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
    damaged, and says which to remove.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
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
        step = int(np.max(state.step))
        if step in self._manager.all_steps():
            return
        on_host = jax.device_get(state)
        # Copied to the host first: training goes on and gives the device buffers to the next state.
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(on_host),
                # By themselves too, so that prediction depends on no optimiser.
                weights=ocp.args.StandardSave(on_host.best),
                about=ocp.args.JsonSave(dict(about)),
            ),
        )

    def latest_step(self) -> int:
        """Steps of the latest state, 0 if there is none."""
        return self._manager.latest_step() or 0

    def restore(self, like: TrainState) -> TrainState | None:
        """The latest state, shaped like `like`; None if there is none."""
        return self._restore("state", like)

    def restore_weights(self, like: Weights) -> Weights | None:
        """The best weights so far, shaped like `like`; None if there is no checkpoint."""
        return self._restore("weights", like)

    def about(self) -> dict[str, Any] | None:
        """What the latest checkpoint says of itself; None if there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        return self._read(step, "about", ocp.args.JsonRestore())

    def _restore(self, item: str, like: Tree) -> Tree:
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._read(step, item, ocp.args.StandardRestore(abstract))
        # orbax pins arrays to a device; a mix of pinned and free ones would compile every function a second time.
        return jax.tree.map(jnp.array, jax.device_get(restored))

    def _read(self, step: int, item: str, wanted: ocp.args.CheckpointArgs) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{item: wanted}))[item]
        except (MemoryError, PermissionError):
            raise  # of this machine at this moment, not of the checkpoint
        except Exception as error:  # orbax raises whatever the damaged bytes lead to
            before = max((one for one in self._manager.all_steps() if one < step), default=None)
            way_out = (
                "It is the only one, so that the run must be trained again, in another folder"
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


def _alone() -> ocp.options.MultiprocessingOptions:
    """Options with which orbax waits for no other process: the state is the same in all, and one writes it."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process_{process}"
    )
