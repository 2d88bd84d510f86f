"""Synthetic crystals without end: prototypes of 2 to 10 atoms, substituted, strained and displaced, no two alike.

Drawn from a seed one at a time, so that a million of them take no memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import Crystal

LABEL = "electron_density"
UNIT = "electrons/Å³"
_FACE_CENTERED = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
# Lithium to bismuth, without the noble gases and what no stable isotope has.
ELEMENTS = np.array([z for z in range(3, 84) if z not in (10, 18, 36, 43, 54, 61)])
_STRAIN = 0.03  # standard deviation of each component
_DISPLACEMENT = 0.03  # Å, of each coordinate


@dataclass(frozen=True)
class Prototype:
    """A structure whose sites wait for elements.

    Attributes:
      name: As crystallographers call it.
      lattice: Rows are the lattice vectors, of any length, f64[3, 3].
      frac_coords: Of the sites, f64[n_atom, 3].
      letters: Sites of one letter get one element, i64[n_atom].
    """

    name: str
    lattice: np.ndarray
    frac_coords: np.ndarray
    letters: np.ndarray

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sites i and j, and the distance of j's nearest image from i (of another image, if i is j)."""
        images = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3)
        first, second = np.triu_indices(len(self.letters))
        between = self.frac_coords[second] - self.frac_coords[first]
        lengths = np.linalg.norm((between[:, None] + images) @ self.lattice, axis=2)
        return first, second, np.where(lengths < 1e-6, np.inf, lengths).min(axis=1)


def _prototype(name: str, lattice: object, frac_coords: list[list[float]], letters: str) -> Prototype:
    return Prototype(
        name, np.array(lattice, float), np.array(frac_coords), np.array([ord(c) - ord("A") for c in letters])
    )


_THIRD = 1 / 3
_PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
PROTOTYPES = (
    _prototype("CsCl", np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], "AB"),
    _prototype("rock salt", _FACE_CENTERED, [[0, 0, 0], [0.5, 0.5, 0.5]], "AB"),
    _prototype("zinc blende", _FACE_CENTERED, [[0, 0, 0], [0.25, 0.25, 0.25]], "AB"),
    _prototype("fluorite", _FACE_CENTERED, [[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]], "ABB"),
    _prototype("Cu3Au", np.eye(3), [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], "ABBB"),
    _prototype(
        "wurtzite",
        [[1, 0, 0], [-0.5, 3**0.5 / 2, 0], [0, 0, 1.633]],
        [[_THIRD, 2 * _THIRD, 0], [2 * _THIRD, _THIRD, 0.5], [_THIRD, 2 * _THIRD, 0.375], [2 * _THIRD, _THIRD, 0.875]],
        "AABB",
    ),
    _prototype("perovskite", np.eye(3), _PEROVSKITE, "ABCCC"),
    _prototype(
        "rutile",
        np.diag([1, 1, 0.644]),
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.305, 0.305, 0], [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]],
        "AABBBB",
    ),
    _prototype(
        "elpasolite",
        _FACE_CENTERED,
        [
            *([0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]),
            *([0.25, 0.75, 0.75], [0.75, 0.25, 0.75], [0.75, 0.75, 0.25]),
            *([0.75, 0.25, 0.25], [0.25, 0.75, 0.25], [0.25, 0.25, 0.75]),
        ],
        "ABCCDDDDDD",
    ),
)


def crystals(seed: int = 0, split: str | None = None) -> Iterator[Crystal]:
    """Crystals s0, s1, ... without end; the same seed gives the same ones.

    Each is a prototype drawn with equal chance, elements drawn for its letters, a cell so large that the closest atoms
    touch by their covalent radii, then a strain of 3 % and displacements of 0.03 Å (standard deviations). Its label is
    the density of electrons, sum of Z over the volume of the cell, in electrons/Å³.

    Args:
      seed: Names the sequence.
      split: That of all crystals.
    """
    rng = np.random.default_rng(seed)
    radii = elements.covalent_radii()
    number = 0
    while True:
        one = PROTOTYPES[rng.integers(len(PROTOTYPES))]
        species = rng.choice(ELEMENTS, one.letters.max() + 1, replace=False)[one.letters]
        first, second, lengths = one.pairs
        scale = ((radii[species[first]] + radii[species[second]]) / lengths).max()
        lattice = scale * one.lattice @ (np.eye(3) + _STRAIN * rng.standard_normal((3, 3)))
        moved = _DISPLACEMENT * rng.standard_normal(one.frac_coords.shape) @ np.linalg.inv(lattice)
        label = species.sum() / abs(np.linalg.det(lattice))
        yield Crystal(
            f"s{number}", lattice, species.astype(np.int32), one.frac_coords + moved, {LABEL: float(label)}, split
        )
        number += 1


def split_crystals(sizes: tuple[int, int, int], seed: int = 0) -> Iterator[Crystal]:
    """So many crystals for train, val and test, marked so, one after another."""
    source = crystals(seed)
    for name, size in zip(("train", "val", "test"), sizes, strict=True):
        for _ in range(size):
            yield replace(next(source), split=name)
