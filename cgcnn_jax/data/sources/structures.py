"""What Python hands in: pymatgen structures in memory, or paths, or crystals."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgcnn_jax.data.crystal import Crystal, CrystalError, CrystalFile, Entry, Rejected
from cgcnn_jax.data.sources.by_name import read_inputs

if TYPE_CHECKING:
    from pymatgen.core import Structure


def entries_of(
    structures: "Iterable[Structure | str | Path] | Structure | str | Path",
) -> Iterable[Entry | Rejected]:
    """Entries of pymatgen structures, of paths that `read_input` takes, or of the library's own crystals; several or one.

    Raises:
      ValueError: If there are two kinds, or another, or, when it is their turn, for what `read_input` does not read.
    """
    # A structure is itself an iterable, of its sites.
    is_one = isinstance(structures, str | Path | Crystal | CrystalFile) or hasattr(structures, "lattice")
    given: list[Any] = [structures] if is_one else list(structures)  # type: ignore[arg-type]
    kinds = [_kind_of(number, one) for number, one in enumerate(given)]
    if len(set(kinds)) > 1:
        raise ValueError("give either structures or paths, not both at once")
    match kinds[:1]:
        case ["path"]:
            return read_inputs(given)
        case ["entry"]:
            return given
        case _:
            return read_structures(given)


def _kind_of(number: int, one: Any) -> str:
    """Raises ValueError for what is neither a path, nor an entry, nor a pymatgen structure."""
    if isinstance(one, str | Path):
        return "path"
    if isinstance(one, Crystal | CrystalFile):
        return "entry"
    if hasattr(one, "lattice"):
        return "structure"
    raise ValueError(
        f"structure {number} is a {type(one).__module__}.{type(one).__name__}; give pymatgen structures or paths "
        "(pymatgen.io.ase.AseAtomsAdaptor.get_structure makes one of an ase.Atoms)"
    )


def read_structures(
    structures: "Iterable[Structure]",
    ids: Sequence[str | int] | None = None,
    targets: Sequence[Mapping[str, float]] | None = None,
) -> Iterator[Crystal | Rejected]:
    """Crystals of structures, named by `ids` or numbered, with labels where given."""
    for number, structure in enumerate(structures):
        id = str(ids[number] if ids is not None else number)
        try:
            yield Crystal.from_structure(id, structure, targets[number] if targets is not None else None)
        except CrystalError as error:
            yield Rejected(id, str(error))
