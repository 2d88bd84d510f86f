"""The tables of CDVAE (Perov-5, Carbon-24, MP-20): train.csv, val.csv and test.csv with a CIF in each row.

T. Xie et al., "Crystal Diffusion Variational Autoencoder for Periodic Material Generation", ICLR 2022.
"""

import csv
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cgcnn_jax.data.crystal import Crystal, Rejected, as_number, pymatgen_version
from cgcnn_jax.data.sources import stated
from cgcnn_jax.data.sources.directory import not_csv
from cgcnn_jax.data.sources.files import parse
from cgcnn_jax.data.splits import NAMES

UNITS = {
    "heat_all": "eV/cell",
    "heat_ref": "eV/cell",
    "dir_gap": "eV",
    "ind_gap": "eV",
    "energy_per_atom": "eV/atom",
    "formation_energy_per_atom": "eV/atom",
    "band_gap": "eV",
    "e_above_hull": "eV/atom",
}
# Beside the properties: names, texts, and the numbering that pandas leaves.
_NOT_TARGETS = ("", "Unnamed: 0", "material_id", "cif", "cif.conv", "formula", "pretty_formula", "elements")


@dataclass(frozen=True)
class CrystalText:
    """A CIF in memory, parsed when its graph is built."""

    id: str
    cif: str
    targets: Mapping[str, float] = field(default_factory=dict)
    split: str | None = None

    def read(self) -> Crystal:
        structure = parse(lambda: stated.read(self.cif), f"{self.id}: its CIF cannot be read")
        return Crystal.from_structure(self.id, structure, self.targets, self.split)

    def digest(self) -> str:
        return hashlib.sha256(f"cif\0{pymatgen_version()}\0{self.cif}".encode()).hexdigest()


def read_cdvae(path: str | Path) -> Iterator[CrystalText | Rejected]:
    """The crystals of a folder's train.csv, val.csv and test.csv, or of one such file.

    The id is material_id, the split the file's name, and the targets all columns of numbers.

    Raises:
      FileNotFoundError: If there is none of the files.
      ValueError: If a file is no CSV table in UTF-8 with material_id and cif.
    """
    path = Path(path)
    files = [path / f"{name}.csv" for name in NAMES] if path.is_dir() else [path]
    found = [file for file in files if file.is_file()]
    if not found:
        raise FileNotFoundError(f"{path}: no such file, or a folder without train.csv, val.csv and test.csv")
    for file in found:
        yield from _read_table(file, file.stem if file.stem in NAMES else None)


def _read_table(file: Path, split: str | None) -> Iterator[CrystalText | Rejected]:
    # A CIF may be longer than the 131,072 letters that csv admits in a cell.
    csv.field_size_limit(2**31 - 1)
    with file.open(newline="", encoding="utf-8-sig") as lines:
        try:
            rows = csv.DictReader(lines, strict=True)
            missing = {"material_id", "cif"} - set(rows.fieldnames or ())
            if missing:
                raise ValueError(
                    f"{file}: needs columns material_id and cif; it has {', '.join(rows.fieldnames or ())}"
                )
            names = list(rows.fieldnames or ())
            twice = next((name for name in names if name and names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{file}: the column {twice!r} stands twice; give each a name of its own")
            for row in rows:
                id = str(row["material_id"])
                if None in row or None in row.values():
                    yield Rejected(id, f"{id}: a row of {file.name} has not as many cells as the first")
                    continue
                numbers = {key: as_number(cell) for key, cell in row.items() if key not in _NOT_TARGETS}
                known = {key: value for key, value in numbers.items() if not math.isnan(value)}
                yield CrystalText(id, row["cif"], known, split)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{file}: {not_csv(file, error)}") from error
