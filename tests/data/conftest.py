"""Crystals for the tests of the host side: prototypes with known answers, random cells, and real ones."""

import itertools

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_jsonl


@pytest.fixture(scope="session")
def cesium_chloride() -> Crystal:
    """CsCl, a = 4.12 Å: 8 unlike neighbours at a sqrt(3) / 2 = 3.568 Å, 6 like ones at a."""
    return Crystal.from_arrays("CsCl", 4.12 * np.eye(3), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(scope="session")
def copper() -> Crystal:
    """fcc Cu, a = 3.615 Å, primitive cell: 12 neighbours at a / sqrt(2) = 2.556 Å."""
    return Crystal.from_arrays("Cu", 3.615 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), ["Cu"], [[0, 0, 0]])


@pytest.fixture(scope="session")
def diamond() -> Crystal:
    """Diamond, a = 3.567 Å, primitive cell: 4 neighbours at a sqrt(3) / 4 = 1.545 Å, 12 at 2.522 Å."""
    lattice = 3.567 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal.from_arrays("C", lattice, ["C", "C"], [[0, 0, 0], [0.25, 0.25, 0.25]])


@pytest.fixture(scope="session")
def random_crystals() -> list[Crystal]:
    """20 triclinic cells of 1 to 6 atoms at least 1 Å apart, some coordinates outside the cell."""
    rng = np.random.default_rng(0)
    crystals: list[Crystal] = []
    images = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    while len(crystals) < 20:
        n_atom = int(rng.integers(1, 7))
        lattice = rng.uniform(2.5, 6) * (np.eye(3) + 0.35 * rng.normal(size=(3, 3)))
        coords = rng.uniform(-1, 2, (n_atom, 3))
        shifts = coords[:, None, None] - coords[None, :, None] + images
        distances = np.linalg.norm(shifts @ lattice, axis=-1)
        if abs(np.linalg.det(lattice)) / n_atom > 8 and np.sort(distances.ravel())[n_atom] > 1:
            species = rng.choice([8, 22, 38], n_atom).tolist()
            crystals.append(Crystal.from_arrays(f"random-{len(crystals)}", lattice, species, coords))
    return crystals


@pytest.fixture(scope="session")
def phonons(shared_data) -> list[Crystal]:
    """The first 200 crystals of matbench_phonons."""
    return list(itertools.islice(read_jsonl(shared_data / "matbench_phonons"), 200))
