"""pymatgen structures in memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected

if TYPE_CHECKING:
    from pymatgen.core import Structure


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
