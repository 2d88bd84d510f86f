"""Neighbours by hand, by brute force and by pymatgen; and what each rule does not depend on."""

import functools
import itertools
from collections import Counter

import numpy as np
import pytest
from pymatgen.analysis.local_env import VoronoiNN
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import Crystal, CrystalError
from cgcnn_jax.data.neighbors import Edges, NearestK, Radius, VoronoiBonds, WholeShells

ARGON = Crystal.from_arrays("Ar", 20 * np.eye(3), ["Ar"], [[0.5, 0.5, 0.5]])


def shells_of(edges: Edges, site: int) -> list[tuple[float, int]]:
    """(distance, count) of a site, distances to 0.001 Å."""
    return sorted(Counter(np.round(edges.distances[edges.receivers == site], 3).tolist()).items())


def environments(crystal: Crystal, edges: Edges) -> Counter:
    """Multiset of atoms, each its species and the sorted species and distances of its neighbours."""
    return Counter(
        (int(z), *sorted(zip(crystal.species[edges.senders[mine]].tolist(), distances[mine].tolist(), strict=True)))
        for z, mine, distances in (
            (z, edges.receivers == site, np.round(edges.distances, 3)) for site, z in enumerate(crystal.species)
        )
    )


def sorted_bonds(crystal: Crystal, edges: Edges) -> np.ndarray:
    """Rows of (species i, species j, distance), sorted."""
    rows = np.stack([crystal.species[edges.receivers], crystal.species[edges.senders], edges.distances], axis=1)
    return rows[np.lexsort(rows.T[::-1])]


def per_atom(counts: Counter) -> dict:
    total = sum(counts.values())
    return {key: count / total for key, count in counts.items()}


def brute_force(crystal: Crystal, radius: float) -> Edges:
    """All pairs within the radius, from a box of images larger than the radius."""
    heights = abs(np.linalg.det(crystal.lattice)) / np.linalg.norm(
        np.cross(np.roll(crystal.lattice, -1, 0), np.roll(crystal.lattice, -2, 0)), axis=1
    )
    spread = np.ptp(crystal.frac_coords, axis=0)
    reach = np.ceil(radius / heights + spread).astype(int)
    images = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    edges = []
    for i, j in itertools.product(range(len(crystal.species)), repeat=2):
        shift = (crystal.frac_coords[j] + images - crystal.frac_coords[i]) @ crystal.lattice
        distances = np.linalg.norm(shift, axis=1)
        keep = (distances <= radius) & ~((i == j) & ~images.any(axis=1))
        edges += [(i, j, d) for d in distances[keep]]
    i, j, d = zip(*sorted(edges, key=lambda edge: (edge[0], edge[2])), strict=True)
    return Edges(np.array(i), np.array(j), np.array(d))


def assert_same_bonds(a: Edges, b: Edges) -> None:
    """The same multiset of (i, j, distance)."""
    orders = [np.lexsort((np.round(e.distances, 6), e.senders, e.receivers)) for e in (a, b)]
    a, b = a.take(orders[0]), b.take(orders[1])
    np.testing.assert_array_equal(a.receivers, b.receivers)
    np.testing.assert_array_equal(a.senders, b.senders)
    np.testing.assert_allclose(a.distances, b.distances, atol=1e-6)


# ---- Textbook crystals ----


def test_rock_salt_has_6_unlike_and_12_like_neighbours(rock_salt):
    edges = WholeShells(12).find(rock_salt)
    for site in range(8):
        assert shells_of(edges, site) == [(2.82, 6), (3.988, 12)]  # a / 2 and a / sqrt(2)
    is_like = rock_salt.species[edges.senders] == rock_salt.species[edges.receivers]
    np.testing.assert_array_equal(is_like, edges.distances > 3)
    assert shells_of(WholeShells(6).find(rock_salt), 0) == [(2.82, 6)]
    assert shells_of(WholeShells(1).find(rock_salt), 0) == [(2.82, 6)]


@pytest.mark.parametrize(
    ("name", "k", "expected"),
    [
        ("cesium_chloride", 8, [(3.568, 8)]),
        ("cesium_chloride", 9, [(3.568, 8), (4.12, 6)]),
        ("copper", 12, [(2.556, 12)]),
        ("diamond", 4, [(1.545, 4)]),
        ("diamond", 12, [(1.545, 4), (2.522, 12)]),
    ],
)
def test_whole_shells_of_prototypes(request, name, k, expected):
    assert shells_of(WholeShells(k).find(request.getfixturevalue(name)), 0) == expected


@pytest.mark.parametrize("rule", [WholeShells(12), NearestK(12), Radius(4.5), VoronoiBonds()], ids=lambda r: repr(r))
def test_edges_come_sorted_by_receiver_then_distance(phonons, rule):
    for crystal in phonons[:10]:
        edges = rule.find(crystal)
        order = np.lexsort((edges.distances, edges.receivers))
        np.testing.assert_array_equal(order, np.arange(len(order)))


# ---- Brute force ----


def test_radius_is_all_pairs_of_a_brute_force_search(random_crystals):
    for crystal in random_crystals:
        assert_same_bonds(Radius(4.0).find(crystal), brute_force(crystal, 4.0))


@pytest.mark.parametrize("k", [1, 5, 12])
def test_whole_shells_are_the_k_nearest_and_their_equals_of_a_brute_force_search(random_crystals, k):
    for crystal in random_crystals:
        every = brute_force(crystal, 8.0)
        keep = np.zeros(len(every.distances), bool)
        for site in range(len(crystal.species)):
            mine = np.flatnonzero(every.receivers == site)
            keep[mine[every.distances[mine] <= every.distances[mine[k - 1]] + 1e-3]] = True
        assert_same_bonds(WholeShells(k).find(crystal), every.take(keep))


def test_real_crystals_keep_12_or_more_and_cut_no_shell(phonons):
    for crystal in phonons[:40]:
        edges, every = WholeShells(12).find(crystal), Radius(8.0).find(crystal)
        for site in range(len(crystal.species)):
            mine = edges.distances[edges.receivers == site]
            others = every.distances[every.receivers == site][len(mine) :]
            assert len(mine) >= 12
            assert others.min() > mine[11] + 1e-3
            np.testing.assert_array_equal(mine, every.distances[every.receivers == site][: len(mine)])


# ---- What whole shells do not depend on ----


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def permuted(c: Crystal) -> Crystal:
    order = np.random.default_rng(1).permutation(len(c.species))
    return Crystal.from_arrays(c.id, c.lattice, c.species[order], c.frac_coords[order])


def rotated(c: Crystal) -> Crystal:
    return Crystal.from_arrays(c.id, c.lattice @ rotation(0), c.species, c.frac_coords)


def translated(c: Crystal) -> Crystal:
    return Crystal.from_arrays(c.id, c.lattice, c.species, c.frac_coords + [0.123, 0.77, -2.31])


def supercell(c: Crystal, scale: tuple[int, int, int]) -> Crystal:
    return Crystal.from_structure(c.id, c.to_structure().make_supercell(scale, in_place=False))


def sheared(c: Crystal) -> Crystal:
    """Another cell of the same lattice."""
    basis = np.array([[1, 0, 0], [1, 1, 0], [-1, 2, 1]])
    return Crystal.from_arrays(c.id, basis @ c.lattice, c.species, c.frac_coords @ np.linalg.inv(basis))


CHANGES = {
    "permuted": permuted,
    "rotated": rotated,
    "translated": translated,
    "sheared": sheared,
    "2x1x1": functools.partial(supercell, scale=(2, 1, 1)),
    "2x2x2": functools.partial(supercell, scale=(2, 2, 2)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whole_shells_are_the_same_environments_in_any_description(random_crystals, phonons, rock_salt, change):
    rule = WholeShells(12)
    for crystal in [rock_salt, *random_crystals[:6], *phonons[:10]]:
        other = change(crystal)
        before, after = sorted_bonds(crystal, rule.find(crystal)), sorted_bonds(other, rule.find(other))
        n_copy = len(other.species) // len(crystal.species)
        np.testing.assert_allclose(after, np.repeat(before, n_copy, axis=0), atol=1e-9, err_msg=crystal.id)


def test_primitive_and_conventional_cells_have_the_same_environments(rock_salt, diamond):
    for crystal in (rock_salt, diamond):
        analyzer = SpacegroupAnalyzer(crystal.to_structure())
        found = [
            per_atom(environments(cell, WholeShells(12).find(cell)))
            for cell in (
                Crystal.from_structure("p", analyzer.get_primitive_standard_structure()),
                Crystal.from_structure("c", analyzer.get_conventional_standard_structure()),
            )
        ]
        assert found[0] == found[1]


def test_a_transposed_lattice_is_searched_too(random_crystals):
    c = random_crystals[0]
    fortran = Crystal.from_arrays("f", np.asfortranarray(c.lattice), c.species, np.asfortranarray(c.frac_coords))
    assert_same_bonds(WholeShells().find(fortran), WholeShells().find(c))


# ---- Exactly k ----


def published(structure: Structure, k: int, cutoff: float) -> list[tuple[list[int], list[float]]]:
    """The published code: pymatgen's neighbours, sorted by distance, the first k (cgcnn/data.py of txie-93/cgcnn)."""
    every = [sorted(n, key=lambda x: x[1]) for n in structure.get_all_neighbors(cutoff)]
    return [([n.index for n in one[:k]], [n.nn_distance for n in one[:k]]) for one in every]


def test_nearest_k_is_the_published_rule_with_its_ties(phonons, rock_salt, random_crystals):
    n_tie = 0
    for crystal in [rock_salt, *random_crystals, *phonons]:
        edges = NearestK(12).find(crystal)
        for site, (senders, distances) in enumerate(published(crystal.to_structure(), 12, 8.0)):
            np.testing.assert_array_equal(edges.senders[edges.receivers == site], senders)
            np.testing.assert_array_equal(edges.distances[edges.receivers == site], distances)
        n_tie += len(WholeShells(12).find(crystal).distances) > len(edges.distances)
    assert n_tie > 100  # ties there were


def test_nearest_k_takes_exactly_k(phonons):
    for k in (1, 7, 12):
        for crystal in phonons[:10]:
            counts = np.bincount(NearestK(k).find(crystal).receivers)
            np.testing.assert_array_equal(counts, np.full(len(crystal.species), k))


@pytest.fixture
def sparse() -> Crystal:
    """An H2 molecule in a box: one neighbour within 8 Å at 0.74 Å."""
    return Crystal.from_arrays("H2", 20 * np.eye(3), ["H", "H"], [[0, 0, 0], [0.037, 0, 0]])


@pytest.mark.parametrize("rule", [WholeShells(12), Radius(8.0)], ids=repr)
def test_few_neighbours_are_kept_as_they_are(sparse, rule):
    edges = rule.find(sparse)
    np.testing.assert_array_equal(edges.receivers, [0, 1])
    np.testing.assert_array_equal(edges.senders, [1, 0])
    np.testing.assert_allclose(edges.distances, 0.74, rtol=1e-12)


def test_equals_of_the_last_neighbour_share_its_places(rock_salt):
    # 12 places: 6 for the nearest, 6 left for 12 equals, one half each.
    edges = WholeShells(12, share_last=True).find(rock_salt)
    for site in range(8):
        mine = edges.take(edges.receivers == site)
        np.testing.assert_array_equal(mine.weights, [1.0] * 6 + [0.5] * 12)
    # With 18 places every one of them has its own.
    assert (WholeShells(18, share_last=True).find(rock_salt).weights == 1).all()


def test_shared_places_add_up_to_k_and_change_nothing_without_ties(phonons):
    for crystal in phonons[:40]:
        shared, whole = WholeShells(12, share_last=True).find(crystal), WholeShells(12).find(crystal)
        np.testing.assert_array_equal(shared.distances, whole.distances)
        np.testing.assert_allclose(np.bincount(shared.receivers, shared.weights), 12, rtol=1e-12)
        is_exact = np.bincount(whole.receivers) == 12
        assert (shared.weights[is_exact[shared.receivers]] == 1).all()


def test_exactly_k_refuses_an_atom_with_fewer(sparse):
    with pytest.raises(CrystalError, match=r"H2: site 0 \(H\) has 1 neighbour within 8.0 Å, not 3; raise graph.cutoff"):
        NearestK(3, cutoff=8.0).find(sparse)


def test_published_padding_invents_bonds_to_atom_0_beyond_the_cutoff(sparse):
    edges = NearestK(3, cutoff=8.0, published_padding=True).find(sparse)
    np.testing.assert_array_equal(edges.receivers, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(edges.senders, [1, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(edges.distances, [0.74, 9, 9, 0.74, 9, 9], rtol=1e-12)


def test_published_padding_changes_nothing_where_k_are_found(phonons):
    for crystal in phonons[:5]:
        for a, b in zip(NearestK(12).find(crystal), NearestK(12, published_padding=True).find(crystal), strict=True):
            np.testing.assert_array_equal(a, b)


# ---- Voronoi ----


def test_voronoi_neighbours_of_prototypes(rock_salt, copper, diamond):
    assert shells_of(VoronoiBonds().find(rock_salt), 0) == [(2.82, 6)]
    assert shells_of(VoronoiBonds().find(copper), 0) == [(2.556, 12)]
    assert shells_of(VoronoiBonds().find(diamond), 1) == [(1.545, 4)]


def test_each_condition_of_the_voronoi_rule_matters():
    # CsCl structure, a = 3.63 Å. Unlike atoms touch at 3.144 Å < r_K + r_Cl + 0.25 = 3.30. Like ones at 3.63 Å share a
    # (square) face of the truncated octahedron; K-K passes the radii (4.31 Å), Cl-Cl does not (2.29 Å).
    potassium_chloride = Crystal.from_arrays("KCl", 3.63 * np.eye(3), ["K", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    edges = VoronoiBonds().find(potassium_chloride)
    assert shells_of(edges, 0) == [(3.144, 8), (3.63, 6)]
    assert shells_of(edges, 1) == [(3.144, 8)]
    # A face of 6 squares of side a sqrt(2)/4 is 6 a^2/8 of a surface of (3/4 + 3 sqrt(3)/2) a^2: 3.7 % each.
    assert shells_of(VoronoiBonds(min_face=0.04).find(potassium_chloride), 0) == [(3.144, 8)]
    assert shells_of(VoronoiBonds(min_face=0.035).find(potassium_chloride), 0) == [(3.144, 8), (3.63, 6)]
    assert shells_of(VoronoiBonds(cutoff=3.5).find(potassium_chloride), 0) == [(3.144, 8)]
    with pytest.raises(CrystalError, match=r"by the Voronoi rule .* raise graph\.bond_tolerance"):
        VoronoiBonds(tolerance=0.05).find(potassium_chloride)


def test_voronoi_bonds_are_those_of_pymatgens_tessellation(phonons, random_crystals):
    rule = VoronoiBonds()
    radii = elements.covalent_radii()
    crystals = [c for c in phonons if len(c.species) <= 6][:8] + random_crystals[:6]
    for crystal in crystals:
        structure = crystal.to_structure()
        expected = []
        for site in range(len(crystal.species)):
            faces = VoronoiNN(cutoff=13, allow_pathological=True).get_voronoi_polyhedra(structure, site)
            total = sum(face["area"] for face in faces.values())
            for face in faces.values():
                j, d = face["site"].index, 2 * face["face_dist"]
                bound = radii[crystal.species[site]] + radii[crystal.species[j]] + 0.25
                if d < min(bound, 6.0) and face["area"] > 1e-4 * total:
                    expected.append((site, j, d))
        if len({i for i, _, _ in expected}) < len(crystal.species):
            with pytest.raises(CrystalError, match="by the Voronoi rule"):
                rule.find(crystal)
        else:
            i, j, d = (np.array(column) for column in zip(*expected, strict=True))
            assert_same_bonds(rule.find(crystal), Edges(i, j, d))


# ---- What is refused ----


RULES = [WholeShells(), NearestK(), Radius(), VoronoiBonds()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("x", [0.0, 1e-6, 0.1])
def test_overlapping_atoms_are_refused(rule, x):
    crystal = Crystal.from_arrays("bad", 4 * np.eye(3), ["Na", "Cl", "O"], [[0.5, 0.5, 0], [0, 0, 0], [x, 0, 0]])
    with pytest.raises(CrystalError, match=rf"bad: sites 1 \(Cl\) and 2 \(O\) overlap, {4 * x:.3f} Å apart"):
        rule.find(crystal)


def test_an_atom_too_close_to_its_own_image_is_refused():
    flat = Crystal.from_arrays("flat", np.diag([0.4, 4, 4]), ["Na"], [[0, 0, 0]])
    with pytest.raises(CrystalError, match=r"flat: sites 0 \(Na\) and 0 \(Na\) overlap, 0.400 Å apart"):
        WholeShells().find(flat)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            WholeShells(),
            r"within 8\.0 Å \(a gas, .*\); in training, raise graph\.cutoff and bonds\.cutoff or leave the crystal",
        ),
        (
            NearestK(),
            "within 8.0 Å, not 12; raise graph.cutoff and bonds.cutoff, take whole shells .* or leave the crystal out",
        ),
        (
            Radius(),
            r"within 5\.0 Å \(a gas, .*\); in training, raise graph\.cutoff and bonds\.cutoff or leave the crystal",
        ),
        (
            VoronoiBonds(),
            r"by the Voronoi rule \(a gas, .*\); in training, raise graph\.bond_tolerance or leave the crystal",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_isolated_atom_is_refused(rule, message):
    with pytest.raises(CrystalError, match=rf"Ar: site 0 \(Ar\) has no neighbours? {message}"):
        rule.find(ARGON)


def test_an_element_without_a_covalent_radius_has_no_voronoi_bonds():
    # Cordero's table ends at Cm.
    heavy = Crystal.from_arrays("heavy", 3 * np.eye(3), ["Cm", "Bk"], [[0, 0, 0], [0.5] * 3])
    with pytest.raises(
        CrystalError, match=r"heavy: site 1 \(Bk\) has no covalent radius .* choose another graph.neighbors"
    ):
        VoronoiBonds().find(heavy)
    WholeShells().find(heavy)


def test_a_wide_enough_cutoff_reaches_the_next_image():
    assert shells_of(WholeShells(12, cutoff=21.0).find(ARGON), 0) == [(20.0, 6)]


@pytest.mark.parametrize("rule", [WholeShells(), NearestK(), Radius(5.0), VoronoiBonds()])
def test_a_site_many_cells_away_has_the_neighbours_of_its_image_and_takes_no_longer(rule):
    near = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    # pymatgen's search goes through all cells between two sites: with these, for hours.
    far = near + [[0, 0, 0], [-3e4, 5e4, 123_456]]
    one, other = (Crystal.from_arrays("a", 3.2 * np.eye(3), ["Na", "Cl"], coords) for coords in (near, far))
    bonds = [sorted_bonds(crystal, rule.find(crystal)) for crystal in (one, other)]
    assert len(bonds[0]) > 10
    np.testing.assert_allclose(bonds[1], bonds[0], atol=1e-9)
