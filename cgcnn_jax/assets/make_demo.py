"""Makes demo.jsonl.gz: textbook crystals with energies and bulk moduli from the CHGNet potential.

Needs `pip install chgnet`, which no other part of the project needs; an environment of its own is best. Then

    python -m cgcnn_jax.assets.make_demo --workers 2

or, where cgcnn_jax is not installed, `python cgcnn_jax/assets/make_demo.py`. Takes less than ten minutes on two cores.
Stop it at any time: finished crystals wait in a file beside the output, and the next run goes on from there.

How a crystal is made:
  1. A prototype is filled with elements and scaled until its closest atoms touch (covalent radii).
  2. E(V) at fixed shape gives V0, E0 and B0: third-order Birch-Murnaghan through 7 volumes, V0 ± 6 %, re-centred until
     V0 lies in the middle. hcp, wurtzite, NiAs and rutile also relax c/a. Internal coordinates (wurtzite u = 3/8,
     rutile x = 0.305) stay, and B0 is the one at fixed shape.
  3. The formation energy is against the lowest CHGNet energy of each element, among its prototypes here and its
     structure in ELEMENT_REFERENCES.

CHGNet 0.3.0 was trained on GGA and GGA+U energies of the Materials Project with the MaterialsProject2020Compatibility
corrections, so its energies contain them: Deng et al., Nat. Mach. Intell. 5, 1031 (2023). Labels are for trying the
software, see demo_card.md.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import importlib.metadata
import io
import itertools
import json
import logging
import math
import multiprocessing
import os
import pathlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

OUTPUT = pathlib.Path(__file__).with_name("demo.jsonl.gz")
SEED = 0
GPA = 160.2176634  # 1 eV/Å³
MODEL = "0.3.0"  # CHGNet weights

SCAN = 1.15 ** np.arange(-9, 10)  # V / V(touching atoms), 0.28 to 3.52; CsF is at 0.43, Cs at 1.4
WINDOW = np.linspace(0.94, 1.06, 7)  # V / V0 of the equation of state
MAX_RESIDUAL = 1e-3  # eV/atom, rms: a worse fit means the potential is not smooth there
MIN_DISTANCE = 0.5  # Å
CUTOFF = 6.0  # Å, CHGNet's own: beyond it an atom has no neighbour
AXIAL_STRAINS = np.linspace(-0.06, 0.06, 5)  # d ln(c/a)
MAX_AXIAL_STRAIN = 0.3  # further from the prototype's c/a it is another structure

CUBIC = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
FCC = ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
BCC = ((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5))


def hexagonal(c_over_a: float) -> tuple[tuple[float, ...], ...]:
    return ((1.0, 0.0, 0.0), (-0.5, math.sqrt(0.75), 0.0), (0.0, 0.0, c_over_a))


def tetragonal(c_over_a: float) -> tuple[tuple[float, ...], ...]:
    return ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, c_over_a))


RARE_EARTHS = "Sc Y La Ce Pr Nd Sm Gd Tb Dy Ho Er Tm Lu"
TRANSITION_METALS = "Ti V Cr Mn Fe Co Ni Cu Zr Nb Mo Ru Rh Pd Hf Ta W Re Os Ir Pt"
METALS = (
    f"Li Na K Rb Cs Be Mg Ca Sr Ba {RARE_EARTHS} Eu Yb {TRANSITION_METALS} Tc Ag Au Zn Cd Hg Al Ga In Tl Sn Pb Th U"
)
METALLOIDS = "B C Si Ge P As Sb Bi S Se Te"
IDEAL = math.sqrt(8 / 3)  # c/a of close-packed spheres


@dataclasses.dataclass(frozen=True)
class Prototype:
    """A structure type whose sites wait for elements.

    Attributes:
      name: The field's name, as in meta.prototype.
      symbol: Strukturbericht designation.
      space_group: International number.
      lattice: Rows of the primitive cell, a = 1.
      sites: (role, fractional coordinates); equal roles hold equal elements.
      families: For each family the elements of every role; a crystal takes one element per role.
      draw: How many crystals to draw from the families; None takes all.
      always: Well-known crystals, elements by role, which belong to the set whatever is drawn.
      axial: Relax c/a.
    """

    name: str
    symbol: str
    space_group: int
    lattice: tuple[tuple[float, ...], ...]
    sites: tuple[tuple[int, tuple[float, float, float]], ...]
    families: tuple[tuple[str, ...], ...]
    draw: int | None = None
    always: tuple[str, ...] = ()
    axial: bool = False


u = 3 / 8  # wurtzite with equal bonds
x = 0.305  # rutile, as in TiO2
PROTOTYPES = {
    prototype.name: prototype
    for prototype in (
        Prototype("fcc", "A1", 225, FCC, ((0, (0, 0, 0)),), ((METALS,), (METALLOIDS,))),
        Prototype("bcc", "A2", 229, BCC, ((0, (0, 0, 0)),), ((METALS,), (METALLOIDS,))),
        Prototype(
            "hcp",
            "A3",
            194,
            hexagonal(IDEAL),
            ((0, (1 / 3, 2 / 3, 1 / 4)), (0, (2 / 3, 1 / 3, 3 / 4))),
            ((METALS,), (METALLOIDS,)),
            axial=True,
        ),
        Prototype(
            "diamond",
            "A4",
            227,
            FCC,
            ((0, (0, 0, 0)), (0, (1 / 4, 1 / 4, 1 / 4))),
            ((METALLOIDS,), ("Be Mg Zn Cd Hg Al Ga In Tl Sn Pb",)),
        ),
        Prototype(
            "rock salt",
            "B1",
            225,
            FCC,
            ((0, (0, 0, 0)), (1, (1 / 2, 1 / 2, 1 / 2))),
            (
                ("Li Na K Rb Cs Ag", "H F Cl Br I"),
                ("Mg Ca Sr Ba Mn Fe Co Ni Cd Sm Eu Yb", "O S Se Te"),
                ("Ge Sn Pb", "S Se Te"),
                (f"{RARE_EARTHS} Th U", "N P As Sb Bi"),
                ("Ti Zr Hf V Nb Ta Cr", "C N"),
            ),
        ),
        Prototype(
            "CsCl",
            "B2",
            221,
            CUBIC,
            ((0, (0, 0, 0)), (1, (1 / 2, 1 / 2, 1 / 2))),
            (
                ("Na K Rb Cs Tl", "F Cl Br I"),
                (f"{RARE_EARTHS} Yb Mg Ca Ti Zr Hf", "Cu Ag Au Zn Cd Hg Al Ga In Tl Fe Co Ni Ru Rh Pd Os Ir Pt"),
                ("Mn Fe Co Ni Ru Rh Pd Ir Pt", "Be Al Ga In V Nb Ta"),
            ),
            draw=400,
            always=("Cs Cl", "Cs Br", "Cs I", "Ni Al", "Fe Al", "Co Al", "Cu Zn", "Ti Ni", "Mg Ag"),
        ),
        Prototype(
            "zinc blende",
            "B3",
            216,
            FCC,
            ((0, (0, 0, 0)), (1, (1 / 4, 1 / 4, 1 / 4))),
            (
                ("Li Na Cu Ag", "F Cl Br I"),
                ("Be Mg Mn Zn Cd Hg", "O S Se Te"),
                ("B Al Ga In Tl", "N P As Sb Bi"),
                ("Ti V Cr Mn Fe Co Ni Cu Zr Nb Mo", "N"),
                ("Si Ge Sn", "C"),
                ("Ge Sn", "Si"),
            ),
        ),
        Prototype(
            "wurtzite",
            "B4",
            186,
            hexagonal(IDEAL),
            (
                (0, (1 / 3, 2 / 3, 0)),
                (0, (2 / 3, 1 / 3, 1 / 2)),
                (1, (1 / 3, 2 / 3, u)),
                (1, (2 / 3, 1 / 3, 1 / 2 + u)),
            ),
            (
                ("Li Na Cu Ag", "F Cl Br I"),
                ("Be Mg Mn Zn Cd Hg", "O S Se Te"),
                ("B Al Ga In Tl", "N P As Sb Bi"),
                ("Si Ge Sn", "C"),
            ),
            axial=True,
        ),
        Prototype(
            "NiAs",
            "B8_1",
            194,
            hexagonal(IDEAL),  # observed: 1.2 to 2.0
            (
                (0, (0, 0, 0)),
                (0, (0, 0, 1 / 2)),
                (1, (1 / 3, 2 / 3, 1 / 4)),
                (1, (2 / 3, 1 / 3, 3 / 4)),
            ),
            ((TRANSITION_METALS, "P As Sb Bi S Se Te Ge Sn Pb"),),
            axial=True,
        ),
        Prototype(
            "fluorite",
            "C1",
            225,
            FCC,
            ((0, (0, 0, 0)), (1, (1 / 4, 1 / 4, 1 / 4)), (1, (3 / 4, 3 / 4, 3 / 4))),
            (
                ("Mg Ca Sr Ba Mn Zn Cd Hg Pb Sm Eu Yb", "F Cl"),
                ("Ti Zr Hf Sn Pb Ce Pr Tb Th U", "O"),
                ("O S Se Te", "Li Na K Rb"),  # antifluorite
                ("Si Ge Sn Pb", "Mg"),
                ("Fe Co Ni Rh Ir Pd Pt", "Si Ge Sn"),
                ("Rh Ir Pd Pt Au", "Al Ga In"),
                (f"{RARE_EARTHS} Ti Zr Hf V Nb Ta", "H"),
            ),
        ),
        Prototype(
            "rutile",
            "C4",
            136,
            tetragonal(0.644),
            (
                (0, (0, 0, 0)),
                (0, (1 / 2, 1 / 2, 1 / 2)),
                (1, (x, x, 0)),
                (1, (1 - x, 1 - x, 0)),
                (1, (1 / 2 + x, 1 / 2 - x, 1 / 2)),
                (1, (1 / 2 - x, 1 / 2 + x, 1 / 2)),
            ),
            (
                ("Ti V Cr Mn Ni Zr Nb Mo Tc Ru Rh Pd Hf Ta W Re Os Ir Pt Si Ge Sn Pb Te", "O S"),
                ("Mg Ca V Cr Mn Fe Co Ni Cu Zn Pd Ag Cd", "H F Cl Br"),
            ),
            axial=True,
        ),
        Prototype(
            "L1_2",
            "L1_2",
            221,
            CUBIC,
            ((0, (0, 0, 0)), (1, (0, 1 / 2, 1 / 2)), (1, (1 / 2, 0, 1 / 2)), (1, (1 / 2, 1 / 2, 0))),
            (
                (f"Al Ga In Si Ge Sn Ti V Cr Mn Fe Zr Nb Mo Hf Ta W {RARE_EARTHS}", "Fe Co Ni Cu Rh Pd Ag Ir Pt Au"),
                (f"{RARE_EARTHS} Yb Ti Zr Hf Th U", "Al Ga In Tl Sn Pb"),
            ),
            draw=400,
            always=("Au Cu", "Al Ni", "Ga Ni", "Fe Ni", "Fe Pt", "Sc Al", "Er Al", "Ti Ir", "Ce Sn", "La In"),
        ),
        Prototype(
            "perovskite",
            "E2_1",
            221,
            CUBIC,
            (
                (0, (0, 0, 0)),
                (1, (1 / 2, 1 / 2, 1 / 2)),
                (2, (0, 1 / 2, 1 / 2)),
                (2, (1 / 2, 0, 1 / 2)),
                (2, (1 / 2, 1 / 2, 0)),
            ),
            (
                ("Na K Rb Ag", "V Nb Ta", "O"),
                ("Ca Sr Ba Cd Eu Pb", "Si Ti V Cr Mn Fe Co Ge Zr Mo Ru Sn Ce Hf Ir Th", "O"),
                ("Y La Pr Nd Sm Gd Lu Bi", "Al Sc Ti V Cr Mn Fe Co Ni Ga Rh In", "O"),
                ("Na K Rb Cs", "Mg Ca Mn Fe Co Ni Zn Cd", "F"),
                ("K Rb Cs", "Ca Cd Ge Sn Pb", "Cl Br I"),
            ),
        ),
        # MgAgAs: roles 0 and 2 form rock salt, roles 1 and 2 zinc blende.
        Prototype(
            "half-Heusler",
            "C1_b",
            216,
            FCC,
            ((0, (1 / 2, 1 / 2, 1 / 2)), (1, (1 / 4, 1 / 4, 1 / 4)), (2, (0, 0, 0))),
            (
                ("Ti Zr Hf", "Ni Pd Pt", "Si Ge Sn Pb"),
                ("Ti Zr Hf", "Co Rh Ir", "P As Sb Bi"),
                ("V Nb Ta", "Co Rh Ir", "Si Ge Sn"),
                ("V Nb Ta", "Fe Ru Os", "P As Sb Bi"),
                ("Sc Y La Gd Tb Dy Ho Er Tm Lu", "Ni Pd Pt", "As Sb Bi"),
                ("Li Na", "Mg Zn Cd", "N P As Sb"),
                ("Mg", "Cu Ag Ni", "As Sb Bi"),
            ),
        ),
        Prototype(
            "full-Heusler",
            "L2_1",
            225,
            FCC,
            ((0, (1 / 4, 1 / 4, 1 / 4)), (0, (3 / 4, 3 / 4, 3 / 4)), (1, (0, 0, 0)), (2, (1 / 2, 1 / 2, 1 / 2))),
            (("Mn Fe Co Ni Cu Ru Rh Pd Ir Pt Au", "Sc Ti V Cr Mn Fe Y Zr Nb Er Hf Ta", "Al Ga In Si Ge Sn Sb"),),
            draw=540,
            always=("Co Mn Si", "Co Fe Si", "Co Mn Ge", "Cu Mn Al", "Ni Mn Ga", "Ni Mn In", "Fe V Al", "Ni Ti Al"),
        ),
    )
}

# Non-metals are not close-packed. (space group, a b c α β γ, fractional coordinates) start a relaxation of cell and
# atoms; "dimer" is a molecule in a 14 Å box. Used as zero of energy only: none of them is a crystal of the set.
# Sulfur takes the chains of selenium, in place of the 128-atom cell of S8 rings.
CHAIN = ("P3_121", (4.37, 4.37, 4.95, 90, 90, 120), ((0.225, 0, 1 / 3),))
LAYER = ("R-3m", (4.2, 4.2, 11.2, 90, 90, 120), ((0, 0, 0.23),))
ELEMENT_REFERENCES: dict[str, Any] = {
    **dict.fromkeys(("H", "N", "O", "F", "Cl", "Br", "I"), "dimer"),
    "B": ("R-3m", (4.908, 4.908, 12.567, 90, 90, 120), ((0.119, 0.238, 0.8916), (0.1969, 0.3938, 0.0243))),  # B12
    "C": ("P6_3/mmc", (2.464, 2.464, 6.711, 90, 90, 120), ((0, 0, 1 / 4), (1 / 3, 2 / 3, 1 / 4))),  # graphite
    "P": ("Cmce", (3.314, 10.478, 4.376, 90, 90, 90), ((0, 0.1017, 0.0806),)),  # black phosphorus
    "Ga": ("Cmce", (4.523, 7.661, 4.524, 90, 90, 90), ((0, 0.1549, 0.081),)),
    **dict.fromkeys(("As", "Sb", "Bi"), LAYER),
    **dict.fromkeys(("S", "Se", "Te"), CHAIN),
}


class Dropped(Exception):
    """Says why a crystal is not in the set."""


def plan(seed: int = SEED) -> list[tuple[str, tuple[str, ...]]]:
    """Returns (prototype, elements by role) of every crystal to try, in the order of the set."""
    rng = random.Random(seed)
    crystals = []
    for prototype in PROTOTYPES.values():
        known = [tuple(elements.split()) for elements in prototype.always]
        choices = (itertools.product(*(role.split() for role in family)) for family in prototype.families)
        combinations = dict.fromkeys(c for c in itertools.chain(*choices) if len(set(c)) == len(c) and c not in known)
        drawn = list(combinations)
        if prototype.draw is not None:
            drawn = rng.sample(drawn, prototype.draw - len(known))
        crystals += [(prototype.name, elements) for elements in known + drawn]
    rng.shuffle(crystals)
    return crystals


# ---- Equation of state ----


def birch_murnaghan(volumes: np.ndarray, energies: np.ndarray) -> tuple[float, float, float, float]:
    """Fits E(V) with the third-order Birch-Murnaghan equation, a cubic in y = V^(-2/3).

    B0 = V0 E''(V0) = 4/9 V0^(-7/3) d²E/dy² at the minimum.

    Args:
      volumes: Å³/atom, [n].
      energies: eV/atom, [n], n > 4.

    Returns:
      V0 in Å³/atom, E0 in eV/atom, B0 in GPa and the rms residual in eV/atom.

    Raises:
      Dropped: If the fit has no minimum with a positive bulk modulus.

    Source: Birch, Phys. Rev. 71, 809 (1947).
    """
    scale = volumes.mean() ** (-2 / 3)
    y = volumes ** (-2 / 3) / scale  # close to 1: the cubic is well conditioned in y - 1
    fit: Any = np.polynomial.Polynomial.fit(y - 1, energies, 3, domain=[-0.05, 0.05])
    roots = fit.deriv().roots()
    minima = [r.real for r in roots if abs(r.imag) < 1e-9 and fit.deriv(2)(r.real) > 0 and r.real > -1]
    if not minima:
        raise Dropped("energy has no minimum in volume")
    y0 = minima[0]
    volume = ((1 + y0) * scale) ** (-3 / 2)
    modulus = 4 / 9 * volume ** (-7 / 3) * fit.deriv(2)(y0) / scale**2 * GPA
    residual = float(np.sqrt(np.mean((fit(y - 1) - energies) ** 2)))
    return volume, float(fit(y0)), float(modulus), residual


def find_equation_of_state(
    energies_at: Callable[[np.ndarray], np.ndarray], volume: float
) -> tuple[float, float, float, float]:
    """Re-centres WINDOW until the fitted V0 is within 1 % of its centre; see birch_murnaghan for the values."""
    for _ in range(12):
        volumes = volume * WINDOW
        energies = energies_at(volumes)
        if not np.isfinite(energies).all():
            raise Dropped(f"an atom without neighbour within {CUTOFF:g} Å")
        lowest = int(np.argmin(energies))
        if 0 < lowest < len(WINDOW) - 1:
            result = birch_murnaghan(volumes, energies)
            shift = result[0] / volume
        else:
            shift = WINDOW[lowest]
        if 0.99 < shift < 1.01:
            return result
        volume *= float(np.clip(shift, WINDOW[0], WINDOW[-1]))
    raise Dropped("energy has no minimum in volume")


def scan_volumes(energies_at: Callable[[np.ndarray], np.ndarray], volume: float) -> float:
    """Returns the volume of the lowest local minimum among SCAN; energies still falling at the ends do not count."""
    energies = energies_at(volume * SCAN)
    interior = [i for i in range(1, len(SCAN) - 1) if energies[i] < min(energies[i - 1], energies[i + 1])]
    if not interior:
        raise Dropped("energy has no minimum in volume")
    return volume * float(SCAN[min(interior, key=lambda i: energies[i])])


# ---- Crystals ----


@functools.cache
def load_model() -> Any:
    """Loads CHGNet once per process, on one thread."""
    try:
        import torch
        from chgnet.model.model import CHGNet
    except ImportError as error:
        raise SystemExit("make_demo needs CHGNet: pip install chgnet") from error
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):  # CHGNet greets on every load
        model = CHGNet.load(model_name=MODEL, use_device="cpu", verbose=False)
    model.graph_converter.set_isolated_atom_response("error")  # it would only warn
    return model


def predict_energies(structures: list[Any]) -> np.ndarray:
    """CHGNet energies in eV/atom; inf where an atom has no neighbour within CUTOFF."""
    model = load_model()
    energies = np.full(len(structures), np.inf)
    graphs = {}
    for i, structure in enumerate(structures):
        try:
            graphs[i] = model.graph_converter(structure)
        except ValueError:  # raised for isolated atoms only
            continue
    predictions = model.predict_graph(list(graphs.values()), task="e", batch_size=len(graphs) or 1)
    energies[list(graphs)] = [float(p["e"]) for p in predictions]
    return energies


def build(prototype: Prototype, elements: tuple[str, ...], volume: float, axial_strain: float = 0.0) -> Any:
    """Returns the pymatgen Structure with `volume` Å³/atom and c/a multiplied by exp(axial_strain)."""
    from pymatgen.core import Lattice, Structure

    lattice = np.array(prototype.lattice)
    lattice[:, 2] *= math.exp(axial_strain)  # c is along z in every prototype with a c axis
    lattice *= (volume * len(prototype.sites) / abs(np.linalg.det(lattice))) ** (1 / 3)
    roles, coordinates = zip(*prototype.sites, strict=True)
    return Structure(Lattice(lattice), [elements[role] for role in roles], coordinates)


def touching_volume(prototype: Prototype, elements: tuple[str, ...]) -> float:
    """Volume in Å³/atom at which the first two atoms touch: d = sum of covalent radii (Cordero et al. 2008)."""
    from ase.data import atomic_numbers, covalent_radii

    volume = 20.0
    structure = build(prototype, elements, volume)
    radii = np.array([covalent_radii[atomic_numbers[site.specie.symbol]] for site in structure])
    i, j, _, distances = structure.get_neighbor_list(CUTOFF)
    return volume * float(np.max((radii[i] + radii[j]) / distances)) ** 3


def relax(prototype: Prototype, elements: tuple[str, ...]) -> tuple[Any, float, float]:
    """Relaxes volume, and c/a where the prototype has one.

    Returns:
      The crystal at V0, E0 in eV/atom and B0 in GPa.

    Raises:
      Dropped: With the reason, if the crystal does not qualify.
    """

    def energies_at(volumes: np.ndarray) -> np.ndarray:
        return predict_energies([build(prototype, elements, v, strain) for v in volumes])

    strain = 0.0
    start = touching_volume(prototype, elements)
    volume = scan_volumes(energies_at, start)
    for _ in range(12):
        volume, energy, modulus, residual = find_equation_of_state(energies_at, volume)
        if not prototype.axial:
            break
        step = axial_step([build(prototype, elements, volume, strain + s) for s in AXIAL_STRAINS])
        if abs(step) < 0.005:
            break
        strain += step
        if abs(strain) > MAX_AXIAL_STRAIN:
            raise Dropped(f"ln(c/a) moves more than {MAX_AXIAL_STRAIN} from the prototype's")
    else:
        raise Dropped("c/a does not converge")
    if not SCAN[0] < volume / start < SCAN[-1]:
        raise Dropped(f"volume outside {SCAN[0]:.2f} to {SCAN[-1]:.2f} of touching atoms")
    if residual > MAX_RESIDUAL:
        raise Dropped("energies are not smooth enough for the equation of state")
    structure = build(prototype, elements, volume, strain)
    if min(structure.get_neighbor_list(CUTOFF)[3], default=CUTOFF) < MIN_DISTANCE:
        raise Dropped(f"two atoms closer than {MIN_DISTANCE} Å")
    return structure, energy, modulus


def axial_step(structures: list[Any]) -> float:
    """Change of ln(c/a) to the minimum of a parabola through AXIAL_STRAINS, at most one window."""
    energies = predict_energies(structures)
    if not np.isfinite(energies).all():
        raise Dropped(f"an atom without neighbour within {CUTOFF:g} Å")
    curvature, slope, _ = np.polyfit(AXIAL_STRAINS, energies, 2)
    if curvature <= 0:
        return float(AXIAL_STRAINS[np.argmin(energies)])
    return float(np.clip(-slope / (2 * curvature), AXIAL_STRAINS[0], AXIAL_STRAINS[-1]))


def relax_reference(element: str) -> float:
    """CHGNet energy in eV/atom of the element's structure in ELEMENT_REFERENCES, cell and atoms relaxed."""
    model = load_model()
    from ase.data import atomic_numbers, covalent_radii
    from chgnet.model import StructOptimizer
    from pymatgen.core import Lattice, Structure

    recipe = ELEMENT_REFERENCES[element]
    if recipe == "dimer":
        bond = 2 * covalent_radii[atomic_numbers[element]]
        structure = Structure(Lattice.cubic(14.0), [element] * 2, [(0, 0, 0), (bond, 0, 0)], coords_are_cartesian=True)
    else:
        group, cell, sites = recipe
        structure = Structure.from_spacegroup(group, Lattice.from_parameters(*cell), [element] * len(sites), sites)
        structure = structure.get_primitive_structure()
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = StructOptimizer(model=model, use_device="cpu", on_isolated_atoms="error")
    result = optimizer.relax(structure, fmax=0.01, steps=1000, relax_cell=recipe != "dimer", verbose=False)
    return float(result["trajectory"].energies[-1]) / len(structure)


def make(key: str) -> dict[str, Any]:
    """Makes what `key` names, "reference/O" or "perovskite/Sr Ti O", as a line of the cache."""
    name, elements = key.split("/")
    if name == "reference":
        return {"key": key, "energy": round(relax_reference(elements), 6)}
    try:
        structure, energy, modulus = relax(PROTOTYPES[name], tuple(elements.split()))
    except Dropped as reason:
        return {"key": key, "dropped": str(reason)}
    return {
        "key": key,
        "formula": structure.composition.reduced_formula,
        "lattice": (structure.lattice.matrix.round(6) + 0.0).tolist(),
        "species": [site.specie.symbol for site in structure],
        "frac_coords": (structure.frac_coords.round(6) + 0.0).tolist(),
        "energy": round(energy, 6),
        "modulus": round(modulus, 4),
        "volume": round(structure.volume / len(structure), 6),
    }


# ---- The set ----


def read_cache(path: pathlib.Path, stamp: str) -> dict[str, dict[str, Any]]:
    """Reads finished crystals; starts over if script or CHGNet changed, and forgets a half-written last line."""
    lines = path.read_text().split("\n") if path.exists() else []
    made = {}
    if lines and lines[0] == stamp:
        for line in lines[1:]:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            made[row["key"]] = row
    path.write_text("\n".join([stamp, *map(json.dumps, made.values()), ""]))
    return made


def make_all(keys: list[str], cache: pathlib.Path, workers: int) -> dict[str, dict[str, Any]]:
    """Makes every key that the cache lacks, in `workers` processes; one crystal's numbers depend on nothing else."""
    stamp = json.dumps(
        [importlib.metadata.version("chgnet"), hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()]
    )
    made = read_cache(cache, stamp)
    todo = [key for key in keys if key not in made]
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork reliably
    with cache.open("a") as file, concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            for row in track(pool.map(make, todo, chunksize=4), len(made), len(keys)):
                made[row["key"]] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return made


def track(rows: Iterator[dict[str, Any]], done: int, total: int) -> Iterator[dict[str, Any]]:
    for row in rows:
        done += 1
        if done % 20 == 0 or done == total:
            print(f"\r{done} of {total}", end="" if done < total else "\n", file=sys.stderr, flush=True)
        yield row


def reference_energies(made: dict[str, dict[str, Any]]) -> dict[str, tuple[float, str]]:
    """Lowest energy of each element in eV/atom, and the structure which has it."""
    lowest: dict[str, tuple[float, str]] = {}
    for row in made.values():
        name, elements = row["key"].split("/")
        if "energy" in row and " " not in elements:
            lowest[elements] = min(lowest.get(elements, (math.inf, "")), (row["energy"], name))
    return lowest


def to_record(number: int, row: dict[str, Any], references: dict[str, tuple[float, str]]) -> dict[str, Any]:
    name = row["key"].split("/")[0]
    zero = sum(references[element][0] for element in row["species"]) / len(row["species"])
    return {
        "id": f"demo-{number:04d}-{row['formula']}-{name.replace(' ', '').replace('_', '')}",
        "lattice": row["lattice"],
        "species": row["species"],
        "frac_coords": row["frac_coords"],
        "properties": {
            "formation_energy_eV_per_atom": round(row["energy"] - zero, 6) + 0.0,
            "energy_eV_per_atom": row["energy"],
            "bulk_modulus_GPa": row["modulus"],
            "log10_bulk_modulus_GPa": round(math.log10(row["modulus"]), 6),
            "volume_A3_per_atom": row["volume"],
        },
        "meta": {"prototype": name},
    }


def write(records: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Writes gzipped JSON lines; no time stamp and no name inside, so equal records are equal bytes."""
    text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as file:
        file.write(text.encode())
    os.replace(temporary, path)


def report(
    records: list[dict[str, Any]], dropped: list[tuple[str, str]], references: dict[str, tuple[float, str]]
) -> None:
    """Prints the numbers of demo_card.md."""
    versions = {name: importlib.metadata.version(name) for name in ("chgnet", "pymatgen", "torch", "numpy")}
    print(f"{versions}, CHGNet weights {MODEL}")
    counts = collections.Counter(record["meta"]["prototype"] for record in records)
    lost = collections.Counter(key.split("/")[0] for key, _ in dropped)
    for name, prototype in PROTOTYPES.items():
        print(f"| {name} | {prototype.symbol} | {prototype.space_group} | {counts[name]} | {lost[name]} |")
    elements = {element for record in records for element in record["species"]}
    print(f"{len(records)} crystals, {len(counts)} prototypes, {len(elements)} elements, {len(dropped)} dropped")
    for name in records[0]["properties"]:
        values = np.array([record["properties"][name] for record in records])
        print(f"| {name} | {values.min():.4g} | {values.mean():.4g} | {values.max():.4g} |")
    for reason, count in collections.Counter(reason for _, reason in dropped).most_common():
        print(f"| {reason} | {count} | {', '.join(key for key, why in dropped if why == reason)} |")
    print("references:", ", ".join(f"{e} {name} {energy:.3f}" for e, (energy, name) in sorted(references.items())))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Makes the demo data set with the CHGNet potential.")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    load_model()  # fails here, once, where CHGNet is missing

    keys = [f"reference/{element}" for element in ELEMENT_REFERENCES]
    keys += [f"{name}/{' '.join(elements)}" for name, elements in plan()]
    cache = options.output.with_name(options.output.name + ".partial")
    made = make_all(keys, cache, options.workers)
    references = reference_energies(made)
    if missing := {symbol for row in made.values() for symbol in row.get("species", ())} - set(references):
        raise ValueError(f"no reference energy for {sorted(missing)}; add them to METALS or ELEMENT_REFERENCES")
    rows = [made[key] for key in keys if "species" in made[key]]
    records = [to_record(number, row, references) for number, row in enumerate(rows, start=1)]
    write(records, options.output)
    cache.unlink()
    report(records, [(key, made[key]["dropped"]) for key in keys if "dropped" in made[key]], references)


if __name__ == "__main__":
    main()
