"""Structure files: CIF, POSCAR and whatever else pymatgen reads. Plain CIFs have a fast reader of their own, cif.py."""

import bz2
import gzip
import json
import lzma
import os
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgcnn_jax.data.crystal import MAX_ATOMS, MAX_BYTES, CrystalError, CrystalFile, Rejected, printable
from cgcnn_jax.data.sources import stated

if TYPE_CHECKING:
    from pymatgen.core import Structure

_SUFFIXES = (".cif", ".mcif", ".vasp", ".poscar", ".xsf", ".cssr")
_NAMES = ("POSCAR", "CONTCAR")
# As pymatgen reads them: how they begin, and who opens them.
_COMPRESSED: dict[str, tuple[bytes, Callable[..., Any]]] = {
    ".gz": (b"\x1f\x8b", gzip.open),
    ".bz2": (b"BZh", bz2.open),
    ".xz": (b"\xfd7zXZ\x00", lzma.open),
}
_LONGEST = 400  # letters of a reason
_MOST_LINES = 2 * MAX_ATOMS + 1000  # positions and velocities
# pymatgen takes a file for its own JSON or YAML if its name holds one of these, unless it ends as a CIF or POSCAR does.
_DOCUMENTS = (".json", ".mson", ".yaml", ".yml")
_NO_DOCUMENTS = (".cif", ".mcif", ".vasp")


def read_files(paths: Iterable[str | Path], *, base: Path | None = None) -> Iterator[CrystalFile | Rejected]:
    """Structure files, and all those in the folders among `paths` (subfolders too), in the order of their names.

    A folder's JSON is left alone, for not all of it is a structure's. The id is the file's name without its ending, which it
    keeps where another file of the folder differs in that alone, led by its subfolders, or by all of its folders below
    `base`.
    """
    for path in (Path(path).expanduser() for path in paths):
        if path.is_dir():
            is_empty = True
            for file in _walk(path, base or path):
                is_empty = False
                yield file
            if is_empty:
                yield Rejected(str(path), f"{path}: a folder without structure files ({', '.join(_SUFFIXES)}, POSCAR)")
        elif path.is_file():
            yield CrystalFile(_id_of(path.relative_to(base or path.parent)), path)
        else:
            # A pipe or a device might never end.
            what = "neither a file nor a folder" if path.exists() else "no such file"
            yield Rejected(printable(str(path)), f"{printable(str(path))}: {what}")


def holds_structures(folder: Path) -> bool:
    """Whether read_files finds structure files in a folder."""
    return any(not isinstance(file, Rejected) for file in _walk(folder, folder))


def read_structure(path: Path) -> "Structure":
    """Parses one file with pymatgen.

    Raises:
      CrystalError: If it cannot be read; see `parse`.
    """

    def read() -> "Structure":
        content = _content(path)
        # Whoever reads it needs a minute and more for a million lines; of CIFs `stated` knows the sites.
        n_line = content.count(b"\n") + (not content.endswith(b"\n"))
        if n_line > _MOST_LINES:
            raise stated.Misread(f"{n_line:,} lines; files of more than {_MOST_LINES:,} are not read")
        if _plain(path) == path:
            return _read_plain(path, n_line)
        # pymatgen does not take every kind compressed, and what a file says of itself stands in it.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / _plain(path).name
            copy.write_bytes(content)
            return _read_plain(copy, n_line)

    try:
        return parse(read, f"{path.name}: cannot be read")
    except (FileNotFoundError, PermissionError) as error:
        if str(error.filename) != str(path):
            raise  # of temporary folders, say, which is no fault of this file
        is_gone = isinstance(error, FileNotFoundError)
        why = f"there is no {path} any more" if is_gone else error.strerror
        raise CrystalError(f"{path.name}: cannot be read ({why})") from error


def parse(read: "Callable[[], Structure]", failed: str) -> "Structure":
    """What one of pymatgen's readers gives.

    Raises:
      CrystalError: If it cannot read, `failed` with the reason: ours of a Misread file, else pymatgen's, marked as such.
    """
    try:
        with warnings.catch_warnings():
            # What pymatgen mends or doubts in a CIF it says in warnings, thousands of lines for a large set.
            warnings.simplefilter("ignore")
            return read()
    except (MemoryError, ImportError):
        raise  # of this machine at this moment, not of the file
    except OSError as error:
        if error.errno is not None:
            raise  # likewise
        # gzip and bz2 tell of damaged files by one that no system call made.
        raise CrystalError(f"{failed} ({_told(error)}; is the file whole?)") from error
    except stated.Misread as error:
        raise CrystalError(f"{failed} ({_told(error)})") from error
    except Exception as error:  # pymatgen raises whatever its parsers run into
        # Of a file cut short it says such as "integer modulo by zero".
        raise CrystalError(f"{failed} (pymatgen: {_told(error)}; is the file whole?)") from error


def _content(path: Path) -> bytes:
    """Of a file, without its compression. Raises Misread if it is not compressed as its name says, or is too large."""
    begin, opened = _COMPRESSED.get(path.suffix.lower(), (b"", open))
    with path.open("rb") as file:
        head = file.read(len(begin))
    if head and head != begin:
        # The libraries would call it an error of the disk.
        raise stated.Misread(f"it is not compressed as {path.suffix.lower()} says")
    try:
        with opened(path, "rb") as file:
            content: bytes = file.read(MAX_BYTES + 1)
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise stated.Misread(f"{_told(error)}; is the file whole?") from error
    if len(content) > MAX_BYTES:
        raise stated.Misread(f"it unpacks to more than {MAX_BYTES >> 20} MB, above which none is read")
    return content


def _told(error: Exception) -> str:
    """In one line, for all of the file may be quoted."""
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST] if lines else type(error).__name__


def _is_document(path: Path) -> bool:
    name = path.name.lower()
    return any(ending in name for ending in _DOCUMENTS) and not name.endswith(_NO_DOCUMENTS)


def _read_plain(path: Path, n_line: int) -> "Structure":
    """Of a file without compression."""
    if _is_document(path):
        return _read_document(path)
    # As pymatgen tells them.
    if ".cif" in path.name.lower() or ".mcif" in path.name.lower():
        return stated.read(path.read_text(encoding="utf-8-sig", errors="replace"))
    return stated.count(path, stated.read_poscar(lambda: _from_file(path), path, n_line))


def _from_file(path: Path) -> "Structure":
    from pymatgen.core import Structure

    try:
        return Structure.from_file(path)
    except ValueError as error:
        if not str(error).startswith("Unrecognized extension"):
            raise
        kinds = ", ".join((*_SUFFIXES, *_NAMES))
        raise stated.Misread(f"its name is of no kind that is known: {kinds}, pymatgen's JSON") from error


def _read_document(path: Path) -> "Structure":
    """pymatgen's JSON or YAML without the sites' properties, for pymatgen imports whatever module these name."""
    from pymatgen.core import Structure
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    is_yaml = ".yaml" in path.name.lower() or ".yml" in path.name.lower()
    try:
        text = path.read_text(encoding="utf-8")
        document = YAML(typ="safe").load(text) if is_yaml else json.loads(text)
    except (ValueError, YAMLError) as error:
        raise stated.Misread(f"not {'YAML' if is_yaml else 'JSON'}: {_told(error)}; is the file whole?") from error
    if not isinstance(document, dict) or not {"lattice", "sites"} <= document.keys():
        raise stated.Misread("not a pymatgen Structure, which has lattice and sites")
    try:
        sites = [{key: site[key] for key in ("species", "abc")} for site in document["sites"]]
    except (KeyError, TypeError) as error:
        raise stated.Misread("a site has no species and abc, as those of a pymatgen Structure have") from error
    return Structure.from_dict({"lattice": document["lattice"], "sites": sites})


def _walk(folder: Path, base: Path, above: tuple[str, ...] = ()) -> Iterator[CrystalFile | Rejected]:
    """Structure files of a folder and those below it, in the order of their paths; one folder's names in memory.

    Links are followed, but for one to a folder that it lies in (`above`), which would have no end.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as found:
            # Hidden ones are copies that editors and systems keep.
            names = sorted((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith("."))
    except PermissionError as error:
        yield Rejected(str(folder), f"{folder}: cannot be listed ({error.strerror})")
        return
    ids = {name: _id_of(Path(name)) for name, is_folder in names if not is_folder and is_structure(name)}
    number = Counter(ids.values())
    for name, is_folder in names:
        path = folder / name
        if is_folder:
            yield from _walk(path, base, (*above, real))
        elif name in ids and (refusal := _refusal(path)):
            yield Rejected(printable(str(path)), f"{printable(str(path))}: {refusal}")
        elif name in ids:
            place = path.relative_to(base)
            yield CrystalFile(_id_of(place) if number[ids[name]] == 1 else printable(str(place)), path)


def _refusal(path: Path) -> str:
    """Why a path is not that of a file; empty if it is."""
    try:
        if path.is_file():
            return ""
        return "a link that leads nowhere" if path.is_symlink() else "no file"
    except PermissionError as error:  # a folder that may be listed and not entered
        return f"cannot be read ({error.strerror})"


def is_structure(name: str) -> bool:
    """Whether read_files takes a file of this name in a folder."""
    # POSCAR* and CONTCAR*, as pymatgen itself tells them.
    return _plain(Path(name)).suffix.lower() in _SUFFIXES or name.startswith(_NAMES)


def _id_of(path: Path) -> str:
    plain = _plain(path)
    return printable(str(plain.with_suffix("") if plain.suffix.lower() in _SUFFIXES else path))


def _plain(path: Path) -> Path:
    """A path without the ending of compression."""
    return path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
