"""Plain CIFs read with gemmi: exactly what pymatgen reads from them, ten times faster.

pymatgen is the judge. It mends and interprets a great deal, so a file counts as plain only if nothing in it is left to
interpretation: ordered atoms of known elements, explicit symmetry operations, all of the cell, no text on which the two
tokenizers could part. Of such a file the sites, their order and their coordinates are pymatgen's, to the last bit:
neighbours at equal distances are taken in that order. Everything else is left to pymatgen.
"""

import functools
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import MAX_ATOMS, MAX_BYTES
from cgcnn_jax.data.sources import stated

# pymatgen's order of sites: Pauling electronegativity in its table (elements.csv has revised ones), then the symbol.
# He, Ne and Ar have none and no place; files with them are not plain.
_ORDER = """
Fr Cs K Rb Ba Ra Na Sr Li Ca Ac La Tb Yb Ce Pm Pr Nd Sm Eu Gd Dy Y Ho Er Tm Lu Pu Am Bk Cf Cm Es Fm Hf Lr Md No Th Mg
Zr Np Sc U Pa Ta Ti Mn Be Nb Al Tl V Zn Cr Cd In Ga Fe Co Cu Re Si Tc Ni Ag Sn Hg Po Ge Bi B Sb Te Mo As P At H Ir Os
Pd Rn Ru Pt Rh Pb W Au C Se S Xe I Br Kr N Cl O F
"""
_RANK = {elements.atomic_number(symbol): rank for rank, symbol in enumerate(_ORDER.split())}

# pymatgen's site_tolerance and frac_tolerance.
_SAME_SITE = 1e-4
_SNAP = 1e-4
# Sites that are compared each with each; of more, scipy's import is the lesser part.
_FEW = 2000

_PLAIN_BYTES = bytes([*b"\t\n", *range(0x20, 0x7F)])
# Where the two tokenizers part: "#" behind a quote or a semicolon, ";" behind a closing ";", and "loop_" with more to it.
_ODD_TEXT = re.compile(rb"['\"][^\n]*#|\n;[^\n]*#|\n;[ \t]+;|loop_\S")
_ODD_WORDS = (b"save_", b"stop_", b"global_", b"_eof", b"powder_pattern", b"_magn", b"_moment", b"modulat")
_HEADER = re.compile(rb"^\s*data_", re.MULTILINE)

_UNCERTAINTY = re.compile(r"\(\d+\)$")
_SYMBOL = re.compile(r"([A-Z][a-z]?)[\d.]*[+-]?")  # Fe, Fe1, O2-, Fe2.5+
_PART = r"[1-9]\d?/(?:2|3|4|6|8|12|24)"  # what gemmi holds exactly
_TERM = rf"[+-]?[xyz](?:[+-][xyz])?(?:[+-]{_PART})?|[+-]?{_PART}[+-][xyz](?:[+-][xyz])?"
_OPERATION = re.compile(rf"(?:{_TERM}),(?:{_TERM}),(?:{_TERM})")


class Unusual(ValueError):
    """A CIF that is not plain, and why; not an error of the file."""


class Sites(NamedTuple):
    """Lattice vectors in Å, f64[3, 3]; atomic numbers, int[n_atom]; fractional coordinates, f64[n_atom, 3]."""

    lattice: np.ndarray
    species: np.ndarray
    frac_coords: np.ndarray


def read_plain(path: Path) -> Sites | None:
    """What pymatgen reads from a plain CIF; None, which means ask pymatgen, for any other file and without gemmi."""
    if path.suffix.lower() != ".cif" or not has_gemmi():
        return None
    try:
        return parse_plain(path.read_bytes()) if path.stat().st_size <= MAX_BYTES else None
    except (FileNotFoundError, PermissionError, Unusual):
        return None


def parse_plain(data: bytes) -> Sites:
    """Parses the content of a plain CIF. Raises Unusual for any other, ImportError without gemmi."""
    tags = _Tags(data)
    lattice = _lattice(tags)
    operations = _operations(tags)
    species, coords = _atoms(tags)
    _require(len(operations) * len(coords) <= 2 * MAX_ATOMS, "very many atoms")
    index, images = _expand(operations, coords)
    _check_formula(tags, species[index])
    order = np.argsort([_RANK[number] for number in species[index]], kind="stable")
    return Sites(lattice, species[index][order], images[order])


@functools.cache
def has_gemmi() -> bool:
    """Whether plain CIFs are read fast."""
    try:
        import gemmi  # noqa: F401
    except ImportError:
        return False
    return True


def _require(plain: bool, otherwise: str) -> None:
    if not plain:
        raise Unusual(otherwise)


class _Tags:
    """The one block of a CIF: single values, and columns of loops."""

    def __init__(self, data: bytes) -> None:
        from gemmi import cif

        data = data.replace(b"\r\n", b"\n")
        _require(not data.translate(None, _PLAIN_BYTES), "a character beyond printable ASCII")
        lower = data.lower()
        odd = [word for word in _ODD_WORDS if word in lower]
        _require(not odd and not _ODD_TEXT.search(data), f"text that pymatgen takes in its own way {odd or ''}")
        _require(all(lower.count(word) == data.count(word) for word in (b"data_", b"loop_")), "a keyword in capitals")
        _require(len(_HEADER.findall(data)) == 1, "not one data block")
        try:
            document: Any = cif.read_string(data)
        except (ValueError, RuntimeError) as error:
            raise Unusual(f"gemmi: {error}") from error
        _require(len(document) == 1, "not one data block")
        self.values: dict[str, str] = {}
        self._loops: dict[str, Any] = {}
        for item in document[0]:
            if item.pair is not None:
                tag, value = item.pair
                self.values[tag] = value
            else:
                _require(item.loop is not None and item.loop.length() > 0, "an empty loop or a frame")
                self._loops.update(dict.fromkeys(item.loop.tags, item.loop))
        misspelt = [tag for tag in (*self.values, *self._loops) if stated.misspelt(tag)]
        _require(not misspelt, f"{misspelt} in another case")
        self._document = document  # owns the loops
        self._string = cif.as_string

    def __contains__(self, tag: str) -> bool:
        return tag in self.values or tag in self._loops

    def columns(self, *tags: str) -> dict[str, list[str]]:
        """Columns of the loop that has the first tag, without the absent. A tag that stands elsewhere is unusual."""
        _require(tags[0] in self._loops, f"no loop with {tags[0]}")
        loop = self._loops[tags[0]]
        names, cells = list(loop.tags), list(loop.values)
        strays = [tag for tag in tags if tag in self and tag not in names]
        _require(not strays, f"{strays} outside the loop of {tags[0]}")
        return {tag: cells[names.index(tag) :: len(names)] for tag in tags if tag in names}

    def texts(self, column: list[str]) -> list[str]:
        """The cells without their quotes."""
        return [self._string(cell) if cell[0] in "'\";" else cell for cell in column]


def _number(text: str) -> float:
    """0.25 and 0.25(3), which is 0.25."""
    try:
        value = float(text)
    except ValueError:
        try:
            value = float(_UNCERTAINTY.sub("", text))
        except ValueError:
            raise Unusual(f"{text!r} instead of a number") from None
    _require(math.isfinite(value) and "_" not in text, f"{text!r} instead of a number")
    return value


def _lattice(tags: _Tags) -> np.ndarray:
    """pymatgen's orientation: c along z, a in the xz plane."""
    names = ["_cell_length_a", "_cell_length_b", "_cell_length_c"]
    names += ["_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"]
    _require(all(name in tags.values for name in names), "not six cell parameters")
    a, b, c, *angles = (_number(tags.values[name]) for name in names)
    is_usual = min(a, b, c) > 1e-3 and max(a, b, c) < 1e5 and min(angles) > 5 and max(angles) < 175
    _require(is_usual, "odd cell parameters")
    radians = np.radians(angles)
    cos_alpha, cos_beta, cos_gamma = np.cos(radians)
    sin_alpha, sin_beta, _ = np.sin(radians)
    cos_gamma_star = (cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)
    _require(abs(cos_gamma_star) < 0.9999, "a flat cell")
    gamma_star = np.arccos(cos_gamma_star)
    lattice = np.array(
        [
            [a * sin_beta, 0.0, a * cos_beta],
            [-b * sin_alpha * np.cos(gamma_star), b * sin_alpha * np.sin(gamma_star), b * cos_alpha],
            [0.0, 0.0, c],
        ]
    )
    # pymatgen refuses cells less than 0.01 Å thick; a column of the inverse is as long as the planes' distance is short.
    _require(bool(np.linalg.norm(np.linalg.inv(lattice), axis=0).max() < 50), "a thin cell")
    return lattice


def _operations(tags: _Tags) -> np.ndarray:
    """The symmetry operations as they act on (x, y, z, 1), f64[n_operation, 4, 4]."""
    tag = next((tag for tag in stated.OPERATIONS if tag in tags), "symmetry operations")
    operations = np.array([_operation(text) for text in tags.texts(tags.columns(tag)[tag])])
    _require(bool((operations == np.eye(4)).all((1, 2)).any()), "no identity among the symmetry operations")
    _require(stated.is_group(tuple(one.tobytes() for one in operations)), "symmetry operations that are no group")
    return operations


def _check_formula(tags: _Tags, species: np.ndarray) -> None:
    numbers, counts = np.unique(species, return_counts=True)
    found = {elements.symbol(int(number)): int(count) for number, count in zip(numbers, counts, strict=True)}
    formula, units = (
        tags.texts([tags.values.get(stated.as_spelt(tag, tags.values), "?")])[0]
        for tag in (stated.FORMULA, stated.UNITS)
    )
    try:
        stated.confirms(formula, units, found)
    except stated.Misread as error:
        raise Unusual(f"another formula: {error}") from error


@functools.lru_cache(maxsize=4096)
def _operation(text: str) -> np.ndarray:
    from gemmi import Op

    text = text.lower().replace(" ", "")
    _require(_OPERATION.fullmatch(text) is not None, f"the symmetry operation {text!r}")
    try:
        operation = Op(text)
    except (ValueError, RuntimeError) as error:
        raise Unusual(f"the symmetry operation {text!r}") from error
    # Divided here, as pymatgen does: its own floats are products with 1/24, and 5/6 is off by the last bit.
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(operation.rot) / operation.DEN
    matrix[:3, 3] = np.array(operation.tran) / operation.DEN
    # gemmi adds up what stands twice (x+x), pymatgen keeps the last.
    rows = [len(set(re.findall("[xyz]", row))) == len(re.findall("[xyz]", row)) for row in text.split(",")]
    _require(all(rows) and abs(round(np.linalg.det(matrix[:3, :3]), 6)) == 1, f"the symmetry operation {text!r}")
    return matrix


def _atoms(tags: _Tags) -> tuple[np.ndarray, np.ndarray]:
    """Species and coordinates as listed, before symmetry."""
    label, symbol, occupancy = "_atom_site_label", "_atom_site_type_symbol", "_atom_site_occupancy"
    axes = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
    hydrogens, state, typed = "_atom_site_attached_hydrogens", "_atom_type_oxidation_number", "_atom_type_symbol"
    sites = tags.columns(label, symbol, *axes, occupancy, hydrogens)
    _require(all(axis in sites for axis in axes), "no fractional coordinates")
    _require(all(_number(text) == 1 for text in set(sites.get(occupancy, ()))), "an occupancy other than 1")
    _require(set(sites.get(hydrogens, ())) <= {"0", "."}, "implicit hydrogens")
    names = tags.texts(sites.get(symbol, sites[label]))
    species = {name: _species(name) for name in set(names)}
    if state in tags and typed in tags:
        # pymatgen sorts by oxidation state within an element, and stumbles over columns of different length.
        for text in tags.columns(state, typed)[state]:
            _number(text)
        _require(len(set(species.values())) == len(species), "an element in two oxidation states")
    coords = np.array([[_number(text) for text in sites[axis]] for axis in axes]).T
    _require(np.abs(coords).max() < 1e6, "coordinates out of all measure")
    # As pymatgen mends 0.3333 before symmetry acts on it.
    for third in (1 / 3, 2 / 3):
        coords[np.abs(coords / third - 1) <= _SNAP] = third
    return np.array([species[name] for name in names]), coords


def _species(name: str) -> int:
    match = _SYMBOL.fullmatch(name)
    if match is None or match[1] not in elements.ELEMENTS or elements.atomic_number(match[1]) not in _RANK:
        raise Unusual(f"the species {name!r}")
    return elements.atomic_number(match[1])


def _expand(operations: np.ndarray, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All sites of the cell, by listed site, then by operation: the listed site's index, coordinates in [0, 1]."""
    points = np.concatenate([coords, np.ones((len(coords), 1))], axis=1)
    # Matrix times vector, each by itself: a product of matrices rounds otherwise than pymatgen.
    images = (operations @ points[:, None, :, None])[..., :3, 0]
    images -= np.floor(images)
    if len(operations) > 1:
        kept = [_distinct(orbit) for orbit in images]
        index = np.repeat(np.arange(len(coords)), [int(keep.sum()) for keep in kept])
        images = np.concatenate([orbit[keep] for orbit, keep in zip(images, kept, strict=True)])
    else:
        index, images = np.arange(len(coords)), images[:, 0]
    _require(not _has_pair(images, 1.1 * _SAME_SITE), "two sites at one place")
    return index, images


def _has_pair(points: np.ndarray, apart: float) -> bool:
    """Whether two points are nearer than this in every coordinate."""
    if len(points) <= _FEW:
        rows = (points[start : start + 64] for start in range(0, len(points), 64))
        return any(np.count_nonzero(_apart(some, points) < apart) > len(some) for some in rows)  # each is near itself
    from scipy.spatial import cKDTree

    # 1 - 1e-17 is 1.
    return bool(cKDTree(points % 1.0, boxsize=1.0).query_pairs(apart, p=np.inf))


def _distinct(orbit: np.ndarray) -> np.ndarray:
    """Marks the images of a site that pymatgen keeps: those that are not where an earlier kept one is."""
    apart = _apart(orbit, orbit)
    _require(not ((apart > 0.9 * _SAME_SITE) & (apart < 1.1 * _SAME_SITE)).any(), "images that nearly coincide")
    same = np.tril(apart < _SAME_SITE, -1)
    keep = np.logical_not(same.any(axis=1))
    _require(bool((same[:, keep].any(axis=1) | keep).all()), "images that nearly coincide")
    return keep


def _apart(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Largest difference of a fractional coordinate modulo 1, for each pair."""
    difference = rows[:, None] - columns[None]
    difference -= np.round(difference)
    return np.abs(difference).max(axis=-1)
