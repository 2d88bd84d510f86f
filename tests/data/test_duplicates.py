"""Twins: found in whatever cell they come, and nothing else is."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgcnn_jax.data import duplicates, quotient
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import Edges, Radius, WholeShells
from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.graph import concatenate

FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
NEIGHBORS = WholeShells()
RULES = {
    "shells": Featurizer(),
    "full": Featurizer(use_quotient=False),
    "shared": Featurizer(WholeShells(share_last=True)),
    "radius": Featurizer(Radius(6.0)),
}


def made(lattice, species, coords) -> Crystal:
    return Crystal.from_arrays("crystal", lattice, species, coords)


def apart(one: Crystal, other: Crystal, featurizer: Featurizer = RULES["shells"]) -> float:
    """Å between two fingerprints; infinite where the formulas differ."""
    marks = duplicates.fingerprints(concatenate([featurizer(crystal).graphs for crystal in (one, other)]))
    if marks.formula[0] != marks.formula[1]:
        return np.inf
    return float(marks.apart(np.array([0]), np.array([1]))[0])


@pytest.fixture(scope="module")
def demo() -> list[Crystal]:
    """Every fiftieth crystal of the demo set."""
    return [crystal for number, crystal in enumerate(read_demo()) if number % 50 == 0]


def rewritten(crystal: Crystal, random: np.random.Generator) -> Crystal:
    """The same crystal in another cell: other axes, twice or thrice as large, turned or mirrored, moved, reordered."""
    shape = np.array([[1, 0, 0], [random.integers(-1, 2), 1, 0], [0, random.integers(-1, 2), 1]])
    times = random.permutation([1, 1, random.integers(1, 4)])
    cells = np.indices(times).reshape(3, -1).T
    # Rows of the lattice become shape @ lattice, so that coordinates take the inverse on their right.
    coords = (crystal.frac_coords @ np.linalg.inv(shape))[None] + cells[:, None]
    coords = coords.reshape(-1, 3) / times + random.uniform(-1, 1, 3)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    order = random.permutation(len(coords))
    lattice = times[:, None] * (shape @ crystal.lattice) @ turn
    return made(lattice, np.tile(crystal.species, len(cells))[order], coords[order])


@pytest.mark.parametrize("rule", ["shells", "full", "shared", "radius"])
def test_a_crystal_in_another_cell_has_the_same_fingerprint(demo, rule):
    random = np.random.default_rng(0)
    for crystal in demo if rule == "shells" else demo[::6]:
        assert apart(crystal, rewritten(crystal, random), RULES[rule]) < 1e-5  # float32 at 8 Å is 1e-6


def test_the_quotient_has_the_fingerprint_of_the_full_graph(demo):
    for crystal in demo[::3]:
        marks = duplicates.fingerprints(concatenate([RULES[rule](crystal).graphs for rule in ("shells", "full")]))
        # Bonds merged within 1e-3 Å are represented by their mean.
        assert marks.apart(np.array([0]), np.array([1]))[0] < 1e-3


def moved(crystal: Crystal, random: np.random.Generator) -> Crystal:
    """Every atom up to 1e-3 Å elsewhere along each axis."""
    move = random.uniform(-1e-3, 1e-3, crystal.frac_coords.shape)
    return made(crystal.lattice, crystal.species, crystal.frac_coords + move @ np.linalg.inv(crystal.lattice))


@pytest.mark.parametrize("rule", [WholeShells(24), Radius(5.0)], ids=["shells", "radius"])
def test_what_lies_far_beyond_the_twelfth_neighbour_does_not_matter(demo, rule):
    random, featurizer = np.random.default_rng(1), Featurizer(rule)
    for crystal in demo:
        assert apart(crystal, moved(crystal, random), featurizer) < 0.8 * duplicates.TOLERANCE


def test_no_rounding_decides(demo):
    # What a file with three digits makes of coordinates: shells of equals break up, and those of the twelfth neighbour
    # lose atoms.
    random = np.random.default_rng(1)
    for crystal in demo:
        assert apart(crystal, moved(crystal, random)) < 0.8 * duplicates.TOLERANCE


NACL = made(5.64 * np.eye(3), ["Na"] * 4 + ["Cl"] * 4, np.concatenate([FCC, FCC + [0.5, 0, 0]]))


def heusler(*species: str) -> Crystal:
    """Four atoms along the body diagonal of a face-centred cell."""
    return made(2.9 * (np.ones((3, 3)) - np.eye(3)), species, [[k / 4] * 3 for k in range(4)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NACL, made(5.64 * np.eye(3), ["K"] * 4 + ["Cl"] * 4, np.concatenate([FCC, FCC + [0.5, 0, 0]]))),
        (NACL, made(3.6 * np.eye(3), ["Na", "Cl"], [[0] * 3, [0.5] * 3])),
        (NACL, made(1.01 * 5.64 * np.eye(3), ["Na"] * 4 + ["Cl"] * 4, np.concatenate([FCC, FCC + [0.5, 0, 0]]))),
        # The same places, other atoms on them: layers along an edge or along the body diagonal of the fcc cell.
        (
            made(4 * np.eye(3), ["Cu", "Pt", "Pt", "Cu"], FCC),
            made([[4, 2, 2], [2, 4, 2], [2, 2, 4]], ["Cu", "Pt"], [[0] * 3, [0.5] * 3]),
        ),
        (heusler("Mn", "Co", "Al", "Co"), heusler("Co", "Mn", "Al", "Co")),
        # Graphite-like and diamond.
        (
            made(3.57 * np.eye(3), ["C"] * 8, np.concatenate([FCC, FCC + 0.25])),
            made(
                [[2.46, 0, 0], [-1.23, 2.13, 0], [0, 0, 6.7]],
                ["C"] * 4,
                [[0, 0, 0], [0, 0, 0.5], [1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5]],
            ),
        ),
    ],
    ids=["elements", "structure", "a percent", "ordering", "Heusler and inverse", "polymorphs"],
)
def test_other_crystals_are_no_twins(one, other):
    assert apart(one, other) > 2 * duplicates.TOLERANCE


def test_mirror_images_are_twins():
    # No plane maps a chain of three atoms at different heights on a screw onto itself; a network sees lengths alone.
    lattice = np.array([[4.4, 0, 0], [-2.2, 3.81, 0], [0, 0, 5.0]])
    left = made(lattice, ["Te"] * 3, [[0.27, 0, 1 / 3], [0, 0.27, 2 / 3], [-0.27, -0.27, 0]])
    right = made(lattice * [1, 1, -1], ["Te"] * 3, left.frac_coords)
    assert apart(left, right) < 1e-5


def test_the_average_minimum_distances_of_rock_salt_by_hand():
    # 6 neighbours at a/2, then 12 at a/sqrt(2), of which 6 places are left.
    values = duplicates.fingerprints(RULES["shells"](NACL).graphs).values
    np.testing.assert_allclose(values[:, :12], [[2.82] * 6 + [2.82 * 2**0.5] * 6] * 2, rtol=1e-6)
    np.testing.assert_allclose(values[:, 12:24], 0, atol=1e-6)


def colours_agree(one: Crystal, other: Crystal) -> bool:
    """Whether colour refinement of both graphs as one gives both the same classes of atoms, as often."""
    (a, b), n = (NEIGHBORS.find(crystal) for crystal in (one, other)), len(one.species)
    edges = Edges(*(np.concatenate(pair) for pair in ((a[0], b[0] + n), (a[1], b[1] + n), (a[2], b[2]))))
    node = quotient.reduce(np.concatenate([one.species, other.species]), edges, tolerance=1e-3).atom_node
    return np.array_equal(np.sort(node[:n]), np.sort(node[n:]))


def test_decorations_of_a_lattice_are_twins_where_colour_refinement_says_so():
    # All distances equal: which atoms are where is all there is, and most decorations have the same pairs on average.
    places = np.concatenate([(FCC + [0, 0, k]) / [1, 1, 4] for k in range(4)])
    lattice = np.diag([4.0, 4.0, 16.0])
    random = np.random.default_rng(0)
    seen = [made(lattice, random.permutation(["Cu"] * 8 + ["Au"] * 8), places) for _ in range(20)]
    verdicts = [
        (apart(one, other) < duplicates.TOLERANCE, colours_agree(one, other))
        for one, other in itertools.combinations(seen, 2)
    ]
    assert all(fingerprint == colours for fingerprint, colours in verdicts)
    assert 2 < sum(colours for _, colours in verdicts) < len(verdicts) / 2


def dumbbells(lengths: list[float]) -> duplicates.Fingerprints:
    """CsCl-type crystals of given edges, whose fingerprints are apart by the difference of their edges."""
    crystals = [made(length * np.eye(3), ["Cs", "Cl"], [[0] * 3, [0.5] * 3]) for length in lengths]
    return duplicates.fingerprints(concatenate([RULES["shells"](crystal).graphs for crystal in crystals]))


def split_of(train: list[int], val: list[int], test: list[int]) -> dict[str, np.ndarray]:
    return {"train": np.array(train, int), "val": np.array(val, int), "test": np.array(test, int)}


def test_twins_in_train_come_before_those_in_val_and_one_split_has_none():
    # Numbers 0 and 1 are alike, 2 to 4 are, 5 stands alone; 3 has twins in train and in val.
    marks = dumbbells([4.0, 4.001, 5.0, 5.001, 5.002, 6.0])
    twins = duplicates.find(marks, split_of([0, 1, 2, 5], [4], [3]))
    assert (twins.crystal.tolist(), twins.twin.tolist()) == ([3, 4], [2, 2])
    assert twins.split == (("test", "train"), ("val", "train"))
    assert twins.apart == pytest.approx([0.001, 0.002], abs=1e-5)
    only_val = duplicates.find(marks, split_of([0], [4], [3]))
    assert (only_val.crystal.tolist(), only_val.split) == ([3], (("test", "val"),))
    assert len(duplicates.find(marks, split_of([2, 3, 4], [0, 1], [5])).crystal) == 0


@given(st.lists(st.integers(0, 200), min_size=2, max_size=30), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_twins_are_those_of_all_pairs(steps, seed):
    # Edges on a grid of 3 mÅ from 4 Å: no difference lies on the tolerance.
    marks = dumbbells([4 + 0.003 * step for step in steps])
    part = np.random.default_rng(seed).integers(0, 3, len(steps))
    twins = duplicates.find(marks, split_of(*(np.flatnonzero(part == number) for number in range(3))))
    alike = np.abs(np.subtract.outer(steps, steps)) * 0.003 < duplicates.TOLERANCE
    expected = {
        one
        for one in range(len(steps))
        for other in range(len(steps))
        if alike[one, other] and (part[one], part[other]) in ((1, 0), (2, 0), (2, 1))
    }
    assert set(twins.crystal.tolist()) == expected and len(twins.crystal) == len(expected)
    for one, other, (_, has) in zip(twins.crystal, twins.twin, twins.split, strict=True):
        rivals = np.flatnonzero(part == ("train", "val").index(has))
        nearest = np.abs(np.subtract(np.array(steps)[rivals], steps[one])).min()
        assert other in rivals and abs(steps[other] - steps[one]) == nearest
    in_train = {one for one in expected if (alike[one] & (part == 0)).any()}
    assert {
        one for one, name in zip(twins.crystal.tolist(), twins.split, strict=True) if name[1] == "train"
    } == in_train
    # Families: what chains of steps below the tolerance join.
    ranked = np.argsort(steps, kind="stable")
    gaps = np.cumsum(np.diff(np.array(steps)[ranked], prepend=steps[ranked[0]]) * 0.003 >= duplicates.TOLERANCE)
    chain = np.empty(len(steps), int)
    chain[ranked] = gaps
    family = duplicates.families(marks)
    np.testing.assert_array_equal(np.equal.outer(family, family), np.equal.outer(chain, chain))
