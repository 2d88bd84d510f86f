"""Who is bonded to whom: four rules that turn a crystal into a list of directed edges.

Each rule is a frozen dataclass with a `find` method, so that its settings can be stored, compared and named.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import MIN_DISTANCE, Crystal, CrystalError

_FAR = 4.0  # cells; files that wrap nothing hold -1 to 2


class Edges(NamedTuple):
    """Directed edges, sorted by receiver.

    Attributes:
      receivers: Atom i, i64[n_edge].
      senders: Its neighbour j, i64[n_edge]; several edges of one pair are different periodic images.
      distances: Å, f64[n_edge].
      weights: Bonds that each edge counts for, f64[n_edge]; None for one each.
      vectors: From i to j, Å, f64[n_edge, 3]; None where bonds are invented.
    """

    receivers: np.ndarray
    senders: np.ndarray
    distances: np.ndarray
    weights: np.ndarray | None = None
    vectors: np.ndarray | None = None

    def take(self, keep: np.ndarray) -> "Edges":
        weights, vectors = (None if column is None else column[keep] for column in (self.weights, self.vectors))
        return Edges(self.receivers[keep], self.senders[keep], self.distances[keep], weights, vectors)


class NeighborRule(Protocol):
    def find(self, crystal: Crystal) -> Edges:
        """Edges of the crystal. Raises CrystalError for overlapping atoms and for atoms without a neighbour."""
        ...


@dataclass(frozen=True)
class WholeShells:
    """The k nearest neighbours and every other one at the distance of the k-th.

    Cutting at exactly the k-th picks among equals by the order of the file; whole shells depend on the crystal alone,
    so supercells, primitive cells and any order of atoms have the same environments.

    Attributes:
      num_neighbors: k.
      cutoff: Largest distance in Å; an atom with fewer than k neighbours within it keeps those it has.
      tolerance: Distances closer than this count as one shell, Å.
      share_last: The shell of the k-th neighbour shares the places that the nearer ones leave: with r places for m
        equal neighbours, each counts for r/m. Every atom then has k bonds in all, and its sum of messages is the mean
        over all ways to cut at exactly k, which is what a network trained on exactly k expects.
    """

    num_neighbors: int = 12
    cutoff: float = 8.0
    tolerance: float = 1e-3
    share_last: bool = False

    def find(self, crystal: Crystal) -> Edges:
        n_atom = len(crystal.species)
        # A sphere for three times k at the mean density usually suffices, and its volume is what the search costs.
        volume_per_atom = abs(np.linalg.det(crystal.lattice)) / n_atom
        radius = min((3 * 3 * self.num_neighbors * volume_per_atom / (4 * np.pi)) ** (1 / 3), self.cutoff)
        while True:
            edges = _sorted(_within(crystal, radius))
            found = np.bincount(edges.receivers, minlength=n_atom)
            has_k = found >= self.num_neighbors
            kth = np.cumsum(found) - found + self.num_neighbors - 1
            last = np.full(n_atom, np.inf)
            last[has_k] = edges.distances[kth[has_k]]
            # The shell of the k-th neighbour must lie inside the sphere as a whole.
            if radius >= self.cutoff or (last + self.tolerance <= radius).all():
                break
            radius = min(1.3 * radius, self.cutoff)
        edges = edges.take(edges.distances <= (last + self.tolerance)[edges.receivers])
        if self.share_last:
            in_last = edges.distances >= (last - self.tolerance)[edges.receivers]
            m = np.bincount(edges.receivers, in_last, n_atom)
            r = self.num_neighbors - np.bincount(edges.receivers, ~in_last, n_atom)
            share = np.divide(r, m, out=np.ones(n_atom), where=m > 0)
            edges = edges._replace(weights=np.where(in_last, share[edges.receivers], 1.0))
        return _checked(crystal, edges, f"within {self.cutoff} Å")


@dataclass(frozen=True)
class NearestK:
    """Exactly k neighbours, ties in the order of the published code.

    The published code sorts pymatgen's neighbours within the cutoff by distance, stably, and takes the first k.

    Attributes:
      num_neighbors: k.
      cutoff: Largest distance in Å.
      published_padding: Where fewer than k lie within the cutoff, add bonds to atom 0 at cutoff + 1 Å, as the published
        code does, instead of refusing the crystal. For fidelity only: the bonds are invented.
    """

    num_neighbors: int = 12
    cutoff: float = 8.0
    published_padding: bool = False

    def find(self, crystal: Crystal) -> Edges:
        n_atom = len(crystal.species)
        edges = _sorted(_within(crystal, self.cutoff))
        start = np.searchsorted(edges.receivers, np.arange(n_atom))
        edges = edges.take(np.arange(len(edges.receivers)) - start[edges.receivers] < self.num_neighbors)
        missing = self.num_neighbors - np.bincount(edges.receivers, minlength=n_atom)
        if missing.any() and self.published_padding:
            lacking = np.repeat(np.arange(n_atom), missing)
            edges = _sorted(
                Edges(
                    np.concatenate([edges.receivers, lacking]),
                    np.concatenate([edges.senders, np.zeros_like(lacking)]),
                    np.concatenate([edges.distances, np.full(len(lacking), self.cutoff + 1.0)]),
                )
            )
        elif missing.any():
            site = int(missing.argmax())
            found = self.num_neighbors - int(missing[site])
            raise CrystalError(
                f"{crystal.id}: site {site} ({elements.symbol(crystal.species[site])}) has {found or 'no'} neighbour"
                f"{'' if found == 1 else 's'} within {self.cutoff} Å, not {self.num_neighbors}; raise graph.cutoff and "
                "bonds.cutoff, take whole "
                "shells (graph.neighbors=shells), or leave the crystal out (data.on_error=skip)"
            )
        return _checked(crystal, edges, f"within {self.cutoff} Å")


@dataclass(frozen=True)
class Radius:
    """Every neighbour within the cutoff (Å)."""

    cutoff: float = 5.0

    def find(self, crystal: Crystal) -> Edges:
        edges = _sorted(_within(crystal, self.cutoff))
        return _checked(crystal, edges, f"within {self.cutoff} Å")


@dataclass(frozen=True)
class VoronoiBonds:
    """The paper's rule: within the cutoff, sharing a Voronoi face, closer than the covalent radii + a tolerance.

    d_ij < r_i + r_j + tolerance, with the covalent radii of Cordero et al. (2008).

    Source: supplement of Xie & Grossman (2018), after Isayev et al. (2017); the released code does not have it.

    Attributes:
      cutoff: Å, 6 in the paper.
      tolerance: Å, 0.25 in the paper.
      min_face: Smallest face, as a share of the cell's surface. Cells that touch along an edge share a face of zero
        area, which arithmetic may make 1e-16.
    """

    cutoff: float = 6.0
    tolerance: float = 0.25
    min_face: float = field(default=1e-4)

    def find(self, crystal: Crystal) -> Edges:
        radius = elements.covalent_radii()[crystal.species]
        if (unknown := np.flatnonzero(np.isnan(radius))).size:
            site = int(unknown[0])
            raise CrystalError(
                f"{crystal.id}: site {site} ({elements.symbol(crystal.species[site])}) has no covalent radius in Cordero's "
                "table, which the Voronoi rule needs (Bk and heavier); choose another graph.neighbors, or leave the crystal "
                "out (data.on_error=skip)"
            )
        edges = _sorted(_within(crystal, self.cutoff))
        _check_apart(crystal, edges)  # Qhull has no cell for one of two atoms in one place
        bound = radius[edges.receivers] + radius[edges.senders] + self.tolerance
        near = edges.distances < bound
        faces = [self._has_face(crystal, site, edges) for site in range(len(crystal.species)) if near.size]
        keep = near & np.concatenate(faces) if faces else near
        return _checked(crystal, edges.take(keep), "by the Voronoi rule", "graph.bond_tolerance")

    def _has_face(self, crystal: Crystal, site: int, edges: Edges) -> np.ndarray:
        """Whether each edge of `site` (in the order of `edges`) crosses a face of its Voronoi cell."""
        from scipy.spatial import ConvexHull, Voronoi

        center = _near(crystal)[site] @ crystal.lattice
        radius = self.cutoff
        while True:
            senders, points, distances = _points(crystal, center, radius)
            # All images of a small sphere may lie in one plane; Qhull needs five points in general position.
            cell = Voronoi(points - center) if len(points) > 4 and np.linalg.matrix_rank(points - center) == 3 else None
            region = cell.regions[cell.point_region[0]] if cell is not None else [-1]
            if -1 not in region:
                assert cell is not None
                needed = 2 * np.linalg.norm(cell.vertices[region], axis=1).max()
                # An atom farther away than twice the farthest corner cannot cut the cell.
                if needed <= radius:
                    break
                # In steps: while the sphere is small, a far corner may be that of a cell not yet cut.
                radius = min(1.01 * needed, 1.5 * radius)
            else:
                radius *= 1.5
            if radius > 100:
                raise CrystalError(f"{crystal.id}: the Voronoi cell of site {site} is larger than 100 Å")
        area = {}
        for pair, corners in cell.ridge_dict.items():
            if 0 in pair:
                neighbor = max(pair)
                axis = points[neighbor] - center
                polygon = cell.vertices[corners]
                plane = np.linalg.svd(axis[None])[2][1:]
                try:
                    area[neighbor] = ConvexHull(polygon @ plane.T).volume
                except Exception:  # Qhull refuses a face without area
                    area[neighbor] = 0.0
        total = sum(area.values())
        faces = sorted(
            (senders[neighbor], distances[neighbor]) for neighbor, a in area.items() if a > self.min_face * total
        )
        mine = edges.receivers == site
        # An image is told by sender and distance: two images of one atom at one distance have faces alike only by
        # symmetry, so each is looked up by its own count.
        return _match(edges.senders[mine], edges.distances[mine], faces)


def _match(senders: np.ndarray, distances: np.ndarray, faces: list[tuple[int, float]]) -> np.ndarray:
    """Marks for every (sender, distance) as many edges as there are faces of that kind."""
    left = list(faces)
    found = np.zeros(len(senders), dtype=bool)
    for edge, (sender, distance) in enumerate(zip(senders, distances, strict=True)):
        for place, (other, length) in enumerate(left):
            if other == sender and abs(length - distance) < 1e-6:
                found[edge] = True
                del left[place]
                break
    return found


def _near(crystal: Crystal) -> np.ndarray:
    """Fractional coordinates, those many cells away moved by whole cells: the search goes through all cells between."""
    coords = crystal.frac_coords
    return np.where(np.abs(coords) > _FAR, coords - np.floor(coords), coords)


def _points(crystal: Crystal, center: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms around a site, the site first: index, Cartesian position, distance."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    coords = np.ascontiguousarray(_near(crystal) @ crystal.lattice)
    _, index, images, distances = find_points_in_spheres(
        coords,
        np.ascontiguousarray(center[None]),
        r=radius,
        pbc=np.ones(3, np.int64),
        lattice=crystal.lattice,
        tol=1e-8,
    )
    order = np.argsort(distances, kind="stable")
    return index[order], coords[index[order]] + images[order] @ crystal.lattice, distances[order]


def _within(crystal: Crystal, radius: float) -> Edges:
    """All pairs within the radius, without an atom and itself, in pymatgen's order."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    # Row by row as pymatgen does: one matrix product rounds otherwise, and in one of ten crystals ties fall otherwise.
    coords = np.array([row @ crystal.lattice for row in _near(crystal)])
    receivers, senders, images, distances = find_points_in_spheres(
        coords, coords, r=float(radius), pbc=np.ones(3, np.int64), lattice=crystal.lattice, tol=1e-8
    )
    itself = (receivers == senders) & (distances <= 1e-8)
    vectors = coords[senders] + images @ crystal.lattice - coords[receivers]
    return Edges(receivers, senders, distances, vectors=vectors).take(~itself)


def _sorted(edges: Edges) -> Edges:
    """By receiver, then distance; equal distances keep their order."""
    return edges.take(np.lexsort((edges.distances, edges.receivers)))


def _check_apart(crystal: Crystal, edges: Edges) -> None:
    """Raises CrystalError for overlapping atoms."""
    if len(edges.distances) and edges.distances.min() < MIN_DISTANCE:
        edge = int(np.argmin(edges.distances))
        i, j = int(edges.receivers[edge]), int(edges.senders[edge])
        raise CrystalError(
            f"{crystal.id}: sites {i} ({elements.symbol(crystal.species[i])}) and {j} "
            f"({elements.symbol(crystal.species[j])}) overlap, {edges.distances[edge]:.3f} Å apart; "
            f"atoms must be at least {MIN_DISTANCE} Å apart"
        )


def _checked(crystal: Crystal, edges: Edges, where: str, remedy: str = "graph.cutoff and bonds.cutoff") -> Edges:
    """Raises CrystalError for overlapping atoms and atoms without a neighbour `where`; the remedy is to raise fields."""
    _check_apart(crystal, edges)
    lonely = np.flatnonzero(np.bincount(edges.receivers, minlength=len(crystal.species)) == 0)
    if len(lonely):
        site = int(lonely[0])
        raise CrystalError(
            f"{crystal.id}: site {site} ({elements.symbol(crystal.species[site])}) has no neighbour {where} (a gas, or "
            f"a molecule in a box?); in training, raise {remedy} or leave the crystal out (data.on_error=skip)"
        )
    return edges
