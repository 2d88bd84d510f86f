"""Folders of crystals as the published code wants them: P1 CIFs, id_prop.csv, atom_init.json."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pymatgen.io.cif import CifWriter

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_jsonl

TARGET = "formation_energy_eV_per_atom"


def write_crystals(source: Path, folder: Path, *, number: int, seed: int, reference: Path | None) -> list[str]:
    """Writes random crystals of a folder of JSON lines.

    Args:
      source: Where they come from.
      folder: To be made.
      number: How many.
      seed: Of the choice.
      reference: Checkout of the published code, which has the atom_init.json; without it there is none.

    Returns:
      Their ids, in random order.
    """
    every = [crystal for crystal in read_jsonl(source) if isinstance(crystal, Crystal)]
    random = np.random.default_rng(seed)
    chosen = [every[index] for index in random.permutation(len(every))[:number]]
    folder.mkdir()
    for crystal in chosen:
        CifWriter(crystal.to_structure()).write_file(folder / f"{crystal.id}.cif")
    (folder / "id_prop.csv").write_text("".join(f"{one.id},{one.targets[TARGET]}\n" for one in chosen))
    if reference:
        shutil.copy(reference / "data" / "sample-regression" / "atom_init.json", folder)
    return [crystal.id for crystal in chosen]


def copy_crystals(source: Path, folder: Path, ids: Sequence[str]) -> None:
    """The same layout with some of the crystals."""
    folder.mkdir()
    for id in ids:
        shutil.copy(source / f"{id}.cif", folder)
    rows = (source / "id_prop.csv").read_text().splitlines()
    (folder / "id_prop.csv").write_text("".join(f"{row}\n" for row in rows if row.split(",")[0] in set(ids)))
    if (source / "atom_init.json").exists():
        shutil.copy(source / "atom_init.json", folder)
