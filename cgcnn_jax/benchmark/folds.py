"""The folds of a task and their networks, trained by as many processes as share the folder, each alone or many together."""

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax import together
from cgcnn_jax.benchmark.record import fold_record
from cgcnn_jax.benchmark.tasks import check_marks
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.splits import Split
from cgcnn_jax.data.tasks import Task
from cgcnn_jax.files import lock_if_free
from cgcnn_jax.preparation import facts
from cgcnn_jax.run import Load, Watcher, run
from cgcnn_jax.train.checkpoint import has_whole
from cgcnn_jax.train.loop import Diverged
from cgcnn_jax.workdir import Workdir


class Run(NamedTuple):
    """A network of a fold: its test fold, its configuration, and where it is trained."""

    fold: int
    config: ConfigDict
    place: Workdir

    @property
    def name(self) -> str:
        return self.place.path.name

    @property
    def is_finished(self) -> bool:
        """Whether it was trained, judged and measured."""
        return (self.place.path / "fold.json").exists()


class Folds:
    """All runs of a task, and what they have in common."""

    def __init__(
        self, task: Task, folder: Path, runs: Sequence[Run], load: Load, watcher: Watcher, command: str, networks: int
    ) -> None:
        self._task, self._folder, self._runs, self._watcher = task, folder, runs, watcher
        self._load, self._command, self._networks = load, command, networks
        self._loaded: tuple[Dataset, str] | None = None

    def train(self, population: int) -> None:
        """Trains what no other process trains, up to `population` as one program, until all is done or it is stopped.

        Raises:
          ValueError: If the data are not those of finished runs, or networks began together with others that are not
            among the runs.
          Diverged: If a training does; those that trained together with it are judged before.
        """
        tried: set[str] = set()
        while group := next((group for group in self._groups(population) if group[0].name not in tried), None):
            tried.add(group[0].name)
            with contextlib.ExitStack() as held:
                if not all(held.enter_context(self._lock(one)) for one in group):
                    continue
                if _names(group) not in [_names(other) for other in self._groups(population)]:
                    # Before the locks were held, another process began with some of them.
                    tried.remove(group[0].name)
                    continue
                if all(one.is_finished for one in group):
                    self._close(group)  # the process that judged the last of them died before it did
                elif self._watcher.should_stop() or not self._train_group(group):
                    return

    def _train_group(self, group: Sequence[Run]) -> bool:
        """Returns False if it was stopped."""
        if self._has_begun(group) or (len(group) > 1 and together.fits_together(group[0].config, self._crystals())):
            return self._train_together(group)
        return all(self._train_alone(one) for one in group)

    def _groups(self, population: int) -> list[list[Run]]:
        """Those that began together as they are; of the others, those that began alone each by itself, the rest together.

        All are cut into groups before, finished ones too, so that processes that start at different times cut alike.
        """
        begun = self._begun()
        taken = {name for group in begun for name in _names(group)}
        found = begun
        for i in range(0, len(self._runs), population):
            left = [one for one in self._runs[i : i + population] if one.name not in taken and not one.is_finished]
            alone = [one for one in left if one.place.has_checkpoints]
            found += [[one] for one in alone]
            if len(alone) < len(left):
                found.append([one for one in left if one not in alone])
        return found

    def _begun(self) -> list[list[Run]]:
        """Runs that a process trained together for a while, or did not judge all."""
        named = {one.name: one for one in self._runs}
        found = []
        for file in sorted((self._folder / "together").glob("*/runs.json")):
            # Another process may remove it at this moment.
            with contextlib.suppress(FileNotFoundError):
                names = Workdir(file.parent).read_json(file.name)["runs"]
                if not has_whole(Workdir(file.parent).checkpoints):
                    continue
                own = [named[name] for name in names if name in named]
                if len(own) == len(names):
                    found.append(own)
                elif not all(one.is_finished for one in own):
                    raise ValueError(
                        f"{file.parent} has {len(names)} networks that began to train together, {names[0]} to "
                        f"{names[-1]}, and such go on together; got --networks={self._networks}, which has "
                        f"{len(own)} of them. Give as many networks as then, or remove that folder"
                    )
        return found

    def _lock(self, one: Run) -> AbstractContextManager[bool]:
        """Held by the process that has the run."""
        return lock_if_free(self._folder / f"{one.name}.lock")

    def _crystals(self) -> Dataset:
        """The crystals, loaded when they are first wanted."""
        if self._loaded is None:
            settings = self._runs[0].config
            atom_table = configs.build_atom_table(settings)
            crystals = self._load(settings, atom_table)
            check_marks(self._task, crystals)
            self._loaded = crystals, crystals.digest(atom_table)
        # Other processes may have finished folds meanwhile.
        check_digest(self._task, self._runs, self._loaded[1])
        return self._loaded[0]

    def _train_alone(self, one: Run) -> bool:
        """Returns False if it was stopped."""
        crystals = self._crystals()
        split = configs.build_split(one.config, crystals)
        self._watcher.message(self._title(one))
        place, told = one.place.path, self._command
        result = run(one.config, place, data=crystals, split=split, watcher=self._watcher, command=told, report=False)
        if result.is_finished:
            self._finish(one, split, measures=True)
        return result.is_finished

    def _train_together(self, group: Sequence[Run]) -> bool:
        """Trains runs as one program, and judges those that are not judged. Returns False if it was stopped."""
        crystals = self._crystals()
        runs = [together.Run(one.config, one.place, one.is_finished) for one in group]
        setups = together.prepare_together(runs, crystals, self._together(group).checkpoints)
        self._watcher.message(f"{self._task.name}, {len(group)} networks together, {group[0].name} to {group[-1].name}")
        for line in facts(group[0].config, crystals, setups[0].split, setups[0].twins):
            self._watcher.message(line)
        place = self._together(group)
        if not self._has_begun(group):
            # What died before its first checkpoint, or others that are finished.
            shutil.rmtree(place.path, ignore_errors=True)
        place.path.mkdir(parents=True, exist_ok=True)
        place.write_json("runs.json", {"runs": _names(group)})
        ends = together.train_together(runs, setups, place.checkpoints, watcher=self._watcher, command=self._command)
        if ends is None:
            return False
        # Those that diverged last: what raises for one keeps no other from its record.
        for one, end in sorted(zip(group, ends, strict=True), key=lambda pair: isinstance(pair[1].end, Diverged)):
            if not one.is_finished:
                end.judge()
                self._finish(one, end.setup.split, measures=False)
        self._close(group)
        return True

    def _close(self, group: Sequence[Run]) -> None:
        """Removes what only runs in training need."""
        # Last what tells of it: of what a process leaves that dies in between, the next one knows.
        shutil.rmtree(self._together(group).checkpoints, ignore_errors=True)
        shutil.rmtree(self._together(group).path, ignore_errors=True)

    def _has_begun(self, group: Sequence[Run]) -> bool:
        """Whether runs of one of `_groups` are among those that `_begun` gives."""
        return has_whole(self._together(group).checkpoints)

    def _together(self, group: Sequence[Run]) -> Workdir:
        return Workdir(self._folder / "together" / group[0].name)

    def _finish(self, one: Run, split: Split, *, measures: bool) -> None:
        """Writes the record of a run that was trained and judged."""
        assert self._loaded is not None
        crystals, digest = self._loaded
        record = fold_record(self._task, one.fold, one.place, crystals, split, self._command, measures=measures)
        one.place.write_json("fold.json", record | {"data_digest": digest, "config": configs.to_dict(one.config)})

    def _title(self, one: Run) -> str:
        parts = [self._task.name]
        if self._task.num_folds > 1:
            parts.append(f"fold {one.fold + 1} of {self._task.num_folds}")
        if self._networks > 1:
            parts.append(f"seed {one.config.train.seed}")
        return ", ".join(parts)


def check_digest(task: Task, runs: Iterable[Run], digest: str) -> None:
    """Raises ValueError if a run was finished on other data."""
    for one in runs:
        if one.is_finished and one.place.read_json("fold.json")["data_digest"] != digest:
            raise ValueError(
                f"{task.name}: the data changed since {one.name} was finished; choose another --workdir, or "
                "restore the data"
            )


def _names(group: Sequence[Run]) -> list[str]:
    return [one.name for one in group]
