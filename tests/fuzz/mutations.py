"""Bad structure files, the same for the same seed: what disks, transfers, editors and scripts do to good ones."""

import itertools
import random
import re
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_demo

# As the Crystallography Open Database writes: one formula unit, and Z.
CALCITE = """\
#$Date$
data_1547347
_chemical_formula_sum            'C Ca O3'
_cell_formula_units_Z            6
_space_group_IT_number           167
_symmetry_space_group_name_H-M   'R -3 c :H'
_cell_length_a                   4.9896(2)
_cell_length_b                   4.9896(2)
_cell_length_c                   17.0610(11)
_cell_angle_alpha                90
_cell_angle_beta                 90
_cell_angle_gamma                120
loop_
_symmetry_equiv_pos_as_xyz
OPERATIONS
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Ca 0.00000 0.00000 0.00000 0.0089
C 0.00000 0.00000 0.25000 0.0080
O 0.25700 0.00000 0.25000 0.0128
#END
"""
_TURNS = "x,y,z|-y,x-y,z|-x+y,-x,z|y,x,-z+1/2|x-y,-y,-z+1/2|-x,-x+y,-z+1/2"
_TURNS += "|-x,-y,-z|y,-x+y,-z|x-y,x,-z|-y,-x,z+1/2|-x+y,y,z+1/2|x,x-y,z+1/2"
_CENTRES = ((0, 0, 0), (2, 1, 1), (1, 2, 2))  # thirds

NUMBERS = [
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e308",
    "1e400",
    "-1",
    "0",
    "-0.0",
    "1e-320",
    "99999999999",
    "0x10",
    "1_0",
    "?",
    ".",
    "1,5",
    "0.5(3",
    "--",
    "1e",
    "12345678.5",
]
NUMBERS.append("9" * 400)
SPECIES = [
    "D",
    "T",
    "X",
    "Xx",
    "Vac",
    "Q",
    "Wat",
    "OH",
    "Ow",
    "Zz",
    "0",
    "?",
    ".",
    "H1-",
    "Fe3+",
    "Uuo",
    "Og",
    "Na0.5",
    "{Na}",
    "'Na",
    "Cl'",
    "Å",
    "Oxygen",
    "va",
    "Bk",
    "Cm",
]
_TOKENS = [
    "",
    "'",
    '"',
    "#",
    ";",
    "_",
    "loop_",
    "data_",
    "data_x",
    "?",
    ".",
    "(",
    ")",
    "-",
    "+",
    "/",
    ",",
    "[",
    "]",
    "{",
    "}",
    "$",
    "%",
    "\\",
    "save_",
    "stop_",
    "global_",
    "\x00",
    "\t",
    "\x0c",
    "\x85",
    "\ufeff",
    "",
]


class Source(NamedTuple):
    """A good file. The formula is stated in it, or the file counts its own atoms."""

    name: str
    text: str
    is_complete: bool


class Case(NamedTuple):
    """A file to be read: how it came about, its name, its content, and the good file behind it, if any."""

    kind: str
    name: str
    data: bytes
    source: Source | None


def calcite() -> str:
    operations = []
    for shift, turn in itertools.product(_CENTRES, _TURNS.split("|")):
        parts = [part + (f"+{n}/3" if n else "") for part, n in zip(turn.split(","), shift, strict=True)]
        operations.append(",".join(parts).replace("+1/2+1/3", "+5/6").replace("+1/2+2/3", "+1/6"))
    return CALCITE.replace("OPERATIONS", "\n".join(operations))


def sources() -> list[Source]:
    """Good files of each format: with symmetry and without, with a formula and without."""
    small: list[Crystal] = []
    for entry in read_demo():
        if isinstance(entry, Crystal) and 2 <= len(entry.species) <= 8:
            small.append(entry)
        if len(small) == 60:
            break
    found = [Source("cod.cif", calcite(), True)]
    bare = re.sub(r"_chemical_formula_sum.*\n_cell_formula_units_Z.*\n", "", calcite())
    found.append(Source("bare.cif", bare, False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, crystal in enumerate(small[::10]):
            structure = crystal.to_structure()
            found.append(Source(f"p1_{number}.cif", str(CifWriter(structure)), True))
            found.append(Source(f"sym_{number}.cif", str(CifWriter(structure, symprec=0.01)), True))
            found.append(Source(f"{number}.vasp", Poscar(structure).get_str(), True))
            if number < 2:
                found.append(Source(f"{number}.xsf", structure.to(fmt="xsf"), True))
                found.append(Source(f"{number}.cssr", structure.to(fmt="cssr"), True))
    return found


def truncations(source: Source) -> Iterator[Case]:
    """The file cut short at every position."""
    data = source.text.encode()
    for end in range(len(data)):
        yield Case("truncated", source.name, data[:end], source)


def cases(seed: int, count: int) -> Iterator[Case]:
    """Bad files: `count` mutations of good ones, then the oddities."""
    rng = random.Random(seed)
    good = sources()
    for number in range(count):
        kind = list(_KINDS)[number % len(_KINDS)]
        source = rng.choice([one for one in good if kind in _ANYWHERE or one.name.endswith(".cif")])
        data = _KINDS[kind](source.text, rng)
        yield Case(kind, source.name, data if isinstance(data, bytes) else data.encode(), source)
    yield from oddities(good, rng)


def oddities(good: list[Source], rng: random.Random) -> Iterator[Case]:
    """Files that are no mutation: empty, random, of another format, in another encoding, too large."""
    for name in ("a.cif", "POSCAR", "a.vasp", "a.xsf", "a.cssr", "a.mcif"):
        for data in (b"", b"\n", b"\0" * 1000, b"\xff\xfe", b"#", b"data_\n", b"loop_\n", b"'" * 5000, b";\n" * 2000):
            yield Case("empty or filled", name, data, None)
        for size in (1, 100, 10_000):
            yield Case("random bytes", name, rng.randbytes(size), None)
    others = [
        *(b'{"@class": "Structure"}', b"[" * 50_000, b"<html><body>404 Not Found</body></html>", b"id,value\na,1\n"),
        *(b"PK\3\4" + bytes(200), b"\x1f\x8b\x08" + bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(100), b"%PDF-1.7\n"),
        *(b"HEADER    PROTEIN\nATOM      1  N   MET A   1      1.0  2.0  3.0\n", b"2\ncomment\nH 0 0 0\nH 0 0 0.74\n"),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n",
    ]
    for data in others:
        for name in ("a.cif", "POSCAR", "a.xsf"):
            yield Case("another format", name, data, None)
    for source in good:
        for name in ("a.cif", "POSCAR", "a.xsf", "a.cssr"):
            if not source.name.endswith(name[1:]) and not (name == "POSCAR" and source.name.endswith(".vasp")):
                yield Case("another format", name, source.text.encode(), None)
        for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037"):
            yield Case("encoding", source.name, source.text.encode(encoding), source)
        for end in ("\r\n", "\r", "\n\n", "\n\r"):
            yield Case("line ends", source.name, source.text.replace("\n", end).encode(), source)
    for n_atom, name in ((100_001, "large.cif"), (1_000_000, "larger.cif"), (1_000_000, "larger.vasp")):
        yield Case("10^6 atoms", name, large(n_atom, name), None)


def large(n_atom: int, name: str) -> bytes:
    """A cell of so many atoms."""
    side = round(n_atom ** (1 / 3)) + 1
    points = itertools.islice(itertools.product(range(side), repeat=3), n_atom)
    rows = [f"{i / side:.6f} {j / side:.6f} {k / side:.6f}" for i, j, k in points]
    if not name.endswith(".cif"):
        cell = "\n".join(f"{3 * side * (i == 0)} {3 * side * (i == 1)} {3 * side * (i == 2)}" for i in range(3))
        return f"large\n1.0\n{cell}\nCu\n{n_atom}\ndirect\n{chr(10).join(rows)}\n".encode()
    head = calcite().split("loop_\n_atom")[0].replace("4.9896(2)", str(3 * side)).replace("17.0610(11)", str(3 * side))
    head = re.sub(r"_chemical.*\n_cell_form.*\n|loop_\n(?s:.)*", "", head).replace("120", "90")
    loops = "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nloop_\n_atom_site_label\n"
    loops += "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
    return (head + loops + "".join(f"Cu {row}\n" for row in rows)).encode()


def _truncated(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text))]


def _cut_at_a_line(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[: rng.randrange(len(lines) // 2, len(lines))])


def _flipped(text: str, rng: random.Random) -> bytes:
    data = bytearray(text.encode())
    for _ in range(rng.choice([1, 1, 3])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _scrambled(text: str, rng: random.Random) -> bytes:
    data = bytearray(text.encode())
    place, size = rng.randrange(len(data)), rng.choice([1, 4, 64])
    data[place : place + size] = rng.randbytes(size)
    return bytes(data)


def _without_a_line(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return "".join(lines)


def _without_lines(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    start = rng.randrange(len(lines))
    del lines[start : start + rng.randrange(2, 12)]
    return "".join(lines)


def _with_a_line_twice(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return "".join(lines)


def _replaced(pattern: str, choices: list[str]) -> Callable[[str, random.Random], str]:
    def replace(text: str, rng: random.Random) -> str:
        found = list(re.finditer(pattern, text, re.MULTILINE))
        if not found:
            return text[: len(text) // 2]
        one = rng.choice(found)
        return text[: one.start(1)] + rng.choice(choices) + text[one.end(1) :]

    return replace


def _with_a_token(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(_TOKENS) + text[place:]


def _without_an_operation(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if re.search(r"[xyz][^_]*,.*[xyz].*,.*[xyz]", line)]
    for place in sorted(rng.sample(places, min(len(places), rng.choice([1, 1, 2, 1000]))), reverse=True):
        del lines[place]
    return "".join(lines)


def _one_atom_on_another(text: str, rng: random.Random) -> str:
    rows = list(re.finditer(r"(?:\s-?\d*\.\d+){3}", text))
    if len(rows) < 2:
        return text[: len(text) // 2]
    one, other = rng.sample(rows, 2)
    return text[: one.start()] + other[0] + text[one.end() :]


def _joined(text: str, rng: random.Random) -> str:
    return text + text if rng.random() < 0.5 else text[: rng.randrange(len(text))] + text


_NUMBER = r"(?<=\s)(-?\d+\.\d+(?:\(\d+\))?)(?=\s)"
_KINDS: dict[str, Callable[[str, random.Random], str | bytes]] = {
    "truncated": _truncated,
    "cut between two lines": _cut_at_a_line,
    "bits flipped": _flipped,
    "bytes overwritten": _scrambled,
    "a line lost": _without_a_line,
    "lines lost": _without_lines,
    "a line twice": _with_a_line_twice,
    "odd number": _replaced(_NUMBER, NUMBERS),
    "odd cell": _replaced(r"^_cell_\S+\s+(\S+)", [*NUMBERS, "-5.6", "1e-9", "1e9", "180", "360", "-90", "179.99"]),
    "odd species": _replaced(r"^\s*([A-Z][a-z]?)[\d+-]*\s+[A-Z0-9]", SPECIES),
    "odd operation": _replaced(
        r"^\s*\d*\s*'?(-?[xyz][^_]*,.*[xyz].*,[^'\n]*)",
        ["x,y", "x,y,z,x", "a,b,c", "2x,y,z", "x,x,z", "?", "0,0,0", "x+1/3,y,z", "-x,y,z", "x y z", "x,y,z+1/0"],
    ),
    "operations lost": _without_an_operation,
    "atoms on one another": _one_atom_on_another,
    "a token more": _with_a_token,
    "joined files": _joined,
    "odd occupancy": _replaced(r"(?<=\s)(1)(?:\.0*)?\s*$", ["0", "-1", "0.5", "1.5", "?", ".", "nan", "1e400", "x"]),
}
_ANYWHERE = (
    *("truncated", "cut between two lines", "bits flipped", "bytes overwritten", "a line lost", "lines lost"),
    *("a line twice", "odd number", "atoms on one another", "a token more", "joined files"),
)
