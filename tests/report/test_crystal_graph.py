from collections import Counter

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.graph import CrystalGraphs, concatenate
from cgcnn_jax.report.crystal_graph import Bond, bonds, crystal_graphs

FACES = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
NACL = Crystal.from_arrays("NaCl", 2.82 * FACES, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
# CsCl type, as in the worked example of the supplement: eight neighbours at a sqrt(3) / 2.
KCL = Crystal.from_arrays("KCl", 3.75 * np.eye(3), ["K", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
COPPER = Crystal.from_arrays("Cu", 1.8 * FACES, ["Cu"], [[0, 0, 0]])
PEROVSKITE = Crystal.from_arrays(
    "SrTiO3",
    3.9 * np.eye(3),
    ["Sr", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)


def graph_of(crystal: Crystal, num_neighbors: int) -> CrystalGraphs:
    return Featurizer(WholeShells(num_neighbors), use_quotient=False)(crystal).graphs


def drawn(axes) -> int:
    return sum(artist.get_gid() == "bond" for artist in (*axes.patches, *axes.lines))


def test_nacl_has_six_bonds_and_kcl_eight() -> None:
    figure = crystal_graphs({"NaCl": graph_of(NACL, 6), "KCl": graph_of(KCL, 6)})
    assert [drawn(axes) for axes in figure.axes] == [6, 8]
    assert [axes.get_title() for axes in figure.axes] == [
        "NaCl\nNa has 6, Cl has 6 neighbours",
        "KCl\nK has 8, Cl has 8 neighbours",
    ]
    legends = [axes.get_legend().get_texts()[0].get_text() for axes in figure.axes]
    assert legends == ["6 bonds of 2.82 Å", f"8 bonds of {3.75 * 3**0.5 / 2:.2f} Å"]
    symbols = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert symbols == [["Na", "Cl"], ["K", "Cl"]]


def test_bonds_of_the_worked_example_are_mutual() -> None:
    assert bonds(graph_of(NACL, 6)) == [Bond(0, 1, 2.82, True)] * 6


def test_the_conventional_cell_has_four_times_the_bonds(rock_salt: Crystal) -> None:
    found = bonds(graph_of(rock_salt, 6))
    assert len(found) == 24 and all(bond.is_mutual for bond in found)
    # Every atom is at the end of six.
    ends = Counter(end for bond in found for end in (bond.one, bond.other))
    assert ends == dict.fromkeys(range(8), 6)


def test_bonds_to_images_are_loops_and_stand_for_two_neighbours() -> None:
    figure = crystal_graphs({"Cu": graph_of(COPPER, 12)})
    assert drawn(figure.axes[0]) == 6  # 12 neighbours, opposite ones being one bond
    assert figure.axes[0].get_title() == "Cu\nCu has 12 neighbours"


def test_one_sided_neighbours_are_arrows() -> None:
    # Two neighbours of O are Ti, the six of Ti O, and the twelve of Sr O, of which no O has Sr among its two.
    counts = Counter((bond.one, bond.is_mutual) for bond in bonds(graph_of(PEROVSKITE, 2)))
    assert counts == {(1, True): 6, (0, False): 12}


def test_what_cannot_be_drawn_is_told(rock_salt: Crystal) -> None:
    with pytest.raises(ValueError, match="at least one graph"):
        crystal_graphs({})
    with pytest.raises(ValueError, match="make the graph with use_quotient=False"):
        bonds(Featurizer(WholeShells(6))(rock_salt).graphs)
    with pytest.raises(ValueError, match="one crystal at a time can be drawn, got 2"):
        bonds(concatenate([graph_of(NACL, 6)] * 2))
    cells = np.indices((3, 3, 2)).reshape(3, -1).T / (3, 3, 2)
    large = Crystal.from_arrays("Po", 3.3 * np.diag([3, 3, 2]), ["Po"] * 18, cells)
    larger = Crystal.from_arrays(
        "Po",
        3.3 * np.diag([3, 3, 4]),
        ["Po"] * 36,
        np.concatenate([cells / (1, 1, 2), cells / (1, 1, 2) + [0, 0, 0.5]]),
    )
    assert drawn(crystal_graphs({"Po": graph_of(large, 6)}).axes[0]) == 18 * 6 // 2
    with pytest.raises(ValueError, match="Po: 36 atoms are too many to draw; at most 24"):
        crystal_graphs({"Po": graph_of(larger, 6)})
