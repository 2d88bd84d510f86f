"""What a CIF says of itself, held against what was read from it.

pymatgen reads on where a file is cut short or contradicts itself: operations that it cannot parse become P1, sites
that it cannot name are dropped, "." becomes 0, and of a negative cell length the sign is lost. Such a crystal would get
a prediction that looks like any other. So the cell, the operations and the sites must be those that stand in the file,
and where the file gives its formula, the sites must make it.
"""

import itertools
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import only_element

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from pymatgen.core.operations import SymmOp

FORMULA, UNITS = "_chemical_formula_sum", "_cell_formula_units_Z"
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_AXES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_LABEL, _SYMBOL, _OCCUPANCY = "_atom_site_label", "_atom_site_type_symbol", "_atom_site_occupancy"
OPERATIONS = (  # in the order in which pymatgen looks for them
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv_pos_as_xyz_",
    "_space_group_symop_operation_xyz",
    "_space_group_symop_operation_xyz_",
)
# In whatever case, with hyphens or underscores and one at the end, as pymatgen takes them.
_GROUPS = {
    *("_symmetry_space_group_name_h_m", "_space_group_name_h_m_alt", "_space_group_name_h_m_full"),
    *("_symmetry_space_group_name_hall", "_space_group_name_hall"),
    *("_symmetry_int_tables_number", "_space_group_it_number"),
}
_NO_SYMMETRY = ("", "?", ".", "P1", "1")
# Space groups with two choices of origin in International Tables A, by name and by number.
_TWO_ORIGINS = (
    "Pnnn Pban Pncb Pcna Pmmn Pnmm Pmnm Ccca Abaa Bbcb Ccce Aeaa Bbeb Fddd P4/n P42/n I41/a P4/nbm P4/nnc P4/nmm P4/ncc P42/nbc P42/nnm "
    "P42/nmc P42/ncm I41/amd I41/acd Pn-3 Fd-3 Pn-3n Pn-3m Fd-3m Fd-3c "
    "48 50 59 68 70 85 86 88 125 126 129 130 133 134 137 138 141 142 201 203 222 224 227 228"
)
_MISFIT = 0.02  # of products of axes, some 1 % of a length or half a degree; cells are printed far more exactly
_UNCERTAINTY = re.compile(r"\(.*")
_NAME = re.compile(r"([A-Z][a-z]?)(?![a-z])")
_GROUPS_OF_ATOMS = ("OH", "NO3")  # of which pymatgen drops the one and takes one atom of the other
_LESS_THAN_CRYSTAL = re.compile(r"^\s*(SLAB|POLYMER)\s*$", re.MULTILINE | re.IGNORECASE)  # of an XSF
# pymatgen compares every site with all others under every operation: some 0.3 µs each, and a minute in all.
_MOST_COMPARISONS = 2e8
# Bytes of the shortest CIF that asks for more, 8 a site and 6 an operation.
SHORTEST_LONG = 8000
_LARGEST_GROUP = 192
_HYDROGENS = "_atom_site_attached_hydrogens"
_NO_SYMBOLS = "Elements in POSCAR cannot be determined"  # as pymatgen warns
_HEADER = re.compile(r"^\s*data_(\S*)", re.MULTILINE)
# CIF knows no case of tags, pymatgen and the fast reader do.
_SPELT = {
    tag.lower(): tag
    for tag in (
        *(f"_cell_{name}" for name in _CELL),
        *(*_AXES, _LABEL, _SYMBOL, _OCCUPANCY, _HYDROGENS, *OPERATIONS),
    )
}


class Misread(ValueError):
    """A file that contradicts itself, or of which pymatgen would make another crystal than it says; the message is why."""


def read(text: str) -> "Structure":
    """The structure of a CIF.

    Raises:
      Misread: If there is none or more than one, or the file contradicts what pymatgen makes of it.
    """
    from pymatgen.io.cif import CifParser

    parser = CifParser.from_str(text)
    every = parser.as_dict()
    for tag in itertools.chain.from_iterable(every.values()):
        if spelt := misspelt(tag):
            raise Misread(f"it has the tag {tag}, which is read only as {spelt}; write it so")
    blocks = [values for values in every.values() if _AXES[0] in values]
    if len(blocks) > 1:
        raise Misread(f"{len(blocks)} data blocks with atoms; a file must hold one structure, so take it apart")
    # Of those of one name pymatgen keeps the last.
    names = Counter(_HEADER.findall(text))
    if twice := next((name for name in every if names[name] > 1), None):
        raise Misread(
            f"{names[twice]} data blocks are called {twice!r}; a file must hold one structure, so take it apart"
        )
    for values in blocks:
        _check_sites(values)
        _check_operations(values)
    structure = parser.parse_structures(primitive=False)[0]
    for values in blocks:
        _check_all_taken(values, len(parser.symmetry_operations))
    # Disorder and dummies are refused later, and with what to do about them.
    symbols = [only_element(site) for site in structure]
    if blocks and all(symbol is not None and _plain(symbol) in elements.ELEMENTS for symbol in symbols):
        _check_cell(blocks[0], structure)
        if origins := _two_origins(blocks[0], parser.symmetry_operations):
            raise Misread(
                f"it names the space group {origins}, which has two origins, and lists no operations; list those of its origin "
                f"({OPERATIONS[0]})"
            )
        species = Counter(symbol for symbol in symbols if symbol is not None)
        formula, units = (_text(blocks[0], as_spelt(tag, blocks[0])) for tag in (FORMULA, UNITS))
        is_confirmed = confirms(formula, units, species)
        doubt = _doubt_of_sites(blocks[0])
        if "implicit_hydrogens" in structure.site_properties:
            doubt = "a site is oxygen with hydrogen, which has no position of its own"
        # A formula alone is that of a cell which lost its centrings and operations as well.
        if lost := _doubt_of_operations(blocks[0], parser.symmetry_operations, structure.lattice.metric_tensor):
            doubt, is_confirmed = lost, is_confirmed and bool(_number(units))
        if doubt and not is_confirmed:
            raise Misread(f"{doubt}; mend it, or state the content of the cell ({FORMULA} and {UNITS})")
    return structure


def count(path: Path, structure: "Structure") -> "Structure":
    """The structure of an XSF or CSSR file.

    Raises:
      Misread: Unless it is periodic in all directions, and has as many atoms as the file says.
    """
    pattern = {".xsf": r"^\s*PRIMCOORD[^\n]*\s+(\d+)", ".cssr": r"\A[^\n]*\n[^\n]*\n\s*(\d+)"}.get(path.suffix.lower())
    if pattern is None:
        return structure
    text = path.read_text()
    if path.suffix.lower() == ".xsf" and (kind := _LESS_THAN_CRYSTAL.search(text)):
        raise Misread(
            f"a {kind[1]}, which is not periodic in all directions, and would be read as a crystal; if its empty space is "
            "part of the cell, write CRYSTAL there"
        )
    found = re.search(pattern, text, re.MULTILINE)
    if found is None or int(found[1]) != len(structure):
        raise Misread(f"{len(structure)} atoms, and the file says {found[1] if found else 'nothing'}; it is cut short")
    return structure


def read_poscar(read: Callable[[], "Structure"], path: Path, n_line: int) -> "Structure":
    """What pymatgen's `read` gives of a file, if that is no POSCAR which it would misread.

    It makes room for all atoms that are stated before it looks for the first; calls elements H, He, Li, ... where the
    file names none, as those of VASP 4 do; and multiplies Cartesian coordinates by a negative scale, which is the volume
    of the cell.

    Raises:
      Misread: If it is one.
    """
    if not re.search("POSCAR|CONTCAR|CHGCAR|LOCPOT|ELFCAR|AECCAR|\\.vasp$|\\.poscar$", path.name, re.IGNORECASE):
        return read()
    with path.open(encoding="utf-8", errors="replace") as file:
        # Counts follow title, scale and three vectors; since VASP 5 a line of symbols stands between.
        head = list(itertools.islice(file, 9))
    for line in head[5:7]:
        n_atom = sum(_leading_integers(line))
        if n_atom > n_line:
            raise Misread(f"it states {n_atom:,} atoms, and has {n_line:,} lines")
    first = 6 if _leading_integers("".join(head[5:6])) else 7
    modes = [line.strip()[:1].lower() for line in head[first : first + 2]]
    is_cartesian = (modes[1:] if modes[:1] == ["s"] else modes[:1]) in (["c"], ["k"])
    scale = _number("".join(head[1:2]).strip())
    if is_cartesian and scale is not None and scale < 0:
        raise Misread(
            "its scale is negative, the volume of the cell, and its coordinates are Cartesian, which pymatgen would scale "
            "by it as well; write the lattice with a scale of 1"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_NO_SYMBOLS)
        try:
            return read()
        except UserWarning as error:
            if not str(error).startswith(_NO_SYMBOLS):
                raise
            raise Misread(
                "it names no elements, as POSCARs of VASP 4 do; write a line of their symbols above the numbers of atoms"
            ) from error


def confirms(formula: str, units: str, species: Mapping[str, int]) -> bool:
    """Whether a formula tells the number of atoms in the cell, and it is theirs.

    Args:
      formula: Of _chemical_formula_sum, such as 'Fe2 O3'; of one unit, or of all of the cell, as pymatgen writes it.
      units: Formula units in the cell; both may be absent.
      species: Symbol -> atoms in the cell.

    Raises:
      Misread: If the atoms do not make the formula.
    """
    stated = _counts(formula)
    if not stated:
        return False
    found = Counter({_plain(symbol): 0 for symbol in species})
    for symbol, count in species.items():
        found[_plain(symbol)] += count
    factor = found.total() / sum(stated.values())
    z = _number(units)
    # pymatgen writes Z times the formula, Na4 Cl4, and Z beside it; of Cl Na with Z = 4 one unit is not the cell.
    factors = [1.0] if z is None or z <= 0 or all(count % z == 0 for count in stated.values()) else []
    factors += [z] if z is not None and z > 0 else []
    is_whole = any(abs(factor - known) <= 0.01 * known for known in factors)
    is_alike = stated.keys() == found.keys() and all(
        abs(found[symbol] - factor * count) <= 0.01 * found[symbol] for symbol, count in stated.items()
    )
    # Without Z any number of units may be in the cell, but not less than one.
    if not is_alike or not (is_whole or (not z and factor > 1)):
        content = " ".join(f"{symbol}{found[symbol]}" for symbol in sorted(found))
        times = f" with {units} units in the cell" if z else ""
        raise Misread(
            f"its sites make {content}, but {FORMULA} is {formula!r}{times}: atoms or symmetry operations are missing, "
            "or the formula is wrong"
        )
    return is_whole


@lru_cache(maxsize=256)
def is_group(operations: tuple[bytes, ...]) -> bool:
    """Whether operations on (x, y, z, 1), each the bytes of f64[4, 4], are a group but for whole translations.

    A list that lost some is none, unless what is left happens to be a subgroup.
    """
    distinct = np.unique([_modulo_1(np.frombuffer(one).reshape(4, 4)) for one in operations], axis=0)
    if len(distinct) > _LARGEST_GROUP:
        return False
    known = {_key(one) for one in distinct}
    return all(_key(product) in known for one in distinct for product in _modulo_1(one @ distinct))


def _modulo_1(operations: np.ndarray) -> np.ndarray:
    # Thirds may have few digits.
    operations = operations.copy()
    shifts = np.round(operations[..., :3, 3] * 24) / 24
    is_close = np.abs(shifts - operations[..., :3, 3]) < 5e-3
    operations[..., :3, 3] = np.where(is_close, shifts, operations[..., :3, 3]) % 1.0
    return operations


def _key(operation: np.ndarray) -> tuple[int, ...]:
    turn = np.rint(operation[:3, :3]).astype(int).ravel().tolist()
    return (*turn, *(np.rint(operation[:3, 3] * 1000).astype(int) % 1000).tolist())


def _check_sites(values: Mapping[str, Any]) -> None:
    n_operation = max(len(_column(values, tag)) for tag in OPERATIONS)
    n_site = len(_column(values, _AXES[0]))
    if n_site**2 * max(n_operation, 1) > _MOST_COMPARISONS:
        raise Misread(
            f"{n_site} sites and {n_operation} operations would keep pymatgen for more than a minute; write plain "
            "symbols and explicit operations, which the fast reader takes (pip install 'cgcnn-jax[fast]')"
        )
    for tag in _AXES:
        for place, text in enumerate(_column(values, tag)):
            if _number(text) is None:
                raise Misread(f"site {place} has {text!r} as {tag}, which must be a number")
    for place, text in enumerate(_column(values, _OCCUPANCY)):
        number = _number(text)
        if text != "?" and (number is None or not 0 < number <= 1):
            raise Misread(
                f"site {place} has {text!r} as {_OCCUPANCY}, which must be a number greater than 0 and at most 1"
            )


def _check_operations(values: Mapping[str, Any]) -> None:
    from pymatgen.core.operations import SymmOp

    texts = next((column for tag in OPERATIONS if (column := _column(values, tag))), [])
    matrices = []
    for text in texts:
        try:
            matrix = SymmOp.from_xyz_str(text).affine_matrix
        except (ValueError, IndexError, KeyError) as error:
            raise Misread(f"the symmetry operation {text!r} cannot be read") from error
        if text.count(",") != 2 or abs(abs(np.linalg.det(matrix[:3, :3])) - 1) > 1e-6:
            raise Misread(f"the symmetry operation {text!r} is none: it must turn space, not flatten or stretch it")
        matrices.append(np.array(matrix, float).tobytes())
    if texts and not is_group(tuple(matrices)):
        raise Misread(f"the {len(texts)} symmetry operations are no group; some are missing or wrong")


def _check_all_taken(values: Mapping[str, Any], n_taken: int) -> None:
    """pymatgen passes over the operations of a file that has magnetic moments, for want of magnetic ones."""
    n_stated = max(len(_column(values, tag)) for tag in OPERATIONS)
    if n_taken < n_stated:
        raise Misread(
            f"it has {n_stated} symmetry operations, of which pymatgen takes {n_taken}: beside magnetic moments it looks for "
            "magnetic operations alone. Remove the moments (_atom_site_moment_...), of which nothing is used here"
        )


def _check_cell(values: Mapping[str, Any], structure: "Structure") -> None:
    for name, read in zip(_CELL, structure.lattice.parameters, strict=True):
        text = _text(values, f"_cell_{name}")
        stated = _number(text)
        if text and (stated is None or abs(stated - read) > 1e-3 * read):
            raise Misread(f"_cell_{name} is {text!r}, and the lattice read has {read:.6g}; there is no such cell")


def _two_origins(values: Mapping[str, Any], operations: "Sequence[SymmOp]") -> str:
    """The group of which pymatgen took the first origin, which may not be the file's; empty if it took none.

    The number of atoms does not tell: general positions are as many from both, of other distances.
    """
    if len(operations) == 1 or any(_column(values, tag) for tag in OPERATIONS):
        return ""
    # Whichever name or number pymatgen knows.
    return next((group for group in _groups(values) if group in _TWO_ORIGINS.split()), "")


def _groups(values: Mapping[str, Any]) -> list[str]:
    tags = [tag for tag in values if tag.lower().replace("-", "_").rstrip("_") in _GROUPS]
    return [re.sub(r"[\s_]", "", _text(values, tag)) for tag in tags]


def as_spelt(tag: str, among: Iterable[str]) -> str:
    """The tag as it stands there, in whatever case; itself if it does not."""
    return next((one for one in among if one.lower() == tag.lower()), tag)


def misspelt(tag: str) -> str | None:
    """The tag as it is read, if this one is that in another case."""
    known = _SPELT.get(tag.lower(), tag)
    return None if known == tag else known


def _doubt_of_operations(values: Mapping[str, Any], operations: "Sequence[SymmOp]", metric: np.ndarray) -> str:
    """What pymatgen had to guess of the symmetry; empty if nothing."""
    named = next((group for group in _groups(values) if group.upper() not in _NO_SYMMETRY), None)
    if named and not any(_column(values, tag) for tag in OPERATIONS):
        if len(operations) == 1:
            return f"it names the space group {named}, but no operations of it are known"
        # R-3m, say, has hexagonal and rhombohedral axes: lengths and angles stay as they are under the right ones.
        lengths = np.sqrt(metric.diagonal())
        turned = np.array([one.rotation_matrix.T @ metric @ one.rotation_matrix for one in operations])
        if (np.abs(turned - metric) > _MISFIT * np.outer(lengths, lengths)).any():
            return f"it names the space group {named}, whose operations do not fit its cell, and lists none"
    return ""


def _doubt_of_sites(values: Mapping[str, Any]) -> str:
    """What pymatgen had to guess of the atoms; empty if nothing."""
    for place, text in enumerate(_column(values, _HYDROGENS)):
        if _number(text):
            return f"site {place} has {text} hydrogen atoms attached, which have no positions"
    symbols = _column(values, _SYMBOL)
    for place, name in enumerate(symbols or _column(values, _LABEL)):
        match = _NAME.match(name)
        if match is None or _plain(match[1]) not in elements.ELEMENTS or name.startswith(_GROUPS_OF_ATOMS):
            return f"site {place} is called {name!r}, which is not the symbol of an element"
        # Of labels pymatgen takes two letters in any case: HO1 is holmium to it.
        if not symbols and name[:2].title() in elements.ELEMENTS and name[:2].title() != match[1]:
            return f"site {place} is called {name!r}, which may be {match[1]} or {name[:2].title()}"
    return ""


def _counts(formula: str) -> Counter[str]:
    """Symbol -> number; empty if it cannot be told."""
    parts = re.findall(r"([A-Z][a-z]?)\s*(\d+(?:\.\d+)?|)\s*", formula)
    if "".join(symbol + number for symbol, number in parts) != re.sub(r"\s", "", formula):
        return Counter()
    found: Counter[str] = Counter()
    for symbol, number in parts:
        found[_plain(symbol)] += float(number or 1)  # type: ignore[assignment]
    return found if min(found.values(), default=0) > 0 and found.keys() <= elements.ELEMENTS.keys() else Counter()


def _plain(symbol: str) -> str:
    return "H" if symbol in ("D", "T") else symbol


def _leading_integers(line: str) -> list[int]:
    found = []
    for token in line.split():
        try:
            found.append(int(token))
        except ValueError:
            break
    return found


def _number(text: str) -> float | None:
    """0.25, and 0.25(3), which is 0.25; None for any other text."""
    try:
        value = float(_UNCERTAINTY.sub("", text))
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def _column(values: Mapping[str, Any], tag: str) -> Sequence[str]:
    found = values.get(tag) or []
    return [found] if isinstance(found, str) else found


def _text(values: Mapping[str, Any], tag: str) -> str:
    """A single value; a list of one counts, as pymatgen takes it."""
    found: Iterable[str] = _column(values, tag)
    return " ".join(found).strip()
