"""What stands behind a prediction: contributions of atoms, gates of bonds, vectors."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cgcnn_jax.data import elements, store
from cgcnn_jax.data.crystal import Crystal, Entry, Rejected
from cgcnn_jax.data.portion import build
from cgcnn_jax.files import file_name, write_text
from cgcnn_jax.graph import CrystalGraphs, offsets
from cgcnn_jax.predict import Predictor, not_finite, portions

if TYPE_CHECKING:
    from pymatgen.core import Structure

CONTRIBUTION = "contribution"
# Columns of atom sites that a CIF has anyway.
_OF_ATOMS = ("type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy")


class Bonds(NamedTuple):
    """The bonds of one crystal as the network sees them, each in both directions, sorted by receiver.

    Attributes:
      receivers: Atom i, which the bond informs, i64[n_bond].
      senders: Its neighbour j, i64[n_bond]; several bonds of one pair go to different periodic images.
      distances: Å, f32[n_bond].
      weights: How much the bond counts in the sum, f32[n_bond]; 1 but for neighbours that share the last places.
      gates: Of each convolution, the sigmoid of Eq. 5 averaged over the features, f32[n_bond, num_convs].
      messages: The bond's term of that sum, gate times core, averaged likewise, f32[n_bond, num_convs].
    """

    receivers: np.ndarray
    senders: np.ndarray
    distances: np.ndarray
    weights: np.ndarray
    gates: np.ndarray
    messages: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """One crystal's prediction in parts.

    Attributes:
      id: Of the crystal.
      crystal: Its atoms.
      graphs: Its graph, as the predictor makes it.
      vacuum: Its thickest empty layer, Å.
      values: Prediction in units, or class probabilities, f64[n_output].
      vector: The pooled vector, f32[d].
      atoms: Of every atom, its vector, f32[n_atom, d].
      contributions: Of every atom, in units, f64[n_atom, n_output]: their mean is the prediction. In classification
        logits, whose mean's softmax is the prediction. None unless the model reads out sites.
      bonds: None if they were not asked for, or the convolution has no gate.
    """

    id: str
    crystal: Crystal
    graphs: CrystalGraphs
    vacuum: float
    values: np.ndarray
    vector: np.ndarray
    atoms: np.ndarray
    contributions: np.ndarray | None
    bonds: Bonds | None


def check_sites(predictor: Predictor) -> None:
    """Raises ValueError, saying what to train instead, if predictions are no sums over atoms."""
    pool = predictor.model.pool
    if pool != "site":
        raise ValueError(
            f"this model pools by {pool!r}: its prediction is a function of all atoms together, of which no atom has an "
            "exact share. Train one that predicts the mean of a number per atom, with --config.model.pool=site "
            "--config.model.crystal_layers=0 --config.model.atom_layers=1"
        )


def explain(
    predictor: Predictor,
    entries: Iterable[Entry | Rejected],
    *,
    with_bonds: bool = True,
    executor: Executor | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[Explanation | Rejected]:
    """Explains what the predictor says of each entry, in order.

    Args:
      predictor: A trained model.
      entries: Crystals or files, as a source yields them.
      with_bonds: Also pass the full graph through the network, where every atom and every bond is its own.
      executor: Builds the graphs; None does so in this process.
      on_progress: Called with the number of entries done since the last call.
    """
    featurizer = dataclasses.replace(predictor.featurizer, use_quotient=False)
    for some in portions(entries):
        portion = build(some, predictor.featurizer, executor)
        crystals = _read(some, portion.store)
        seen = predictor.inspect_graphs(portion.store.graphs)
        bonds: list[Bonds | None] = [None] * len(crystals)
        if with_bonds and predictor.model.conv != "sum":
            full = store.build(crystals, featurizer, executor=executor)
            bonds = list(_bonds(predictor, full.graphs))
        for place, (id, row) in enumerate(zip(portion.ids, portion.rows(), strict=True)):
            if row is None:
                yield Rejected(id, portion.reasons[place])
                continue
            nodes = portion.store.nodes_of_atoms(row)
            sites = None if seen.sites is None else seen.sites[nodes]
            if not np.isfinite(seen.values[row]).all():
                yield Rejected(id, not_finite(id))
                continue
            if sites is not None:
                _check_sum(predictor, seen.values[row], sites)
            yield Explanation(
                id,
                crystals[row],
                portion.store.take(np.array([row])),
                float(portion.store.vacuum[row]),
                seen.values[row],
                seen.crystals[row],
                seen.atoms[nodes],
                sites,
                bonds[row],
            )
        if on_progress:
            on_progress(len(some))


def site_table(predictor: Predictor, explained: Iterable[Explanation | Rejected]) -> pd.DataFrame:
    """A row per atom: id, atom, element, x, y, z (fractional), contribution and unit, reason.

    Several properties have a column each, named with their unit, and so have classes (logit_0, logit_1, ...). A
    structure that could not be read has one row, with the reason. Atoms are numbered from 0 as in the structure.

    Raises:
      ValueError: If the model's predictions are no sums over atoms.
    """
    check_sites(predictor)
    scaler = predictor.scaler
    is_one = scaler.task == "regression" and len(scaler.names) == 1
    columns = ["id", "atom", "element", "x", "y", "z", *contribution_names(predictor), *(["unit"] if is_one else [])]
    rows: list[list[Any]] = []
    for one in explained:
        if isinstance(one, Rejected):
            rows.append([one.id, *[None] * (len(columns) - 1), one.reason])
            continue
        assert one.contributions is not None
        for atom, (number, coords, parts) in enumerate(
            zip(one.crystal.species, one.crystal.frac_coords, one.contributions, strict=True)
        ):
            unit = [scaler.units[0]] if is_one else []
            rows.append([one.id, atom, elements.symbol(int(number)), *coords, *parts, *unit, ""])
    return pd.DataFrame(rows, columns=[*columns, "reason"])


def contribution_names(predictor: Predictor) -> list[str]:
    """Names of what each atom contributes: one, or one for every property or class."""
    if predictor.scaler.task == "classification":
        return [f"logit_{k}" for k in range(predictor.scaler.num_classes)]
    return [CONTRIBUTION] if len(predictor.scaler.names) == 1 else predictor.columns()


def bond_table(explained: Iterable[Explanation | Rejected]) -> pd.DataFrame:
    """A row per bond: id, atom_i, element_i, atom_j, element_j, distance (Å), weight, gate, gate_0, ..., message_0, ...

    `gate` is the mean over the convolutions. What has no bonds, or could not be read, is left out.
    """
    frames = []
    for one in explained:
        if isinstance(one, Rejected) or one.bonds is None:
            continue
        symbols = np.array([elements.symbol(int(number)) for number in one.crystal.species])
        b = one.bonds
        columns: dict[str, Any] = {
            "id": one.id,
            "atom_i": b.receivers,
            "element_i": symbols[b.receivers],
            "atom_j": b.senders,
            "element_j": symbols[b.senders],
            "distance": b.distances,
            "weight": b.weights,
            "gate": b.gates.mean(axis=1),
        }
        for name, values in (("gate", b.gates), ("message", b.messages)):
            columns |= {f"{name}_{t}": values[:, t] for t in range(values.shape[1])}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["id"])


class Plane(NamedTuple):
    """The plane of the first two principal components of some vectors.

    Attributes:
      center: Their mean, f64[d].
      axes: Both directions, f64[2, d].
      shares: Of the variance along each, f64[2].
    """

    center: np.ndarray
    axes: np.ndarray
    shares: np.ndarray

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors [n, d] -> coordinates f64[n, 2]."""
        return (vectors - self.center) @ self.axes.T


def principal_plane(vectors: np.ndarray) -> Plane:
    """Of vectors [n, d].

    Raises:
      ValueError: If there are fewer than three, or the vectors have one number each.
    """
    from sklearn.decomposition import PCA

    if min(vectors.shape[0] - 1, vectors.shape[1]) < 2:
        raise ValueError(f"a plane needs three vectors of two numbers, got {vectors.shape}")
    found = PCA(2, svd_solver="full").fit(np.asarray(vectors, np.float64))
    return Plane(found.mean_, found.components_, found.explained_variance_ratio_)


def annotated(predictor: Predictor, explanation: Explanation) -> "Structure":
    """The crystal as a pymatgen Structure whose site properties are the contributions.

    Raises:
      ValueError: If the model's predictions are no sums over atoms.
    """
    check_sites(predictor)
    assert explanation.contributions is not None
    structure = explanation.crystal.to_structure()
    for name, values in zip(contribution_names(predictor), explanation.contributions.T, strict=True):
        structure.add_site_property(name, values.tolist())
    return structure


def write_structures(predictor: Predictor, explanations: Iterable[Explanation], folder: Path) -> None:
    """Writes ID.cif and ID.json of each to a folder; where several have one name, the later ones are numbered.

    Args:
      predictor: A site model.
      explanations: What it says of the structures.
      folder: Made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    for one in explanations:
        name = new_name(one.id, used)
        structure = annotated(predictor, one)
        write_text(folder / f"{name}.cif", cif_text(structure))
        write_text(folder / f"{name}.json", json.dumps(structure.as_dict()))


def new_name(id: str, used: set[str]) -> str:
    """An id as the name of a file, without its ending, that is not used yet; adds it, in small letters."""
    stem = file_name(id)
    names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
    # Some file systems take a and A for one.
    name = next(name for name in names if name.lower() not in used)
    used.add(name.lower())
    return name


def cif_text(structure: "Structure") -> str:
    """A CIF without symmetry whose atom sites have a column for each site property, as `read_cif` takes it back.

    Names that are alike in a CIF, or are those of its own columns, are numbered.
    """
    from pymatgen.io.cif import CifWriter

    plain, used = structure.copy(), set(_OF_ATOMS)
    properties = structure.site_properties
    for name in properties:
        plain.remove_site_property(name)
    # pymatgen has them in no order. Names that a CIF may have come first, so that they stay as they are.
    for name in sorted(properties, key=lambda name: (name != _cif_name(name), name)):
        plain.add_site_property(new_name(_cif_name(name), used), properties[name])
    return str(CifWriter(plain, write_site_properties=True))


def read_cif(text: str) -> "Structure":
    """The structure of such a CIF, its extra columns as site properties; pymatgen alone reads the atoms only."""
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifFile

    structure = Structure.from_str(text, fmt="cif")
    (block,) = CifFile.from_str(text).data.values()
    place = {label: row for row, label in enumerate(block.data["_atom_site_label"])}
    for column, values in block.data.items():
        name = column.removeprefix("_atom_site_")
        if name != column and name not in _OF_ATOMS:
            structure.add_site_property(name, [float(values[place[site.label]]) for site in structure])
    return structure


def _cif_name(name: str) -> str:
    """What may stand in the name of a CIF column, which is ASCII: other letters are given by their numbers."""
    letters = (letter if letter.isascii() else f"u{ord(letter):04x}" for letter in name)
    return "".join(letter if letter.isalnum() else "_" for letter in letters).strip("_")


def _read(entries: list[Entry | Rejected], built: store.GraphStore) -> list[Crystal]:
    """The crystals of the store, numbered as there."""
    crystals = []
    for place in built.ids:
        entry = entries[int(place)]
        assert not isinstance(entry, Rejected)
        crystals.append(dataclasses.replace(entry.read(), id=place))
    return crystals


def _bonds(predictor: Predictor, graphs: CrystalGraphs) -> Iterator[Bonds]:
    """Of each crystal of full graphs."""
    seen = predictor.inspect_graphs(graphs)
    assert seen.gates is not None and seen.messages is not None
    for first, start, n_edge in zip(*offsets(graphs), graphs.n_edge, strict=True):
        edges = slice(start, start + n_edge)
        yield Bonds(
            graphs.receivers[edges] - first,
            graphs.senders[edges] - first,
            graphs.distances[edges],
            graphs.edge_weight[edges],
            seen.gates[edges],
            seen.messages[edges],
        )


def _check_sum(predictor: Predictor, values: np.ndarray, sites: np.ndarray) -> None:
    """That the contributions make the prediction; anything else is a fault of ours, told even where asserts are off."""
    mean = sites.mean(axis=0)
    if predictor.scaler.task == "classification":
        mean = predictor.scaler.unscale(mean[None])[0]
    # float32 sums over atoms, in another order: a sum of n equal numbers may be off by half a last digit for each.
    size = np.abs(sites).max() + np.array(predictor.scaler.std).max()
    if not np.allclose(mean, values, rtol=0, atol=(1e-5 + np.finfo(np.float32).eps / 2 * len(sites)) * size):
        raise AssertionError(f"contributions make {mean}, the prediction is {values}")
