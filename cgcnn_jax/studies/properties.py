"""Eight properties with both convolutions by one protocol, and their learning curves (Tables I and S4, Figs. 2 and S5).

FOLDER/crystals/PROPERTY.csv       every crystal at hand: id, split, formula, elements, atoms, label
FOLDER/runs/PROPERTY/CONV_TRAIN/   work directories as experiments.train makes them, with record.json once finished

The crystals are those of the paper's id lists as far as the data have them. They are shuffled once; the first are the
test split, the next the validation split, and the others train, the first n of them in the runs with n training
crystals: all runs of a property are judged on the same crystals, and a smaller training set is part of every larger one.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.sources import read_jsonl
from cgcnn_jax.data.splits import NAMES, Split
from cgcnn_jax.run import Watcher, load_dataset, run
from cgcnn_jax.train.loop import Diverged
from cgcnn_jax.workdir import Workdir

CONVOLUTIONS = {"sum": "Eq. 4", "gated_norm": "Eq. 5"}
"""The two that Table S4 compares, by model.conv. Eq. 5 is taken as released, with batch normalisation: the published
numbers are those of the released weights, whose stored validation errors agree with Table I; see docs/paper.md."""

# Eq. 4 has no normalisation: steps that suit Eq. 5 throw it off sooner or later, and then for good (docs/paper.md).
_STEADIED = {"sum": {"optimizer.learning_rate": 2e-3, "optimizer.clip_norm": 1.0}}
_SEED = 0


@dataclass(frozen=True)
class Property:
    """A row of Table I, and where its crystals are.

    Attributes:
      name: Of the configuration.
      label: For people.
      folder: Of the crystals, among data sets of JSON lines.
      id_list: The paper's list of ids, a file of cgcnn_reference/material-data; empty if the crystals are others.
      sizes: Training, validation and test crystals of the paper.
      published: The paper's test MAE in the unit of the configuration, or area under the ROC curve (Table I, Fig. 2d).
      published_sum: The same with Eq. 4 (Table S4), where known here.
      dft: Mean absolute error of DFT against experiment as the paper quotes it, from and to, where known here.
      note: In what the crystals or labels differ from the paper's.
    """

    name: str
    label: str
    folder: str
    id_list: str
    sizes: tuple[int, int, int]
    published: float
    published_sum: float | None = None
    dft: tuple[float, float] | None = None
    note: str = ""


_MP, _ELASTIC = "mp_2018_6_1", "mp_elastic_cgcnn3402"
_ENERGIES, _GAPS, _ELASTIC_SIZES = (28046, 9348, 9348), (16458, 5485, 5486), (2041, 679, 679)
_ELASTIC_IDS = "mp-ids-3402.csv"
# Sources: T. Xie, J. C. Grossman, Phys. Rev. Lett. 120, 145301 (2018), Table I, Fig. 2 and Table S4; the sizes of all
# three splits from the published checkpoints.
PROPERTIES: dict[str, Property] = {
    one.name: one
    for one in (
        Property(
            "formation_energy",
            "Formation energy",
            _MP,
            "mp-ids-46744.csv",
            _ENERGIES,
            0.039,
            published_sum=0.112,
            dft=(0.081, 0.136),
        ),
        Property(
            "absolute_energy",
            "Absolute energy",
            "jarvis_dft3d",
            "",
            _ENERGIES,
            0.072,
            note="other crystals (oxides and nitrides of JARVIS-DFT) and another functional (OptB88vdW)",
        ),
        Property("band_gap", "Band gap", _MP, "mp-ids-27430.csv", _GAPS, 0.388),
        Property(
            "fermi_energy",
            "Fermi energy",
            _MP,
            "mp-ids-46744.csv",
            _ENERGIES,
            0.363,
            note="the database's value of 2020, known for a part of the list",
        ),
        Property("bulk_modulus", "Bulk modulus", _ELASTIC, _ELASTIC_IDS, _ELASTIC_SIZES, 0.054),
        Property("shear_modulus", "Shear modulus", _ELASTIC, _ELASTIC_IDS, _ELASTIC_SIZES, 0.087),
        Property("poisson_ratio", "Poisson ratio", _ELASTIC, _ELASTIC_IDS, _ELASTIC_SIZES, 0.030),
        Property("metal_classification", "Metal or semiconductor", _MP, "mp-ids-46744.csv", (37394, 4674, 4674), 0.95),
    )
}
CURVES = ("formation_energy", "bulk_modulus", "shear_modulus")
"""Properties whose error is followed over the training size (Figs. 2b and S5)."""


@dataclass(frozen=True)
class Size:
    """How much of the study is done.

    Attributes:
      name: For the command line.
      max_train: Training crystals at most; the paper's numbers are never exceeded.
      max_judge: Validation, and test, crystals at most.
      epochs: Of a run.
      min_steps: Runs with few crystals get more epochs, until they take so many steps,
      max_epochs: but not more than these.
      first: Smallest training set of a learning curve.
      ratio: Of each training set of a learning curve to the one before.
      overrides: Fields of the configuration that it sets.
    """

    name: str
    max_train: int
    max_judge: int
    epochs: int
    min_steps: int
    max_epochs: int
    first: int
    ratio: float = 10**0.5
    overrides: Mapping[str, Any] = field(default_factory=dict)


_TINY = {"model.features": 8, "model.num_convs": 1, "train.batch_size": 16, "data.workers": 1}
SIZES = {
    size.name: size
    for size in (
        Size("quick", 48, 16, 2, 0, 2, 16, 3.0, _TINY),
        Size("small", 8000, 1000, 60, 3000, 400, 100),
        Size("full", 10**9, 10**9, 200, 10000, 1000, 100),
    )
}


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
      of: What is learned.
      conv: model.conv.
      n_train: Training crystals.
      n_val: Crystals that choose the weights.
      n_test: Crystals that judge.
      epochs: Of the run.
      mean_atoms: In the cells of the crystals.
    """

    of: Property
    conv: str
    n_train: int
    n_val: int
    n_test: int
    epochs: int
    mean_atoms: float

    @property
    def path(self) -> str:
        return f"{self.of.name}/{self.conv}_{self.n_train}"


class Unavailable(ValueError):
    """The data at hand do not have what a property needs; the message says what."""


# Atoms a second in training on one core of an AMD EPYC, and seconds to build graphs, compile, judge and draw; docs/paper.md.
_RATES = {"sum": 800_000.0, "gated_norm": 120_000.0}
_VALIDATING = 2.0  # times as fast as training
_START = 12.0


def estimate(job: Job) -> float:
    """Seconds that a run is likely to take on a core that has nothing else to do."""
    crystals = job.epochs * (job.n_train + job.n_val / _VALIDATING)
    return _START + crystals * job.mean_atoms / _RATES[job.conv]


def curve_sizes(n_train: int, first: int, ratio: float) -> list[int]:
    """first, first * ratio, ... and n_train; the last step is never shorter than the root of the ratio."""
    count = max(0, math.floor(math.log(n_train / first, ratio) + 0.5)) if n_train > first else 0
    return [*(round(first * ratio**k) for k in range(count)), n_train]


def split_sizes(sizes: tuple[int, int, int], n_crystal: int, size: Size) -> dict[str, int]:
    """Crystals in train, val and test: the paper's numbers, fewer in the same shares where there are fewer crystals.

    Args:
      sizes: The paper's.
      n_crystal: Crystals at hand.
      size: Caps them.
    """
    share = min(1.0, n_crystal / sum(sizes))
    val, test = (min(size.max_judge, round(share * number)) for number in sizes[1:])
    return {"train": min(sizes[0], size.max_train, n_crystal - val - test), "val": val, "test": test}


def epochs_of(size: Size, n_train: int, batch_size: int) -> int:
    """Epochs of a run: those of the size, or as many as make its smallest number of steps."""
    steps = max(1, round(n_train / batch_size))
    return max(size.epochs, min(size.max_epochs, math.ceil(size.min_steps / steps)))


class PropertyStudy:
    """The study in its folder.

    Attributes:
      data: Folder of data sets of JSON lines.
      folder: Where crystals and runs go.
      size: How much is done.
    """

    def __init__(
        self,
        data: Path,
        folder: Path,
        size: Size,
        config_of: Callable[[str], ConfigDict],
        *,
        load: Callable[..., Dataset] = load_dataset,
        watcher: Watcher | None = None,
        command: str = "",
        writes: bool = True,
    ) -> None:
        """
        Args:
          data, folder, size: See the attributes.
          config_of: The configuration of a property by its name.
          load: Makes a Dataset of configuration, element table and crystals.
          watcher: Told of the progress.
          command: What the user typed, for the records.
          writes: False leaves the folder as it is, for a plan.

        Raises:
          ValueError: If the folder holds a study of another size.
        """
        self.data, self.folder, self.size = data, folder, size
        self._config_of, self._load, self._command = config_of, load, command
        self._watcher = watcher or Watcher()
        self._crystals: tuple[str, dict[str, Crystal]] = ("", {})
        self._tables: dict[str, pd.DataFrame] = {}
        self._absent: dict[str, str] = {}
        self._writes = writes
        self._claim()

    def table(self, name: str) -> pd.DataFrame:
        """Every crystal at hand of a property: id, split, formula, elements, atoms, label, in the shuffled order.

        Raises:
          Unavailable: If the data do not have the property's crystals.
        """
        if name in self._absent:
            raise Unavailable(self._absent[name])
        if name in self._tables:
            return self._tables[name]
        file = self._table_of(name)
        if not file.exists():
            # The folder is read now; the other properties that lie there will be asked for next.
            for of in PROPERTIES.values():
                # Those that are there tell what the runs had, whatever the data have now.
                if of.folder == PROPERTIES[name].folder and not self._table_of(of.name).exists():
                    self._write_table(of)
            return self.table(name)
        # Nothing is missing there: an empty split is a crystal that is not used, and no formula means not-a-number.
        self._tables[name] = pd.read_csv(file, dtype={"id": str}, keep_default_na=False)
        return self._tables[name]

    def _table_of(self, name: str) -> Path:
        return self.folder / "crystals" / f"{name}.csv"

    def labels(self, name: str) -> tuple[dict[str, np.ndarray], str, str]:
        """What is learned of every crystal by split ("" is not used), with its name and unit. Raises Unavailable."""
        config, table = self._config_of(name), self.table(name)
        values = table[configs.target_names(config)[0]].to_numpy(float)
        if config.data.log10:
            values = np.log10(values)
        (target,), (unit,) = configs.learned(config)
        return {split: values[table["split"] == split] for split in (*NAMES, "")}, target, unit

    def jobs(self, name: str, *, curve: bool = False, convs: Iterable[str] = tuple(CONVOLUTIONS)) -> list[Job]:
        """The runs of a property with all training crystals, or for its learning curve. Raises Unavailable."""
        table = self.table(name)
        batch_size = self.size.overrides.get("train.batch_size", self._config_of(name).train.batch_size)
        counts, mean_atoms = table["split"].value_counts(), float(table["atoms"].mean())
        n_train, n_val, n_test = (int(counts[split]) for split in NAMES)
        sizes = curve_sizes(n_train, self.size.first, self.size.ratio) if curve else [n_train]
        return [
            Job(PROPERTIES[name], conv, n, n_val, n_test, epochs_of(self.size, n, batch_size), mean_atoms)
            for n in sizes
            for conv in convs
        ]

    def record(self, job: Job) -> dict[str, Any] | None:
        """What record.json of a run holds; None if it is not finished."""
        place = self.place(job)
        return place.read_json("record.json") if (place.path / "record.json").exists() else None

    def place(self, job: Job) -> Workdir:
        """The work directory of a run."""
        return Workdir(self.folder / "runs" / job.path)

    def run(self, jobs: Sequence[Job]) -> bool:
        """Does the runs that are not finished; a run whose loss diverges is recorded as such.

        Returns:
          Whether all are finished; False if the watcher stopped one, and the same call goes on.

        Raises:
          ValueError: If the folder holds runs of another configuration or of other data.
        """
        for job in jobs:
            if (found := self.record(job)) is not None:
                self._check(job, found["config"])
        todo = [job for job in jobs if self.record(job) is None]
        for name in dict.fromkeys(job.of.name for job in todo):
            crystals: Dataset | None = None
            for number, job in enumerate(todo):
                if job.of.name != name:
                    continue
                if self._watcher.should_stop():
                    return False
                if crystals is None:
                    crystals = self._dataset(job)
                self._watcher.message(f"\nrun {number + 1} of {len(todo)}: {job.path}")
                if not self._run(job, crystals):
                    return False
        return True

    def _run(self, job: Job, crystals: Dataset) -> bool:
        config, place = self._config(job), self.place(job)
        split = self._split(job, crystals)
        record: dict[str, Any] = {
            "property": job.of.name,
            "convolution": CONVOLUTIONS[job.conv],
            "crystals": {name: len(split[name]) for name in NAMES} | {"left_out": len(crystals.rejected)},
            "epochs": job.epochs,
            "config": configs.to_dict(config),
            "data_digest": crystals.digest(configs.build_atom_table(config)),
            "command": self._command,
        }
        try:
            result = run(config, place.path, data=crystals, split=split, watcher=self._watcher, command=self._command)
        except Diverged as error:
            self._watcher.message(f"{job.path}: {error}")
            record["failed"] = str(error)
        else:
            if result.summary is None:
                return False
            summary = result.summary
            metric = "roc_auc" if config.model.task == "classification" else "mae"
            ((target, unit),) = summary["properties"].items()
            record |= {
                "metric": metric,
                "target": target,
                "unit": "" if metric == "roc_auc" else unit,  # an area has none
                "test": summary["metrics"]["test"][metric],
                "test_interval_95": summary["intervals_95"]["test"][metric],
                "val": summary["metrics"]["val"][metric],
                **{key: summary[key] for key in ("best_epoch", "parameters", "hardware", "versions", "commit")},
                "seconds_to_train": summary["seconds_of_all_epochs"],
                "train_crystals_per_second": summary["train_crystals_per_second"],
            }
        place.write_json("record.json", record | {"date": datetime.now(UTC).isoformat(timespec="seconds")})
        return True

    def _config(self, job: Job) -> ConfigDict:
        config = self._config_of(job.of.name).copy_and_resolve_references()
        with config.unlocked():
            config.data.source, config.data.path = "jsonl", str(self.data / job.of.folder)
            config.data.on_error = "skip"
            config.split.kind, config.split.sizes = "size", (job.n_train, job.n_val, job.n_test)
            config.model.conv, config.train.epochs = job.conv, job.epochs
            for name, value in (_STEADIED.get(job.conv, {}) | dict(self.size.overrides)).items():
                group, entry = name.split(".")
                config[group][entry] = value
        return config

    def _choose(self, of: Property) -> pd.DataFrame:
        """The table of a property's crystals, with their splits."""
        config = self._config_of(of.name)
        (target,) = configs.target_names(config)
        listed = self._listed(of)
        crystals = self._folder(of)
        known = []
        for id in sorted(crystals):
            value = crystals[id].targets.get(target, math.nan)
            if (not listed or id in listed) and math.isfinite(value) and (value > 0 or not config.data.log10):
                known.append(id)
        sizes = split_sizes(of.sizes, len(known), self.size)
        if min(sizes.values()) < 1:
            raise Unavailable(
                f"{self.data / of.folder} has {len(known)} crystals with {target}, too few for three splits"
            )
        order = [known[i] for i in np.random.default_rng(_SEED).permutation(len(known))]
        marks = ["test"] * sizes["test"] + ["val"] * sizes["val"] + ["train"] * sizes["train"]
        rows = []
        for id, split in zip(order, marks + [""] * (len(order) - len(marks)), strict=True):
            crystal = crystals[id]
            symbols = " ".join(elements.symbol(int(number)) for number in np.unique(crystal.species))
            rows.append((id, split, crystal.formula, symbols, len(crystal.species), crystal.targets[target]))
        return pd.DataFrame(rows, columns=["id", "split", "formula", "elements", "atoms", target])

    def _write_table(self, of: Property) -> None:
        """Writes the table of a property's crystals, or remembers why there is none."""
        place = Workdir(self.folder / "crystals")
        try:
            table = self._choose(of)
        except Unavailable as error:
            self._absent[of.name] = str(error)
            return
        if not self._writes:
            self._tables[of.name] = table
            return
        place.path.mkdir(exist_ok=True)
        place.write_csv(f"{of.name}.csv", list(table), table.itertuples(index=False))

    def _listed(self, of: Property) -> set[str]:
        """The paper's ids; empty where there is no list, and then every crystal counts."""
        file = self.data / "cgcnn_reference" / "material-data" / of.id_list
        if of.id_list and not file.exists():
            self._watcher.message(f"{file} is not there: {of.label} is learned from every crystal of {of.folder}")
        return set(file.read_text().split()) if of.id_list and file.exists() else set()

    def _folder(self, of: Property) -> dict[str, Crystal]:
        """The crystals of a property's folder by id; kept, for the next property often has the same."""
        if self._crystals[0] != of.folder:
            path = self.data / of.folder
            if not path.is_dir():
                raise Unavailable(f"{path}: no such folder; {of.label} has its crystals there")
            self._watcher.message(f"reading {path}")
            entries = list(read_jsonl(path))
            bad = [one.reason for one in entries if isinstance(one, Rejected)]
            if bad:
                self._watcher.message(f"{len(bad)} of {len(entries)} crystals are left out, the first: {bad[0]}")
            self._crystals = (of.folder, {one.id: one for one in entries if isinstance(one, Crystal)})
        return self._crystals[1]

    def _dataset(self, job: Job) -> Dataset:
        table = self.table(job.of.name)
        wanted = table["id"][table["split"] != ""]
        crystals = self._folder(job.of)
        missing = [id for id in wanted if id not in crystals]
        if missing:
            raise ValueError(
                f"{len(missing)} crystals of {self.folder / 'crystals'} are not in {self.data / job.of.folder} any "
                f"more: {', '.join(missing[:3])}; restore the data, or choose another --workdir"
            )
        config = self._config(job)
        atom_table = configs.build_atom_table(config)
        found = self._load(config, atom_table, [crystals[id] for id in sorted(wanted)])
        digest = found.digest(atom_table)
        for other in self.folder.glob(f"runs/{job.of.name}/*/record.json"):
            if json.loads(other.read_text())["data_digest"] != digest:
                raise ValueError(
                    f"the data changed since {other.parent} was finished; choose another --workdir, or restore the data"
                )
        return found

    def _split(self, job: Job, crystals: Dataset) -> Split:
        """Indices of the crystals that have a graph; the first n_train that are to train do."""
        table = self.table(job.of.name)
        place = {id: index for index, id in enumerate(crystals.ids)}
        split = {}
        for name in NAMES:
            ids = table["id"][table["split"] == name][: job.n_train if name == "train" else None]
            split[name] = np.sort(np.array([place[id] for id in ids if id in place], dtype=int))
        return split

    def _claim(self) -> None:
        file = self.folder / "size.json"
        wanted = json.loads(json.dumps({"size": self.size.__dict__}))
        if file.exists() and json.loads(file.read_text()) != wanted:
            raise ValueError(
                f"{self.folder} holds a study of another size ({json.loads(file.read_text())['size']['name']}, not "
                f"{self.size.name}, or made with other settings); choose another --workdir"
            )
        if not self._writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        Workdir(self.folder).write_json("size.json", wanted)

    def _check(self, job: Job, found: Mapping[str, Any]) -> None:
        """Raises ValueError if a finished run is of another configuration."""
        if other := configs.differences(configs.upgraded(found), configs.to_dict(self._config(job))):
            listed = "\n".join(f"  {line}" for line in other)
            raise ValueError(
                f"{self.place(job).path} holds a run of another configuration:\n{listed}\nChoose another --workdir"
            )
