"""A data folder as the paper's studies want it, with a few demo crystals and made-up labels."""

import importlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_demo

FOLDERS = {
    "mp_2018_6_1": ("formation_energy_eV_per_atom", "gap_pbe_eV", "fermi_energy_eV_mp2020", "is_metal"),
    "jarvis_dft3d": ("total_energy_eV_per_atom",),
    "mp_elastic_cgcnn3402": ("K_vrh_GPa", "G_vrh_GPa", "poisson_ratio"),
}
ID_LISTS = ("mp-ids-46744.csv", "mp-ids-27430.csv", "mp-ids-3402.csv")


def write_data(folder: Path, *, n_crystal: int, n_listed: int, labels: Mapping[str, tuple[str, ...]] = FOLDERS) -> Path:
    """n_crystal crystals x0, x1, ... in each folder, the first n_listed of them on every list of ids.

    Folders are those of `labels`, and have these. Every label is volume per atom in Å³, but is_metal, which is whether that is above 15.
    """
    crystals = list(itertools.islice(read_demo(), n_crystal))
    for name, targets in labels.items():
        (folder / name).mkdir(parents=True)
        lines = [_line(f"x{number}", crystal, targets) for number, crystal in enumerate(crystals)]
        (folder / name / "crystals.jsonl").write_text("".join(lines))
    lists = folder / "cgcnn_reference" / "material-data"
    lists.mkdir(parents=True)
    for name in ID_LISTS:
        # As in the published lists, some ids are not among the crystals.
        (lists / name).write_text("\n".join(f"x{number}" for number in (*range(n_listed), 10**6)) + "\n")
    return folder


def _line(id: str, crystal: Crystal, targets: tuple[str, ...]) -> str:
    volume = abs(float(np.linalg.det(crystal.lattice))) / len(crystal.species)
    return (
        json.dumps(
            {
                "id": id,
                "lattice": crystal.lattice.tolist(),
                "species": [elements.symbol(int(z)) for z in crystal.species],
                "frac_coords": crystal.frac_coords.tolist(),
                "properties": {name: float(volume > 15) if name == "is_metal" else volume for name in targets},
            }
        )
        + "\n"
    )


def config_of(name: str) -> ConfigDict:
    """The configuration of a property."""
    return importlib.import_module(f"configs.{name}").get_config()
