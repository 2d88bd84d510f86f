"""The campaign of bad structure files: a few hundred here, thousands with -m slow (or python -m tests.fuzz.campaign)."""

import importlib.util
import itertools
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax.data import quotient
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import Radius
from cgcnn_jax.data.sources import cif
from tests.fuzz import campaign, mutations


def told(wrong: list) -> str:
    return "\n".join(f"{case.kind} {case.name} {result} {case.data[-400:]!r}" for case, result in wrong[:5])


def test_good_files_are_read(tmp_path):
    run = campaign.Campaign(tmp_path)
    for source in mutations.sources():
        case = mutations.Case("as it is", source.name, source.text.encode(), source)
        assert run.read(case).outcome == "the same crystal", source.name


def test_the_same_seed_makes_the_same_files():
    one, other, another = (list(itertools.islice(mutations.cases(seed, 60), 60)) for seed in (1, 1, 2))
    assert one == other and one != another


def test_a_few_hundred_bad_files_give_crystals_or_reasons(tmp_path):
    small = (case for case in mutations.cases(1, 180) if len(case.data) < 10**6)
    some = itertools.chain(itertools.islice(small, 180), itertools.islice(small, 0, None, 5))
    table, wrong = campaign.run(some, tmp_path)
    assert not wrong, told(wrong)
    outcomes = sum(table.values(), start=type(next(iter(table.values())))())
    # The claim means something only if files are read as well as refused.
    assert outcomes.total() >= 200 and outcomes["refused"] >= 50 and outcomes["the same crystal"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", [10, 11])
def test_thousands_of_bad_files_give_crystals_or_reasons(tmp_path, seed):
    table, wrong = campaign.run(campaign.all_cases(seed, 3000), tmp_path)
    print(campaign.as_text(table))
    assert not wrong, told(wrong)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * 2**20  # kB


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed; pip install atheris")
def test_inputs_that_reach_new_code_end_as_the_others():
    command = [sys.executable, "-m", "tests.fuzz.guided", "--seconds=10", "--seed=2"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    print(done.stdout)


@pytest.mark.skipif(importlib.util.find_spec("gemmi") is None, reason="gemmi is not installed")
def test_ten_thousand_sites_are_read_in_seconds_and_two_at_one_place_are_found():
    text = mutations.large(10_000, "a.cif")
    assert len(cif.parse_plain(text).species) == 10_000
    rows = text.splitlines(keepends=True)
    with pytest.raises(cif.Unusual, match="two sites at one place"):
        cif.parse_plain(text + rows[-1].replace(b"Cu", b"O"))


def test_a_long_chain_whose_atoms_all_differ_keeps_its_full_graph(monkeypatch):
    n_atom = 60
    coords = np.stack([np.arange(n_atom) / n_atom, np.zeros(n_atom), np.zeros(n_atom)], axis=1)
    crystal = Crystal.from_arrays("chain", np.diag([2.0 * n_atom, 9.0, 9.0]), [17] + [11] * (n_atom - 1), coords)
    reduced = Featurizer(Radius(3.0))(crystal).graphs
    assert len(reduced.species) == n_atom // 2 + 1
    monkeypatch.setattr(quotient, "_MOST_WORK", 10 * n_atom)
    whole = Featurizer(Radius(3.0))(crystal).graphs
    assert len(whole.species) == n_atom and whole.node_weight.tolist() == [1.0] * n_atom
