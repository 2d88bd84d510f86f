"""Crystal graphs as drawings: atoms as nodes, every bond as a line of its own (Fig. S1)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from cgcnn_jax.data import elements
from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.report.figures import PALETTE, new_figure

MOST = 24
"""Atoms up to which a graph is drawn; of more, no line could be told from the next."""


@dataclass(frozen=True)
class Bond:
    """A bond of the drawing.

    Attributes:
      one, other: Its atoms; the same atom where it is bonded to its own image.
      distance: In Å.
      is_mutual: False if `other` is a neighbour of `one` but not the other way round.
    """

    one: int
    other: int
    distance: float
    is_mutual: bool


def bonds(graph: CrystalGraphs) -> list[Bond]:
    """The bonds of one crystal: two edges that are one another's reverse are one bond.

    Args:
      graph: A crystal, as Featurizer(use_quotient=False) makes it; an edge of weight 2 counts as two.

    Raises:
      ValueError: If it is not one crystal, or a quotient, whose nodes stand for several atoms.
    """
    if len(graph.n_node) != 1:
        raise ValueError(f"one crystal at a time can be drawn, got {len(graph.n_node)}")
    if not np.allclose(graph.node_weight, 1) or not np.allclose(graph.edge_weight, np.round(graph.edge_weight)):
        raise ValueError("a quotient graph has no atoms to draw; make the graph with use_quotient=False")
    left: Counter[tuple[int, int, float]] = Counter()
    for i, j, distance, weight in zip(
        graph.receivers.tolist(), graph.senders.tolist(), graph.distances.tolist(), graph.edge_weight, strict=True
    ):
        left[i, j, round(distance, 3)] += round(float(weight))
    found = []
    for i, j, distance in sorted(left):
        here = left[i, j, distance]
        if i == j:
            # A bond to an image and the bond from the image opposite are two edges and one bond.
            found += [Bond(i, i, distance, True)] * (here // 2) + [Bond(i, i, distance, False)] * (here % 2)
        else:
            mutual = min(here, left[j, i, distance])
            if i < j:
                found += [Bond(i, j, distance, True)] * mutual
            found += [Bond(i, j, distance, False)] * (here - mutual)
    return found


def crystal_graphs(graphs: Mapping[str, CrystalGraphs]) -> Figure:
    """A panel for each crystal: its atoms on a circle (two side by side), and every bond between them.

    Colours tell the bond lengths apart. An arrow ends at the atom that has the other as a neighbour where that is not
    mutual. Below stands how many neighbours each element has.

    Args:
      graphs: One full graph by title, see `bonds`.

    Raises:
      ValueError: If there is none, one is not a full graph of one crystal, or it has more than MOST atoms.
    """
    if not graphs:
        raise ValueError("crystal_graphs needs at least one graph")
    is_flat = max(len(graph.species) for graph in graphs.values()) == 2
    figure = new_figure(4.6 * len(graphs), 3.2 if is_flat else 4.6)
    for axes, (title, graph) in zip(figure.subplots(1, len(graphs), squeeze=False)[0], graphs.items(), strict=True):
        if len(graph.species) > MOST:
            raise ValueError(
                f"{title}: {len(graph.species)} atoms are too many to draw; at most {MOST}, take a smaller cell"
            )
        _panel(axes, title, graph)
        axes.set(xlim=(-1.5, 1.5), ylim=(-0.9, 0.9) if is_flat else (-1.6, 1.4), aspect="equal")
    return figure


def _panel(axes: Axes, title: str, graph: CrystalGraphs) -> None:
    drawn = bonds(graph)
    places = _places(len(graph.species))
    colors = {distance: PALETTE[n % len(PALETTE)] for n, distance in enumerate(sorted({b.distance for b in drawn}))}
    for bond, curve in _curved(drawn):
        if bond.one == bond.other:
            _loop(axes, places[bond.one], curve, colors[bond.distance])
            continue
        line = FancyArrowPatch(
            places[bond.other],
            places[bond.one],
            arrowstyle="-" if bond.is_mutual else "-|>",
            mutation_scale=14,
            connectionstyle=f"arc3,rad={curve}",
            shrinkA=15,
            shrinkB=15,
            color=colors[bond.distance],
            lw=1.8,
            gid="bond",
        )
        axes.add_patch(line)
    symbols = [elements.symbol(int(number)) for number in graph.species]
    kinds = {symbol: n for n, symbol in enumerate(dict.fromkeys(symbols))}
    for place, symbol in zip(places, symbols, strict=True):
        axes.plot(
            *place, marker="o", ms=34, mfc=("white", "0.85", "0.7", "0.55")[kinds[symbol] % 4], mec="0.2", mew=1.4
        )
        axes.text(place[0], place[1], symbol, ha="center", va="center", fontsize=13)
    for distance, color in colors.items():
        many = sum(bond.distance == distance for bond in drawn)
        axes.plot([], [], color=color, lw=1.8, label=f"{many} bond{'s' * (many != 1)} of {distance:.2f} Å")
    neighbors = np.bincount(graph.receivers, graph.edge_weight, len(graph.species)).astype(int)
    of_each = {
        symbol: sorted({int(n) for n, s in zip(neighbors, symbols, strict=True) if s == symbol}) for symbol in kinds
    }
    told = ", ".join(f"{symbol} has {' or '.join(map(str, numbers))}" for symbol, numbers in of_each.items())
    axes.set_title(f"{title}\n{told} neighbours", fontsize=12)
    axes.legend(frameon=False, fontsize=10.5, loc="upper center", bbox_to_anchor=(0.5, 0.06))
    axes.axis("off")


def _places(n_atom: int) -> np.ndarray:
    """Where the atoms stand, [n_atom, 2]: one in the middle, others on a circle from the left."""
    if n_atom == 1:
        return np.zeros((1, 2))
    angle = np.pi - 2 * np.pi * np.arange(n_atom) / n_atom
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _curved(drawn: list[Bond]) -> Iterator[tuple[Bond, float]]:
    """Every bond with its curvature, so that those between the same atoms fan out; of loops, their number."""
    among: Counter[frozenset[int]] = Counter(frozenset((bond.one, bond.other)) for bond in drawn)
    done: Counter[frozenset[int]] = Counter()
    for bond in drawn:
        pair = frozenset((bond.one, bond.other))
        place, done[pair] = done[pair], done[pair] + 1
        curve = 0.0 if among[pair] == 1 else 1.1 * (place / (among[pair] - 1) - 0.5) * min(1.0, among[pair] / 5)
        # An arrow the other way bends to the other side of its own direction.
        yield bond, float(place) if bond.one == bond.other else curve if bond.one < bond.other else -curve


def _loop(axes: Axes, place: np.ndarray, number: float, color: str) -> None:
    """A circle that touches the atom from the middle of the drawing outwards, larger for every further bond."""
    outwards = place / np.linalg.norm(place) if place.any() else np.array([0.0, 1.0])
    radius = 0.18 + 0.06 * number
    turn = 2 * np.pi * np.linspace(0, 1, 60)
    center = place + radius * outwards
    axes.plot(
        center[0] + radius * np.cos(turn), center[1] + radius * np.sin(turn), color=color, lw=1.8, gid="bond", zorder=1
    )
