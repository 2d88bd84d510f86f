"""The supplement's worked example: a network of Eq. 4 that says +1 for NaCl and -1 for KCl."""

import dataclasses

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.graph import PadBudget, pad
from cgcnn_jax.nn.basis import BinnedBasis
from tests.networks import RELEASED

LN2 = np.log(2.0)
# The embedding is v = 1 for Cl and v = 0 for Na and K. The convolution takes x = ln 2 (sum_j v_j) + 6 ln 2 v_i - 6 ln 2:
#   Na: six Cl around it,   6 ln 2 - 6 ln 2 = 0        softplus ln 2
#   K:  eight Cl around it, 8 ln 2 - 6 ln 2 = 2 ln 2   softplus ln(1 + 4) = ln 5
#   Cl: no Cl around it,    6 ln 2 - 6 ln 2 = 0        softplus ln 2
# Means: NaCl ln 2, KCl (ln 5 + ln 2) / 2. The output a v_c + b is 1 and -1 for a = -4 / ln(5/2), b = 1 - a ln 2.
SLOPE = -4 / np.log(2.5)
INTERCEPT = 1 - SLOPE * LN2


def rock_salt(a: float, cation: str) -> Crystal:
    faces = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return Crystal.from_arrays(
        "rock salt", a * np.eye(3), [cation] * 4 + ["Cl"] * 4, np.concatenate([faces, faces + [0.5, 0, 0]])
    )


def rock_salt_primitive(a: float, cation: str) -> Crystal:
    lattice = a / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal.from_arrays("primitive", lattice, [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def cesium_chloride(a: float, cation: str) -> Crystal:
    return Crystal.from_arrays("CsCl type", a * np.eye(3), [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def repeated(crystal: Crystal, times: tuple[int, int, int]) -> Crystal:
    cells = np.indices(times).reshape(3, -1).T
    coords = (crystal.frac_coords[None] + cells[:, None]).reshape(-1, 3) / times
    return Crystal.from_arrays(
        "supercell", crystal.lattice * np.array(times)[:, None], np.tile(crystal.species, len(cells)), coords
    )


# Lattice constants in Å: NaCl 5.64; KCl in the CsCl type about 3.75, as under pressure.
CELLS = {
    "NaCl conventional, 8 atoms": (rock_salt(5.64, "Na"), 6, 1.0),
    "NaCl primitive, 2 atoms": (rock_salt_primitive(5.64, "Na"), 6, 1.0),
    "NaCl 2x1x1, 16 atoms": (repeated(rock_salt(5.64, "Na"), (2, 1, 1)), 6, 1.0),
    "KCl 2x2x1, 8 atoms": (repeated(cesium_chloride(3.75, "K"), (2, 2, 1)), 8, -1.0),
    "KCl primitive, 2 atoms": (cesium_chloride(3.75, "K"), 8, -1.0),
    "KCl 2x2x2, 16 atoms": (repeated(cesium_chloride(3.75, "K"), (2, 2, 2)), 8, -1.0),
}


@pytest.mark.parametrize("use_quotient", [False, True], ids=["full", "quotient"])
@pytest.mark.parametrize("cell", CELLS)
def test_nacl_is_plus_one_and_kcl_minus_one(cell, use_quotient):
    crystal, coordination, expected = CELLS[cell]
    graphs = Featurizer(WholeShells(num_neighbors=6), use_quotient=use_quotient)(crystal).graphs
    np.testing.assert_array_equal(np.bincount(graphs.receivers, weights=graphs.edge_weight), coordination)
    table = np.zeros((20, 1), np.float32)
    table[17] = 1  # Cl
    model = dataclasses.replace(
        RELEASED,
        table_shape=table.shape,
        features=1,
        conv="sum",
        num_convs=1,
        basis=BinnedBasis(),
        activate_pooled=False,
        crystal_layers=0,
    )

    def linear(rows, bias):
        return {"kernel": np.float32(rows)[:, None], "bias": np.float32([bias])}

    params = {
        "embedding": linear([1], 0),
        # The sum of v_j has the first row; the ten bins of the bond lengths have the others.
        "conv_0": {"neighbors": linear([LN2] + [0] * 10, -6 * LN2), "self": {"kernel": np.float32([[6 * LN2]])}},
        "output": linear([SLOPE], INTERCEPT),
    }
    variables = {"params": params, "batch_stats": {}, "constants": {"atom_table": table}}
    padded = pad(graphs, PadBudget(len(graphs.species) + 2, len(graphs.distances) + 3, 2))
    prediction = model.apply(variables, padded)
    np.testing.assert_allclose(prediction[0], [expected], atol=1e-5)  # float32, slope 4.4
