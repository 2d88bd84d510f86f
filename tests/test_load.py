"""What benchmarks.load shows of many structures, on some hundred: nothing lost, nothing kept, no slowdown unseen."""

import gc
import itertools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import course, damage, load, synthetic
from benchmarks.course import Course, Look
from cgcnn_jax import config as configs
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import read_unparsed
from cgcnn_jax.run import Watcher, run
from cgcnn_jax.screen.screening import screen
from cgcnn_jax.workdir import Workdir
from configs import base
from tests.screen.models import save_model

pytestmark = pytest.mark.usefixtures("quicker_compiling")


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, str]]:
    """The folder of 800 structures, with each kind of damage once; their ids; and what was damaged."""
    folder = tmp_path_factory.mktemp("load")
    wanted, damaged = load.make_structures(folder / "structures.jsonl", 800)
    model = save_model(folder / "energy")
    screen(read_unparsed(folder / "structures.jsonl"), [model], folder / "screening", described=["x"], shard_size=100)
    return folder / "screening", wanted, damaged


def test_every_structure_is_one_row_and_every_damage_its_reason(screened) -> None:
    output, wanted, damaged = screened
    assert sorted(damaged.values()) == sorted(damage.REASONS)
    assert load.check_screening(output, wanted, damaged) == len(damage.REASONS)
    assert len(wanted) == load._rows(output) == 800


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(3), "ids are not those of the input"),
        (lambda table: table.iloc[[1, 0, *range(2, len(table))]], "ids are not those of the input"),
        (lambda table: pd.concat([table, table.tail(1)]), "ids are not those of the input"),
        (
            lambda table: table.assign(reason=table["reason"].replace(r".*Xx.*", "odd", regex=True)),
            "do not say the damage",
        ),
        (
            lambda table: table.assign(prediction=table["prediction"].fillna(1.0)),
            "a prediction with a reason, or neither",
        ),
        (
            lambda table: table.assign(
                prediction=table["prediction"].where(table["id"] != "s7"),
                reason=table["reason"].where(table["id"] != "s7", "s7: no"),
            ),
            r"whole structures without prediction: \['s7'\]",
        ),
    ],
    ids=["lost", "out of order", "twice", "another reason", "invented", "refused"],
)
def test_a_row_that_is_wrong_is_found(screened, tmp_path: Path, change, message: str) -> None:
    output, wanted, damaged = screened
    parts = sorted((output / "parts").iterdir())
    table = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    (tmp_path / "parts").mkdir()
    change(table).to_parquet(tmp_path / "parts" / "000000.parquet")
    with pytest.raises(AssertionError, match=message):
        load.check_screening(tmp_path, wanted, damaged)


def a_course(memory, rate) -> Course:
    """A look at every thousandth of 100,000 items; memory in MB and items a second of CPU time, both of the count."""
    found, seconds = Course("test", "items"), 0.0
    for done in range(0, 100_001, 1000):
        mb = int(1e6 * memory(done))
        found.looks.append(Look(2 * seconds, seconds, done, (mb, 0), (mb, 0)))
        seconds += 1000 / rate(done)
    return found


def test_memory_that_grows_and_a_rate_that_falls_are_seen() -> None:
    flat = a_course(lambda done: 300, lambda done: 500)
    assert (flat.growth("anonymous"), flat.slope("anonymous")) == (1, pytest.approx(0, abs=1))
    np.testing.assert_allclose(flat.rates("cpu"), 500)
    np.testing.assert_allclose(flat.rates("seconds"), 250)
    assert flat.slowdown() == pytest.approx(1)
    # 1 kB an item: 100 MB per 100,000; the middles of the last and of the second quarter are 87,500 and 37,500 items.
    leak = a_course(lambda done: 300 + done / 1000, lambda done: 500 if done < 90_000 else 400)
    assert leak.slope("anonymous") == pytest.approx(100e6)
    assert leak.growth("anonymous") == pytest.approx(387.5 / 337.5, rel=1e-3)
    assert leak.slowdown() == pytest.approx(0.8)
    assert "items/s of CPU time: first three tenths; last | 500; 400 (0.80)" in course.table(leak.rows())


def test_what_is_seen_while_processes_start_and_end_does_not_count() -> None:
    found = a_course(lambda done: 300, lambda done: 500)
    first, last = found.looks[0], found.looks[-1]
    before, after = Look(-1, 0, first.done, (0, 0), (0, 0)), Look(last.seconds + 1, last.cpu, last.done, (0, 0), (0, 0))
    second = found.looks[1]
    found.looks = [before, before, *found.looks, after, after]
    found.trim()
    assert (found.looks[0], found.looks[-1], len(found.looks)) == (second, last, 100)


def test_synthetic_crystals_are_all_whole_and_their_label_is_the_density_of_electrons() -> None:
    first, again = (list(itertools.islice(synthetic.crystals(seed=3), 200)) for _ in range(2))
    assert [one.digest() for one in first] == [one.digest() for one in again]
    assert len({one.digest() for one in first}) == 200
    assert {len(one.species) for one in first} == {2, 3, 4, 5, 6, 10}
    featurize = Featurizer()
    for one in first[:40]:
        featurize(one)
        structure = one.to_structure()
        electrons = sum(site.specie.Z for site in structure)
        assert one.targets[synthetic.LABEL] == pytest.approx(electrons / structure.volume, rel=1e-9)
    parts = [one.split for one in synthetic.split_crystals((5, 2, 1))]
    assert parts == ["train"] * 5 + ["val"] * 2 + ["test"]


class Stops(Watcher):
    """Stops in the middle of the first epoch, once; notes Python's memory after each epoch."""

    def __init__(self) -> None:
        self.stops, self.memory = False, []

    def step(self, epoch: int, done: int, of: int) -> None:
        self.stops = epoch == 0 and 0 < done < of

    def should_stop(self) -> bool:
        return self.stops

    def epoch(self, record) -> None:
        if not tracemalloc.is_tracing():
            tracemalloc.start()  # not earlier: it makes compiling three times as long
        # Python keeps some thousand tuples that are free for the next ones, unless all rubbish is collected.
        gc.collect()
        self.memory.append(tracemalloc.get_traced_memory()[0])


@pytest.mark.slow
def test_streamed_training_is_stopped_goes_on_learns_and_keeps_nothing(tmp_path: Path) -> None:
    load.make_crystals(tmp_path / "crystals.jsonl", 300)
    config = base.get_config()
    config.data.source, config.data.path = "jsonl", str(tmp_path / "crystals.jsonl")
    config.data.target, config.data.unit = synthetic.LABEL, synthetic.UNIT
    config.data.cache, config.split.kind = str(tmp_path / "cache"), "source"
    config.train.feed, config.train.epochs, config.train.batch_size = "stream", 12, 10
    config.model.features, config.model.num_convs = 8, 1
    watcher = Stops()
    assert not run(config, tmp_path / "run", watcher=watcher, report=False).is_finished
    assert load._latest_step(tmp_path / "run") < 30
    watcher = Stops()
    watcher.step = lambda *where: None
    assert run(config, tmp_path / "run", watcher=watcher, report=False).is_finished
    tracemalloc.stop()
    records = Workdir(tmp_path / "run").records()
    assert [record["step"] for record in records] == [30 * (epoch + 1) for epoch in range(12)]
    # 1 is the variance of the labels.
    assert records[-1]["train_loss"] < 0.2
    # 2,100 crystals later: 100 bytes each would be 210 kB.
    assert watcher.memory[-1] - watcher.memory[4] < 100_000
    assert (
        configs.differences(json.loads((tmp_path / "run" / "config.json").read_text()), configs.to_dict(config)) == []
    )
