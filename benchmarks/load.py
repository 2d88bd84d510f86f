"""Many structures through the real commands: nothing lost, flat memory, no slowdown.

python -m benchmarks.load --part=screening --folder=FOLDER [--structures=100000] [--workdir=MODEL] [--figure=PNG]
python -m benchmarks.load --part=training --folder=FOLDER [--crystals=1000000] [--epochs=2] [--figure=PNG] [--config...]

screening: synthetic crystals as JSON lines, one in a hundred damaged in one of eight ways, through experiments.screen on
two worker processes. Every structure must end as one row, and every damaged one, and no other, with its reason. Without
--workdir a model is first trained on the embedded crystals.

training: so many synthetic crystals, and two in a hundred more to validate and to test on, as JSON lines, through
experiments.train with train.feed=stream: graphs are built, then it trains, is stopped with SIGTERM in the middle of the
first epoch, and goes on to its end. The test error must be below a third of what guessing the mean gives. Other
--config... flags go to experiments.train.

Memory is looked at once a second in all processes. The parts end with an error if anything is lost or invented. Prints
Markdown; FOLDER keeps the input and the results. Needs cgcnn-jax[plot,parquet], and Linux.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

from benchmarks import course, damage, synthetic
from benchmarks.course import Course
from cgcnn_jax.data.sources import jsonl
from cgcnn_jax.workdir import Workdir, environment

ROOT = Path(__file__).parents[1]
_PART = 256  # crystals in a part of a store that is being built


def main() -> None:
    asked, flags = _arguments()
    asked.folder.mkdir(parents=True, exist_ok=True)
    courses, rows = screening(asked) if asked.part == "screening" else training(asked, flags)
    if asked.figure:
        course.draw(courses, asked.figure)
    about = environment()
    print(course.table(rows))
    print(
        f"\n- {date.today()}, commit {about['commit']}: {about['hardware']['processor']}, {about['hardware']['cores']} "
        f"cores, of which {_load()} other processes were at work at the end"
    )


def screening(asked: argparse.Namespace) -> tuple[list[Course], list[tuple[str, str]]]:
    """Screens; raises AssertionError if a row is not what it must be."""
    model = asked.workdir or asked.folder / "model"
    if not asked.workdir:
        demo = ("--config=configs/formation_energy.py", "--config.train.epochs=3", "--noreport")
        _finish(_start("train", *demo, f"--workdir={model}", log=asked.folder / "model.log"))
    structures, output = asked.folder / "structures.jsonl", asked.folder / "screening"
    wanted, damaged = make_structures(structures, asked.structures)

    flags = (f"--workdir={model}", f"--input={structures}", f"--output={output}", "--top=100", "--workers=2")
    found = Course("screening", "structures")
    process = _start("screen", *flags, log=asked.folder / "screen.log")
    found.watch(process, lambda: _rows(output))
    found.save(asked.folder)
    _finish(process)
    failed = check_screening(output, wanted, damaged)
    return [found], [
        ("structures, damaged ones among them", f"{len(wanted):,}; {len(damaged):,}"),
        ("rows, each id once and in the order of the input", f"{len(wanted):,}"),
        ("rows with a reason, each that of the damage; others without prediction", f"{failed:,}; 0"),
        *found.rows(),
    ]


def make_structures(file: Path, n: int) -> tuple[list[str], dict[str, str]]:
    """Writes n structures, every hundredth damaged; their ids in order, and id -> damage."""
    wanted, damaged = [], {}
    with file.open("w") as out:
        for number, crystal in enumerate(itertools.islice(synthetic.crystals(), n)):
            line, id = jsonl.line_of(crystal), crystal.id
            if kind := damage.kind_of(number):
                record = json.loads(line)
                id = damage.id_of(kind, record, file, number)
                damaged[id] = kind
                line = damage.line_of(record, kind) + "\n"
            wanted.append(id)
            out.write(line)
    return wanted, damaged


def check_screening(output: Path, wanted: Sequence[str], damaged: dict[str, str]) -> int:
    """Rows without prediction; raises AssertionError unless they are the damaged ones, and see `damage.check`."""
    rows = damage.check(sorted((output / "parts").iterdir()), wanted, damaged)
    failed = set(rows["id"][rows["reason"] != ""])
    assert failed == damaged.keys(), f"whole structures without prediction: {sorted(failed - damaged.keys())[:5]}"
    return len(failed)


def training(asked: argparse.Namespace, more: Sequence[str]) -> tuple[list[Course], list[tuple[str, str]]]:
    """Builds, trains, stops and goes on; raises AssertionError if a step is lost or nothing was learnt."""
    folder = asked.folder
    data, cache, workdir = folder / "crystals.jsonl", folder / "cache", folder / "run"
    began = time.monotonic()
    if not data.exists():
        make_crystals(data, asked.crystals)
    generated = time.monotonic() - began
    flags = (*training_flags(data, cache), f"--config.train.epochs={asked.epochs}")
    flags = (*flags, f"--config.train.batch_size={asked.batch_size}", f"--workdir={workdir}", *more)
    steps_per_epoch = round(asked.crystals / asked.batch_size)

    def trained() -> int | None:
        step = _latest_step(workdir)
        return None if step is None else step * asked.crystals // steps_per_epoch

    building, first, second = (Course(name, "crystals") for name in ("building", "training", "going on"))
    process = _start("train", *flags, log=folder / "train.log")
    began = time.monotonic()
    building.watch(process, lambda: _built(cache), until=lambda: any(cache.glob("*/index.json")))
    built = time.monotonic()
    first.watch(process, trained, until=lambda: (trained() or 0) >= asked.crystals // 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75, f"stopped with status {process.returncode}; see {folder}/train.log"
    stopped = trained()
    process = _start("train", *flags, log=folder / "train.log")
    second.watch(process, trained)
    for one in (building, first, second):
        one.save(folder)
    _finish(process)

    run = Workdir(workdir)
    epochs = [(record["epoch"], record["step"]) for record in run.records()]
    assert epochs == [(epoch, (epoch + 1) * steps_per_epoch) for epoch in range(asked.epochs)], epochs
    assert second.looks[0].done > stopped, "the second start did not begin where the first one stopped"
    metrics = run.summary()["metrics"]["test"]
    assert metrics["mad_over_mae"] > 3, metrics
    store = next(cache.iterdir())
    size = sum(path.stat().st_size for path in store.iterdir())
    seconds = run.summary()["seconds"]
    return [building, first, second], [
        ("crystals: train; val and test", f"{asked.crystals:,}; {2 * (asked.crystals // 100):,}"),
        ("input: JSON lines; time to make them", f"{data.stat().st_size / 1e9:.2f} GB; {generated:,.0f} s"),
        ("store", f"{size / 1e9:.2f} GB, after {built - began:,.0f} s"),
        *building.rows(),
        *first.rows(),
        ("stopped by SIGTERM after", f"{stopped:,} crystals, status 75"),
        (
            "going on: time until its first checkpoint (reading, checking, compiling, a minute of training)",
            f"{second.looks[0].seconds:,.0f} s",
        ),
        *second.rows(),
        ("epochs, each once; steps", f"{asked.epochs}; {epochs[-1][1]:,}"),
        ("training loss of the epochs (1: the labels' variance)", _losses(run)),
        ("test MAE; of guessing the mean", f"{metrics['mae']:.4f}; {metrics['mad']:.4f} {synthetic.UNIT}"),
        ("seconds of the second start", ", ".join(f"{name} {value:,.0f}" for name, value in seconds.items())),
    ]


def make_crystals(file: Path, n_train: int) -> None:
    """Writes so many crystals to train on and one in a hundred more each to validate and to test on."""
    part = file.with_suffix(".part")
    with part.open("w") as out:
        for crystal in synthetic.split_crystals((n_train, n_train // 100, n_train // 100)):
            out.write(jsonl.line_of(crystal))
    part.rename(file)


def training_flags(data: Path, cache: Path) -> tuple[str, ...]:
    return (
        "--config=configs/base.py",
        "--config.data.source=jsonl",
        f"--config.data.path={data}",
        f"--config.data.target={synthetic.LABEL}",
        f"--config.data.unit={synthetic.UNIT}",
        f"--config.data.cache={cache}",
        "--config.split.kind=source",
        "--config.train.feed=stream",
        "--noreport",
    )


def _losses(run: Workdir) -> str:
    return ", ".join(f"{record['train_loss']:.4f}" for record in run.records())


def _latest_step(workdir: Path) -> int | None:
    """Of the run's checkpoints; None before the first."""
    return max((int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()), default=None)


def _built(cache: Path) -> int | None:
    """Crystals in the finished parts of the store; None before the first."""
    return _PART * sum(1 for _ in cache.glob("*.parts/[0-9]*.npz")) or None


def _rows(output: Path) -> int | None:
    """Rows of a screening so far; None before the first."""
    return sum(line["rows"] for line in _lines(output / "shards.jsonl")) or None


def _lines(file: Path) -> Iterator[dict[str, int]]:
    for line in file.read_text().splitlines(keepends=True) if file.exists() else []:
        if line.endswith("\n"):
            yield json.loads(line)


def _start(name: str, *flags: str, log: Path) -> subprocess.Popen[bytes]:
    """An entry point in a process of its own; what it says goes to the log."""
    with log.open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", f"experiments.{name}", *flags], cwd=ROOT, stdout=said, stderr=said
        )


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise RuntimeError(f"{' '.join(map(str, process.args))}\nended with status {process.returncode}; see its log")


def _load() -> str:
    return f"{os.getloadavg()[2]:.1f}"


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("screening", "training"), required=True)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one: where input and results are kept")
    parser.add_argument("--figure", type=Path, help="a PNG of memory and rate")
    parser.add_argument("--structures", type=int, default=100_000, help="of screening")
    parser.add_argument("--workdir", type=Path, help="of screening: folder of a training run")
    parser.add_argument("--crystals", type=int, default=1_000_000, help="of training")
    parser.add_argument("--epochs", type=int, default=2, help="of training")
    parser.add_argument("--batch_size", type=int, default=64, help="of training")
    asked, flags = parser.parse_known_args()
    wrong = [flag for flag in flags if not (asked.part == "training" and flag.startswith("--config."))]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    asked.folder = asked.folder.expanduser().absolute()
    return asked, flags


if __name__ == "__main__":
    main()
