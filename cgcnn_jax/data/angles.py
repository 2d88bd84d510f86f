"""Angles between bonds, as features of every bond."""

import itertools
import math

import numpy as np

from cgcnn_jax.data.neighbors import Edges

DEGREE = 4
NUM_ANGLES = 4 * DEGREE  # columns: two ends, two kinds of mean, DEGREE Legendre polynomials
_NEAR = 0.15  # how fast a bond that is longer than its atom's shortest ceases to count, as a share of that one

# x^a y^b z^c of every degree from 1 to DEGREE, and how often each stands in (x + y + z)^degree.
_POWERS = np.array([p for p in itertools.product(range(DEGREE + 1), repeat=3) if 1 <= sum(p) <= DEGREE])
_DEGREES = _POWERS.sum(axis=1)
_IS_DEGREE = (_DEGREES[:, None] == np.arange(1, DEGREE + 1)).astype(float)
_COUNTS = np.array([math.factorial(sum(p)) / math.prod(map(math.factorial, p)) for p in _POWERS.tolist()])


def bond_angles(edges: Edges) -> np.ndarray:
    r"""Where the bonds of its two atoms point, seen from each bond.

    At the receiver i of a bond with direction r, and at its sender j with -r:

    mean_k w_k P_l(r . r_k), l = 1 to 4, over all bonds k of that atom, r_k pointing away from it,

    once with w_k = exp(-(d_k / d_min - 1) / 0.15), which counts the nearest neighbours, once with w_k = 1. P_l are the
    Legendre polynomials, d_min is the atom's shortest bond. Bonds that count for r/m of one do so here. The numbers
    belong to the crystal: rotations, reflections, supercells and the order of atoms leave them as they are.

    Computed from the moments of r_k, mean_k w_k x^a y^b z^c, for (r . r_k)^p is a sum over those with a + b + c = p: the
    work grows with the bonds, not with the pairs of them.

    Args:
      edges: Sorted by receiver; every atom has a bond. With their vectors.

    Returns:
      f64[n_edge, 16], to six decimals: at the receiver nearest l = 1 to 4, all l = 1 to 4; the same at the sender.
    """
    if edges.vectors is None:
        raise ValueError("angles need the vectors of bonds, and bonds that the published code invents have none")
    direction = edges.vectors / edges.distances[:, None]
    powers = np.cumprod(np.stack([np.ones_like(direction), *[direction] * DEGREE]), axis=0)  # [1 + DEGREE, n_edge, 3]
    monomials = np.prod([powers[_POWERS[:, axis], :, axis] for axis in range(3)], axis=0).T
    starts = np.searchsorted(edges.receivers, np.arange(edges.receivers[-1] + 1))
    shortest = np.minimum.reduceat(edges.distances, starts)[edges.receivers]
    counted = np.ones(len(edges.distances)) if edges.weights is None else edges.weights
    columns = []
    # Seen from its sender the bond points the other way, and odd monomials change their sign.
    for atom, seen in ((edges.receivers, monomials), (edges.senders, monomials * (-1.0) ** _DEGREES)):
        for weights in (counted * np.exp(-(edges.distances / shortest - 1) / _NEAR), counted):
            sums = np.add.reduceat(weights[:, None] * monomials, starts)
            moments = sums / np.add.reduceat(weights, starts)[:, None]
            terms = _COUNTS * seen * moments[atom]
            p1, p2, p3, p4 = (terms @ _IS_DEGREE).T
            columns += [p1, (3 * p2 - 1) / 2, (5 * p3 - 3 * p1) / 2, (35 * p4 - 30 * p2 + 3) / 8]
    # Rounded, so that they are the same on machines whose sums differ in their last bit.
    return np.stack(columns, axis=1).round(6)
