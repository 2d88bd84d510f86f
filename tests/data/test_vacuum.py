"""Empty layers whose thickness is known, in whatever cell."""

import numpy as np
import pytest

from cgcnn_jax.data import vacuum
from cgcnn_jax.data.crystal import Crystal

SLAB = Crystal.from_arrays("slab", np.diag([3.0, 4.0, 15.0]), ["Na", "Cl"], [[0, 0, 0.9], [0.5, 0.5, 0.1]])


def test_a_slab_across_the_cell_s_edge_has_the_rest_of_the_cell_empty() -> None:
    assert vacuum.thickness(SLAB) == pytest.approx(0.8 * 15)


@pytest.mark.parametrize(
    "rows",
    [
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],  # other axes
        [[1, 0, 0], [0, 1, 0], [2, -3, 1]],  # slanted
        [[1, 0, 1], [0, 1, 0], [0, 0, 1]],  # an axis out of the slab
        [[2, 0, 0], [0, 1, 0], [0, 0, 1]],  # doubled within
        [[1, 1, 0], [-1, 1, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 2]],  # two slabs
    ],
)
def test_another_cell_of_the_same_slab_is_as_empty(rows: list[list[int]]) -> None:
    other = Crystal.from_structure("other", SLAB.to_structure().make_supercell(rows))
    assert vacuum.thickness(other) == pytest.approx(0.8 * 15)


def test_a_lattice_of_single_atoms_is_empty_between_its_widest_planes() -> None:
    # d = a / sqrt(h² + k² + l²): (100) of the simple cubic; (111) of the face-centred, (110) of the body-centred one.
    simple = Crystal.from_arrays("sc", 3 * np.eye(3), ["Po"], [[0, 0, 0]])
    assert vacuum.thickness(simple) == pytest.approx(3)
    faces = Crystal.from_arrays("fcc", 2 * (1 - np.eye(3)), ["Cu"], [[0.3, 0.2, 0.9]])
    assert vacuum.thickness(faces) == pytest.approx(4 / 3**0.5)
    body = Crystal.from_arrays("bcc", 2 * (1 - 2 * np.eye(3)), ["Fe"], [[0, 0, 0]])
    assert vacuum.thickness(body) == pytest.approx(4 / 2**0.5)
