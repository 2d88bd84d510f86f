"""Vacuum: empty space in a cell, as between slabs, of which bonds to near neighbours tell nothing."""

import itertools

import numpy as np

from cgcnn_jax.data.crystal import Crystal

# h, k, l of -1, 0 or 1, a plane and its opposite once.
_PLANES = np.array([plane for plane in itertools.product((1, 0, -1), repeat=3) if plane > (0, 0, 0)])


def thickness(crystal: Crystal) -> float:
    """The thickest layer that holds no atom's centre, Å.

    t = max_hkl d_hkl max_n (s_n+1 - s_n) for lattice planes (hkl) of the given cell with indices -1, 0 and 1: s are the
    positions h x + k y + l z of the atoms modulo 1, sorted and cyclic, d_hkl = 1 / |h a* + k b* + l c*|. Slabs, chains and
    molecules in a box have a layer along such planes in every cell that is usual for them.
    """
    spacing = 1 / np.linalg.norm(_PLANES @ np.linalg.inv(crystal.lattice).T, axis=1)
    positions = np.sort(crystal.frac_coords @ _PLANES.T % 1.0, axis=0)
    widest = np.diff(positions, axis=0, append=positions[:1] + 1).max(axis=0)
    return float((spacing * widest).max())
