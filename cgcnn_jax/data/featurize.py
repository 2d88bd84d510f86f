"""Crystal -> CrystalGraphs of one crystal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cgcnn_jax.data import elements, quotient, vacuum
from cgcnn_jax.data.angles import bond_angles
from cgcnn_jax.data.crystal import Crystal, CrystalError
from cgcnn_jax.data.neighbors import NeighborRule, WholeShells
from cgcnn_jax.graph import CrystalGraphs


class Featurized(NamedTuple):
    """One crystal's graph, the node that stands for each of its atoms (i32[n_atom]), its thickest empty layer (Å)."""

    graphs: CrystalGraphs
    atom_node: np.ndarray
    vacuum: float


Featurize = Callable[[Crystal], Featurized]


@dataclass(frozen=True)
class Featurizer:
    """How a crystal becomes a graph; part of every checkpoint.

    Attributes:
      neighbors: Who is bonded to whom.
      use_quotient: One node for all equivalent atoms; False keeps every atom. Predictions are the same.
      tolerance: Distances within this width (Å) count as equal in the quotient.
      known_species: Atomic numbers that have atom features; None takes any.
      angles: Whether bonds have angular features, see `data.angles.bond_angles`.
    """

    neighbors: NeighborRule = WholeShells()
    use_quotient: bool = True
    tolerance: float = 1e-3
    known_species: tuple[int, ...] | None = None
    angles: bool = False

    def __call__(self, crystal: Crystal) -> Featurized:
        """Raises CrystalError for unknown elements, overlapping atoms and atoms without neighbours."""
        if self.known_species is not None:
            unknown = np.setdiff1d(crystal.species, self.known_species)
            if len(unknown):
                names = ", ".join(elements.symbol(number) for number in unknown.tolist())
                raise CrystalError(
                    f"{crystal.id}: no atom features for {names}; leave the crystal out or "
                    "give a table that has it (atoms.table)"
                )
        edges = self.neighbors.find(crystal)
        angles = bond_angles(edges) if self.angles else None
        if self.use_quotient:
            nodes = quotient.reduce(crystal.species, edges, angles, tolerance=self.tolerance)
        else:
            nodes = quotient.full(crystal.species, edges, angles)
        graphs = CrystalGraphs(
            species=nodes.species.astype(np.int32),
            node_weight=nodes.node_weight.astype(np.float32),
            distances=nodes.edges.distances.astype(np.float32),
            edge_weight=nodes.edge_weight.astype(np.float32),
            senders=nodes.edges.senders.astype(np.int32),
            receivers=nodes.edges.receivers.astype(np.int32),
            n_node=np.array([len(nodes.species)], np.int32),
            n_edge=np.array([len(nodes.edges.distances)], np.int32),
            graph_mask=np.ones(1, bool),
            angles=nodes.angles.astype(np.float32),
        )
        return Featurized(graphs, nodes.atom_node.astype(np.int32), vacuum.thickness(crystal))
