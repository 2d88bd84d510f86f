"""Coverage-guided fuzzing of every reader of ours: inputs that reach new code are kept and changed further (atheris).

pip install atheris
python -m tests.fuzz.guided --reader=all --seconds=60

Each reader is a process of libFuzzer, which begins with good files. An error other than those a user is told, a reader
that disagrees with another one, more than 4 GB or a minute for an input end it, and the input is kept.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import atheris
import numpy as np

with atheris.instrument_imports(include=["cgcnn_jax"]):
    from cgcnn_jax import config as configs
    from cgcnn_jax import torchfile
    from cgcnn_jax.data import store
    from cgcnn_jax.data.crystal import Crystal
    from cgcnn_jax.data.featurize import Featurizer
    from cgcnn_jax.data.sources import jarvis, read_directory
    from cgcnn_jax.data.sources.directory import TABLE
    from cgcnn_jax.predict import Predictor
    from cgcnn_jax.screen.output import Output
    from cgcnn_jax.screen.screening import screen
    from cgcnn_jax.workdir import Workdir
    from configs import base
    from tests.fuzz import documents, mutations
    from tests.fuzz.campaign import BAD, SECONDS, Campaign, limit
    from tests.fuzz.documents import check_sentence, outcomes
    from tests.screen.models import save_model

ROOT = Path(__file__).parents[2]


class Reader(NamedTuple):
    """What is fuzzed.

    Attributes:
      seeds: Good inputs.
      read: Reads an input, and raises whatever must not be.
    """

    seeds: list[bytes]
    read: Callable[[bytes], Any]


def told(read: Callable[[], Any]) -> Any:
    """What a reader gives, None where it ends in an error of a sentence."""
    try:
        return read()
    except (ValueError, OSError) as error:
        check_sentence(error)
        return None


def structures(suffix: str, folder: Path) -> Reader:
    """Files of one format, as the campaign of mutated files reads them; CIF by both readers."""
    campaign = Campaign(folder)

    def read(data: bytes) -> None:
        result = campaign.read(mutations.Case("guided", f"a{suffix}", data, None))
        assert result.outcome not in BAD, result.message

    return Reader([one.text.encode() for one in mutations.sources() if one.name.endswith(suffix)], read)


def document(name: str, folder: Path) -> Reader:
    """A document with several crystals."""
    file, write, read = documents.DOCUMENTS[name]
    good, path = write(folder), folder / file

    def read_it(data: bytes) -> None:
        path.write_bytes(data)
        outcomes(lambda: read(path))

    return Reader([good], read_it)


def table(folder: Path) -> Reader:
    """id_prop.csv of a folder of CIFs."""
    for id in "ab":
        (folder / f"{id}.cif").write_text(mutations.calcite())

    def read(data: bytes) -> None:
        (folder / TABLE).write_bytes(data)
        outcomes(lambda: read_directory(folder, ["gap"]))

    return Reader([b"id,gap\na,1\nb,2\n", b"a,1\nb,2\n", 'id,"gap"\r\na,1e-3\r\n"b",\r\n'.encode("utf-8-sig")], read)


def published_values(folder: Path) -> Reader:
    """Values and split of a task of the JARVIS leaderboard."""
    path = folder / "task.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        told(lambda: jarvis.read_benchmark(path))

    good = {"train": {"JVASP-1": 1.0}, "val": {"JVASP-2": 2.0}, "test": {"JVASP-3": 3.0}}
    return Reader([json.dumps(good).encode()], read)


def torch_file(folder: Path) -> Reader:
    """Checkpoints of the published code."""
    path = folder / "a.pth.tar"
    good = documents.small_checkpoint(path)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        told(lambda: torchfile.read(path))

    return Reader([good], read)


def in_files(place: Path, read: Callable[[], Any]) -> Reader:
    """A folder in which one file is replaced: the first byte of an input says which. The result must be the same or none."""
    # Where reading itself writes, the folder is made anew each time.
    whole = place.with_name(f"{place.name}.whole")
    shutil.copytree(place, whole)
    files = sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file())
    expected = read()

    def read_one(data: bytes) -> None:
        if data:
            shutil.rmtree(place)
            shutil.copytree(whole, place)
            (place / files[data[0] % len(files)]).write_bytes(data[1:])
            found = told(read)
            assert found is None or found == expected, (found, expected)

    return Reader([bytes([number]) + (place / file).read_bytes() for number, file in enumerate(files)], read_one)


def graphs(folder: Path) -> Reader:
    """A store of graphs: built anew where it is damaged."""
    cells = {"CsCl": [[0, 0, 0], [0.5, 0.5, 0.5]], "Cu": [[0, 0, 0]]}
    crystals = [
        Crystal.from_arrays(id, 4 * (1 + len(id) % 2) ** 0.1 * np.eye(3), list(symbols), cells[id])
        for id, symbols in {"CsCl": ("Cs", "Cl"), "Cu": ("Cu",)}.items()
    ]

    def read() -> Any:
        found = store.build(crystals, Featurizer(), cache=folder / "cache")
        return found.ids, found.rejected, {name: array.tolist() for name, array in store._arrays(found).items()}

    read()
    return in_files(folder / "cache", read)


def checkpoint(folder: Path) -> Reader:
    """A trained model: its description, and the files of orbax."""
    save_model(folder / "run")

    def read() -> Any:
        predictor = Predictor.restore(folder / "run")
        import jax

        return predictor.scaler, [leaf.tolist() for leaf in jax.tree.leaves(predictor.weights)]

    return in_files(folder / "run", read)


def screened(folder: Path) -> Reader:
    """The parts of a screening and their list: what is damaged counts as not done."""
    model = save_model(folder / "model")
    crystals = [Crystal.from_arrays(f"c{n}", (3.5 + n / 10) * np.eye(3), ["Cu"], [[0, 0, 0]]) for n in range(4)]
    screen(crystals, [model], folder / "out", shard_size=2, format="csv")
    manifest = Workdir(folder / "out").read_json("manifest.json")
    lines = {
        line["shard"]: line for line in map(json.loads, (folder / "out" / "shards.jsonl").read_text().splitlines())
    }

    def read() -> bool:
        output = Output(folder / "out")
        with output.open(manifest):
            assert all(line == lines[shard] for shard, line in output.finished.items()), output.finished
            assert sum(len(part) for part in output.parts()) == 2 * len(output.finished)
        return True

    return in_files(folder / "out", read)


def run_files(folder: Path) -> Reader:
    """The configuration and the records of a run."""
    place = Workdir(folder / "run")
    place.path.mkdir()
    config = base.get_config()
    config.data.target, config.data.unit = "gap", "eV"
    place.write_json("config.json", configs.to_dict(config))
    for epoch in range(3):
        place.append_record({"epoch": epoch, "step": 10 * (epoch + 1), "train_loss": 1.0})

    def read() -> bool:
        stored = configs.from_dict(place.read_json("config.json"))
        configs.validate(stored)
        place.check(configs.to_dict(config))
        place.last_step()
        place.keep_records(2)
        return True

    return in_files(place.path, read)


READERS: dict[str, Callable[[Path], Reader]] = {
    **{f"{suffix} files": partial(structures, suffix) for suffix in (".cif", ".vasp", ".xsf", ".cssr")},
    **{name: partial(document, name) for name in documents.DOCUMENTS},
    "id_prop.csv": table,
    "JARVIS, values": published_values,
    "torch file": torch_file,
    "graphs": graphs,
    "checkpoint": checkpoint,
    "screening": screened,
    "run": run_files,
}


def fuzz(name: str, seconds: int, seed: int, kept: Path, folder: Path) -> None:
    """Fuzzes a reader and ends this process."""
    reader, corpus = READERS[name](folder), folder.with_name("corpus")
    corpus.mkdir()
    for number, content in enumerate(reader.seeds):
        (corpus / f"seed{number}").write_bytes(content)

    def one_input(data: bytes) -> None:
        with limit(SECONDS):  # with an alarm of its own, which libFuzzer must leave alone
            reader.read(data)

    options = [f"-max_total_time={seconds}", f"-seed={seed}", "-rss_limit_mb=4096", "-max_len=8192", "-timeout=0"]
    options.append(f"-artifact_prefix={kept.resolve()}/{name.replace(' ', '_')}-")
    with documents.task():
        atheris.Setup([sys.argv[0], *options, str(corpus)], one_input)
        atheris.Fuzz()


class Course(NamedTuple):
    """What came of fuzzing a reader.

    Attributes:
      tried: Inputs.
      first: Branches of the code that the good inputs reach.
      last: Branches that all inputs reached.
      error: What must not be, empty if nothing.
    """

    tried: int
    first: int
    last: int
    error: str


def watch(name: str, seconds: int, seed: int, kept: Path) -> Course:
    """Fuzzes a reader in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary) / "scratch"
        scratch.mkdir()
        command = [sys.executable, "-m", "tests.fuzz.guided", f"--reader={name}", f"--folder={scratch}"]
        command += [f"--seconds={seconds}", f"--seed={seed}", f"--kept={kept}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    text = done.stdout + done.stderr
    covered = [int(number) for number in re.findall(r"cov: (\d+)", text)]
    tried = [int(number) for number in re.findall(r"^#(\d+)", text, re.MULTILINE)]
    error = "" if not done.returncode else done.stderr[-500:] + done.stdout[-2500:]
    return Course(max(tried, default=0), min(covered, default=0), max(covered, default=0), error)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reader", default="all", choices=["all", *READERS])
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path(), help="folder for inputs that end a reader")
    parser.add_argument("--folder", type=Path, help="fuzz in this process, in this folder")
    arguments = parser.parse_args()
    if arguments.folder:
        fuzz(arguments.reader, arguments.seconds, arguments.seed, arguments.kept, arguments.folder)
    courses = {}
    for name in READERS if arguments.reader == "all" else [arguments.reader]:
        courses[name] = watch(name, arguments.seconds, arguments.seed, arguments.kept)
        print(name, *courses[name][:3], courses[name].error, flush=True)
    print("| reader | inputs | branches reached by good inputs | by all | ended by |", "|---" * 5 + "|", sep="\n")
    for name, one in courses.items():
        print(f"| {name} | {one.tried:,} | {one.first:,} | {one.last:,} | {'an error' if one.error else 'time'} |")
    return any(one.error for one in courses.values())


if __name__ == "__main__":
    sys.exit(main())
