"""What users can do wrong, and the whole sentence that each gets: the input, the rule, what came, what to do.

{folder} stands for the folder of the case. Whoever changes a sentence reads it here beside the others.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgcnn_jax import config as configs
from cgcnn_jax import torchfile
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.benchmark.tasks import find_tasks
from cgcnn_jax.data import sets
from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.dataset import load
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.data.sources import Request, entries_of, read, read_input
from cgcnn_jax.predict import Predictor
from cgcnn_jax.report import finished
from cgcnn_jax.screen.output import Output
from cgcnn_jax.sweep.space import check_space
from cgcnn_jax.workdir import Workdir
from configs import base


class Atoms:
    """Of another library."""


CUBE = [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
SALT = {"id": "salt", "lattice": CUBE, "species": ["Cs", "Cl"], "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]]}


def table(text: str, source: str = "directory", targets: tuple[str, ...] = ("gap",)) -> Callable[[Path], Any]:
    """Reads a folder with that id_prop.csv and a.cif."""

    def act(folder: Path) -> Any:
        (folder / "a.cif").write_text("")
        (folder / "id_prop.csv").write_text(text)
        return first_reason(read(source, Request(str(folder), targets)))

    return act


def line(**changes: Any) -> Callable[[Path], Any]:
    """Reads JSON lines of a crystal with those fields; None leaves one out."""

    def act(folder: Path) -> Any:
        record = {key: value for key, value in (SALT | changes).items() if value is not None}
        (folder / "a.jsonl").write_text(json.dumps(record))
        return first_reason(read("jsonl", Request(str(folder / "a.jsonl"))))

    return act


def reading(name: str, content: str | bytes | None = None) -> Callable[[Path], Any]:
    """Reads an input for prediction."""

    def act(folder: Path) -> Any:
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return first_reason(read_input(folder / name))

    return act


def config(**changes: Any) -> Callable[[Path], Any]:
    """Checks a configuration with group__field=value."""

    def act(folder: Path) -> Any:
        own = base.get_config()
        own.data.source, own.data.path, own.data.target, own.data.unit = "jsonl", "data", "gap", "eV"
        for name, value in changes.items():
            group, field = name.split("__")
            own[group][field] = value
        configs.validate(own)

    return act


def first_reason(entries: Any) -> Any:
    for entry in entries:
        if isinstance(entry, Rejected):
            return entry.reason
        entry.read()
    return None


def loading(target: str, count: int = 1) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        crystal = Crystal.from_record(SALT | {"properties": {"gap": 1.0}}, "")
        return load([crystal] * count, Featurizer(WholeShells(4)), (target,))

    return act


def _another_run(folder: Path) -> None:
    place = Workdir(folder)
    place.claim(configs.to_dict(base.get_config()))
    (place.checkpoints / "5").mkdir(parents=True)
    changed = configs.to_dict(base.get_config())
    changed["train"]["epochs"] += 1
    place.check(changed)


def _another_screening(folder: Path) -> None:
    for digest in ("1", "2"):
        with Output(folder).open({"format": "csv", "columns": {}, "input": digest}):
            pass


def _trained_at_once(folder: Path) -> None:
    with Workdir(folder).lock(), Workdir(folder).lock():
        pass


def _stopped_early(folder: Path) -> None:
    (folder / "checkpoints").mkdir()
    Predictor.restore(folder)


def _text(name: str, text: str, act: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def written(folder: Path) -> Any:
        (folder / name).write_text(text)
        return act(folder)

    return written


CASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "id_prop.csv of semicolons": (
        table("a;1\nb;2\n"),
        "{folder}/id_prop.csv: cells must be separated by commas and numbers have a decimal point; got semicolons, as in 'a;1'. Save the table as comma-separated values (CSV)",
    ),
    "id_prop.csv of uneven rows": (
        table("a,1\nb,1,2\n"),
        "{folder}/id_prop.csv: rows must have equally many cells; ['a', '1'] has 2, row 2, ['b', '1', '2'], has 3. Leave the cell of an unknown value empty, and write numbers with a decimal point",
    ),
    "id_prop.csv without rows": (
        table(""),
        "{folder}/id_prop.csv: no rows; it needs one a crystal, with its id and values",
    ),
    "id_prop.csv with unnamed columns": (
        table("a,1,2\n"),
        "{folder}/id_prop.csv: 2 value columns without a header, but data.target names 1: ['gap']; name every column in data.columns, or give the table a first row of names",
    ),
    "id_prop.csv with a path": (
        table("../a,1\n"),
        "../a: stands in id_prop.csv but there is no ../a.cif in {folder}; an id is the name of a file of this folder itself, without .cif, and folders below it are not read",
    ),
    "a row without an id": (table("id,x\n,2\n"), "row 2 of id_prop.csv has no id in its first cell: ',2'"),
    "a file that is not listed": (table("b,1\n"), "b: stands in id_prop.csv but there is no b.cif in {folder}"),
    "a folder that is not there": (
        lambda folder: first_reason(read("directory", Request(str(folder / "no")))),
        "{folder}/no: no such folder; data.path must hold id_prop.csv and a file ID.cif for every row",
    ),
    "a file for a folder": (
        _text("x", "", lambda folder: first_reason(read("directory", Request(str(folder / "x"))))),
        "{folder}/x: a file, not a folder; data.path must hold id_prop.csv and a file ID.cif for every row",
    ),
    "a line that is no JSON": (
        reading("a.jsonl", "{\n"),
        "a.jsonl:1: not JSON (Expecting property name enclosed in double quotes: line 2 column 1 (char 2))",
    ),
    "a line that is no object": (reading("a.jsonl", "[]\n"), "a.jsonl:1: a line must hold one JSON object, got list"),
    "a line without a lattice": (
        line(lattice=None),
        "salt: the record has no lattice; it has id, species, frac_coords",
    ),
    "a line of an unknown element": (
        line(species=["Cs", "Xx"]),
        "salt: unknown element 'Xx'; known are the symbols from 'H' to 'Lr'",
    ),
    "a line with too few coordinates": (
        line(frac_coords=[[0, 0, 0]]),
        "salt: 2 species need coordinates of shape (2, 3), got (1, 3)",
    ),
    "a line without atoms": (line(species=[], frac_coords=[]), "salt: no atoms"),
    "a line with a flat cell": (
        line(lattice=[[4, 0, 0], [0, 4, 0], [4, 4, 0]]),
        "salt: cell of 0 Å³ for 2 atoms; the lattice is degenerate",
    ),
    "a line with an infinite coordinate": (
        line(frac_coords=[[0, 0, 0], [float("inf"), 0, 0]]),
        "salt: lattice or coordinates hold a value that is not finite",
    ),
    "a line with properties that are none": (
        line(properties=[1]),
        "salt: properties must be an object of names and values, got [1]",
    ),
    "a damaged gzip": (
        reading("a.jsonl.gz", gzip.compress(json.dumps(SALT).encode(), mtime=0)[:-12]),
        "{folder}/a.jsonl.gz: damaged after line 0 (Compressed file ended before the end-of-stream marker was reached); fetch or make it again",
    ),
    "an input that is not there": (reading("a.cif"), "{folder}/a.cif: no such file"),
    "lines that are not there": (reading("a.jsonl"), "{folder}/a.jsonl: no such file"),
    "a folder without structures": (
        lambda folder: first_reason(read_input(folder)),
        "{folder}: a folder without structure files (.cif, .mcif, .vasp, .poscar, .xsf, .cssr, POSCAR)",
    ),
    "an empty CIF": (
        reading("a.cif", ""),
        "a.cif: cannot be read (pymatgen: Invalid CIF file with no structures!; is the file whole?)",
    ),
    "a kind of file that nobody knows": (
        reading("a.txt", "text"),
        "a.txt: cannot be read (its name is of no kind that is known: .cif, .mcif, .vasp, .poscar, .xsf, .cssr, POSCAR, "
        "CONTCAR, pymatgen's JSON)",
    ),
    "a JSON that is no structure": (
        reading("a.json", "{}"),
        "a.json: cannot be read (not a pymatgen Structure, which has lattice and sites)",
    ),
    "a CSV without CIFs": (
        reading("a.csv", "id,gap\na,1\n"),
        "{folder}/a.csv: needs columns material_id and cif; it has id, gap",
    ),
    "a table of CDVAE that is not there": (
        lambda folder: first_reason(read("cdvae", Request(str(folder)))),
        "{folder}: no such file, or a folder without train.csv, val.csv and test.csv",
    ),
    "a set that was not fetched": (
        lambda folder: sets.locate("mp_20", folder),
        "mp_20 is not there ({folder}/mp_20/train.csv); fetch it with\n  python -m experiments.fetch mp_20\nor name a file with --config.data.path=PATH",
    ),
    "a property that no crystal has": (
        loading("band_gap"),
        "no crystal has the target 'band_gap'; the data have gap (data.target)",
    ),
    "an id that stands twice": (
        loading("gap", 2),
        "1 of 2 crystals cannot be used:\n  salt: the id stands twice; ids must be unique, and the one before is taken\nMend them (then their structures are checked), or leave them out with --config.data.on_error=skip (each is then listed in rejected.csv)",
    ),
    "no target": (
        config(data__target=""),
        "config.data.target must name the property to learn, as in --config.data.target=band_gap",
    ),
    "no task of Matbench": (
        config(data__path="", data__source="matbench"),
        "config.data.task must name the Matbench task, as in --config.data.task=matbench_log_kvrh",
    ),
    "a property that the task does not judge": (
        config(data__source="jarvis", data__task="dft_3d_optb88vdw_bandgap", data__target="energy"),
        "config.data.target must name what dft_3d_optb88vdw_bandgap judges, gap_optb88vdw_eV or optb88vdw_bandgap; got 'energy'. --config.data.target= takes the task's own",
    ),
    "no path": (config(data__path=""), "config.data.path must say where the jsonl crystals lie"),
    "a convolution that is not there": (
        config(model__conv="transformer"),
        "config.model.conv must be one of sum, gated, gated_norm, gated_mlp, gated_update; got 'transformer'",
    ),
    "no epochs": (config(train__epochs=0), "config.train.epochs must be greater than 0; got 0"),
    "a negative number of workers": (config(data__workers=-1), "config.data.workers must not be negative; got -1"),
    "a dropout of one": (config(model__dropout=1.0), "config.model.dropout must be at least 0 and below 1; got 1.0"),
    "layers after a sum over sites": (
        config(model__pool="site"),
        "config.model.pool=site predicts a number per atom, so it has no layers after pooling; set config.model.crystal_layers=0 (and atom_layers instead)",
    ),
    "a basis that is too coarse": (
        config(bonds__spacing=9.0),
        "config.bonds.spacing must be below bonds.cutoff; got 9.0",
    ),
    "bonds beyond the farthest Gaussian": (
        config(graph__cutoff=12.0),
        "config.bonds.cutoff must be at least graph.cutoff, 12 Å, or longer bonds would look alike; got 8",
    ),
    "two ratios": (
        config(split__ratios=(0.8, 0.2)),
        "config.split.ratios must be a tuple of 3 shares of train, val and test; got (0.8, 0.2)",
    ),
    "no folds": (config(split__num_folds=0), "config.split.num_folds must be greater than 0; got 0"),
    "a fold of a split without folds": (
        config(data__fold=3),
        "config.data.fold needs split.kind k_fold or source; got 3 with ratio",
    ),
    "files for another split": (
        config(split__files=("a.txt", "b.txt", "c.txt")),
        "config.split.files needs split.kind files; got ('a.txt', 'b.txt', 'c.txt') with ratio",
    ),
    "sizes for another split": (
        config(split__kind="k_fold", split__sizes=(8, 1, 1)),
        "config.split.sizes needs split.kind size; got (8, 1, 1) with k_fold",
    ),
    "milestones without their schedule": (
        config(optimizer__milestones=(100,)),
        "config.optimizer.milestones, epochs after which the learning rate falls, go with optimizer.schedule=milestones, and it with some; got (100,) with cosine",
    ),
    "a schedule without milestones": (
        config(optimizer__schedule="milestones"),
        "config.optimizer.milestones, epochs after which the learning rate falls, go with optimizer.schedule=milestones, and it with some; got () with milestones",
    ),
    "a warm-up of no cosine": (
        config(optimizer__schedule="constant", optimizer__warmup_epochs=5),
        "config.optimizer.warmup_epochs goes with optimizer.schedule=cosine; got 5.0 with constant",
    ),
    "a billion bins": (
        config(bonds__num_bins=10**9),
        "config.bonds.num_bins must be at most 10000; got 1000000000",
    ),
    "milestones that are no epochs": (
        config(optimizer__milestones=(0.5,)),
        "config.optimizer.milestones must be a tuple of epochs; got (0.5,)",
    ),
    "momentum above one": (
        config(optimizer__momentum=5.0),
        "config.optimizer.momentum must be at least 0 and below 1; got 5.0",
    ),
    "atoms of ase": (
        lambda folder: entries_of([Atoms()]),
        "structure 0 is a tests.test_messages.Atoms; give pymatgen structures or paths (pymatgen.io.ase.AseAtomsAdaptor.get_structure makes one of an ase.Atoms)",
    ),
    "one class": (
        config(model__task="classification", model__num_classes=1),
        "config.model.num_classes must be at least 2; got 1",
    ),
    "a unit too many": (
        config(data__unit="eV,eV"),
        "config.data.unit must name a unit for each target; got 'eV,eV' for 'gap'",
    ),
    "a loss of the other task": (
        config(train__loss="cross"),
        "config.train.loss must be one of auto, mse, mae, huber in regression; got 'cross'",
    ),
    "a warm-up longer than the training": (
        config(optimizer__warmup_epochs=500),
        "config.optimizer.warmup_epochs must be below train.epochs; got 500.0 of 200",
    ),
    "a folder of another run": (
        _another_run,
        "{folder} holds a run with another configuration:\n  train.epochs: 200 -> 201\nChoose another --workdir, or remove this one",
    ),
    "a folder that is in use": (_trained_at_once, "another process is training in {folder}; choose another --workdir"),
    "a workdir that is a file": (
        _text("run", "", lambda folder: Workdir(folder / "run").check({})),
        "--workdir={folder}/run is a file; name a folder",
    ),
    "a workdir that holds the crystals": (
        lambda folder: Workdir(folder).check({"data": {"path": f"{folder}/"}}),
        "--workdir={folder} is the folder of the crystals (config.data.path), which a run would fill with files of its own; name another",
    ),
    "a workdir without a run": (
        lambda folder: Predictor.restore(folder),
        "{folder}: no checkpoints; a trained network is the folder of a training run (--workdir, config.init_from)",
    ),
    "a run without a checkpoint": (
        _stopped_early,
        "{folder}: the run was stopped before its first checkpoint; train on",
    ),
    "no known crystals": (
        lambda folder: Applicability.load(folder),
        "{folder}/applicability.npz: not there yet; `python -m experiments.interpret --workdir={folder}` makes it from the training data",
    ),
    "a report of no finished run": (
        lambda folder: finished.read_all([folder]),
        "{folder}: no summary.json; a report needs the folder of a finished run, which experiments.train writes",
    ),
    "a report of no run": (lambda folder: finished.read_all([]), "a report needs the folder of at least one run"),
    "a folder of another screening": (
        _another_screening,
        "{folder} holds another screening:\n  input: 1 -> 2\nChoose another --output, or remove this one",
    ),
    "an output that is a file": (
        _text("out", "", lambda folder: Output(folder / "out").open({}).__enter__()),
        "--output={folder}/out is a file; name a folder",
    ),
    "a sweep over a text": (
        lambda folder: check_space({"model.conv": "gated"}),
        "model.conv needs a list of values, Uniform or Integers; got 'gated'",
    ),
    "a sweep without values": (
        lambda folder: check_space({"model.conv": []}),
        "model.conv needs a list of values, Uniform or Integers; got []",
    ),
    "a suite that is not there": (
        lambda folder: find_tasks("imagenet", "all"),
        "--suite must be one of matbench, mp_2018_6_1, jarvis_dft3d; got 'imagenet'",
    ),
    "a task that is not there": (
        lambda folder: find_tasks("matbench", "matbench_love"),
        "--tasks: matbench has no task 'matbench_love'; it has matbench_log_kvrh, matbench_log_gvrh, matbench_perovskites, matbench_phonons, matbench_dielectric, matbench_jdft2d, matbench_mp_gap, matbench_mp_e_form, matbench_mp_is_metal (or all)",
    ),
    "weights that are not there": (
        lambda folder: torchfile.read(folder / "x.pth.tar"),
        "{folder}/x.pth.tar: no such file",
    ),
    "weights that are text": (
        _text("x.pth.tar", "text", lambda folder: torchfile.read(folder / "x.pth.tar")),
        "{folder}/x.pth.tar: not a whole torch checkpoint (IndexError: pop from empty list); fetch or save it again",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence(name: str, tmp_path: Path) -> None:
    act, expected = CASES[name]
    try:
        said = act(tmp_path)
    except (ValueError, OSError) as error:
        said = str(error)
    assert said is not None, "nothing went wrong"
    assert said.replace(str(tmp_path), "{folder}") == expected
