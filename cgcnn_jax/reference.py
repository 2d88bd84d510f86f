"""The published CGCNN models: checkpoints of the released PyTorch code as ordinary predictors.

Released code: github.com/txie-93/cgcnn. Its checkpoints hold a state_dict, a normaliser and the command-line arguments,
but not the graph settings, which are its defaults: the 12 nearest neighbours within 8 Å, Gaussians every 0.2 Å.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cgcnn_jax import torchfile
from cgcnn_jax.data import elements
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import NearestK, NeighborRule, WholeShells
from cgcnn_jax.nn.basis import GaussianBasis
from cgcnn_jax.nn.model import CGCNN
from cgcnn_jax.predict import Predictor
from cgcnn_jax.scaling import TargetScaler, Task
from cgcnn_jax.torchfile import TorchFileError
from cgcnn_jax.train.state import Weights

# The eight models that came with the paper: property and unit, by the name of the file.
PUBLISHED = {
    "formation-energy-per-atom": ("formation_energy_per_atom", "eV/atom"),
    "final-energy-per-atom": ("final_energy_per_atom", "eV/atom"),
    "band-gap": ("band_gap", "eV"),
    "efermi": ("fermi_energy", "eV"),
    "bulk-moduli": ("bulk_modulus", "log10(GPa)"),
    "shear-moduli": ("shear_modulus", "log10(GPa)"),
    "poisson-ratio": ("poisson_ratio", ""),
    "semi-metal-classification": ("is_semiconductor_or_metal", "class"),
}
CUTOFF, SPACING, NUM_NEIGHBORS = 8.0, 0.2, 12
# Equal distances of a crystal differ by its coordinates' rounding; merging these changes no prediction by 1e-6.
QUOTIENT_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Reference:
    """A checkpoint of the released code.

    Attributes:
      weights: As ours.
      scaler: Its normaliser, with property and unit.
      features: Width of the atom vectors.
      num_convs: Convolutions.
      crystal_features: Width of the hidden layers.
      crystal_layers: Hidden layers after pooling.
      validation_error: Stored with it; the AUC in classification.
      epoch: Of the checkpoint.
      arguments: Its command line, as stored.
    """

    weights: Weights
    scaler: TargetScaler
    features: int
    num_convs: int
    crystal_features: int
    crystal_layers: int
    validation_error: float
    epoch: int
    arguments: dict[str, Any]

    def model(self) -> CGCNN:
        """The released network with these settings."""
        return CGCNN(
            n_output=self.scaler.n_output,
            table_shape=self.weights.constants["atom_table"].shape,
            features=self.features,
            conv="gated_norm",
            num_convs=self.num_convs,
            basis=GaussianBasis(CUTOFF, SPACING),
            pool="mean",
            activate_pooled=True,
            atom_layers=0,
            crystal_layers=self.crystal_layers,
            crystal_features=self.crystal_features,
            dropout=0.5 if self.scaler.task == "classification" else 0.0,
        )


def read(
    path: str | Path, *, name: str | None = None, unit: str | None = None, atom_table: np.ndarray | None = None
) -> Reference:
    """Reads a checkpoint of the released code.

    Args:
      path: A .pth.tar of any torch version since 1.0.
      name: Property; told by the file's name if it is one of the eight published ones, else "target".
      unit: Its unit, likewise.
      atom_table: Element features; the released 92 columns if not given.

    Raises:
      TorchFileError: If it is not such a checkpoint, or its atom features are not those of the table.
    """
    path = Path(path)
    content = torchfile.read(path)
    known = PUBLISHED.get(path.name.split(".")[0], ("target", ""))
    table = elements.atom_features("released") if atom_table is None else atom_table
    try:
        state, arguments = content["state_dict"], dict(content.get("args", {}))
        # A model saved from several GPUs has this prefix on every name.
        state = {key.removeprefix("module."): value for key, value in state.items()}
        width, n_column = state["embedding.weight"].shape
        num_convs = len({key.split(".")[1] for key in state if key.startswith("convs.")})
        n_extra = len({key.split(".")[1] for key in state if key.startswith("fcs.")})
        n_gaussian = state["convs.0.fc_full.weight"].shape[1] - 2 * width
        n_output, hidden = state["fc_out.weight"].shape
        if n_column != table.shape[1]:
            raise TorchFileError(
                f"{path}: made with {n_column} atom features an element, but the table has {table.shape[1]}; "
                "give the atom_init.json it was trained with (--atom_init, or atom_table)"
            )
        if n_gaussian != round(CUTOFF / SPACING) + 1:
            raise TorchFileError(
                f"{path}: has {n_gaussian} bond features, not the {round(CUTOFF / SPACING) + 1} of 8 Å and 0.2 Å"
            )
        task: Task = "classification" if arguments.get("task") == "classification" or n_output > 1 else "regression"
        normalizer = content["normalizer"]
        scaler = TargetScaler(
            task=task,
            names=(name or known[0],),
            units=(known[1] if unit is None else unit,),
            mean=(0.0,) if task == "classification" else (float(normalizer["mean"]),),
            std=(1.0,) if task == "classification" else (float(normalizer["std"]),),
            num_classes=n_output if task == "classification" else 0,
        )
        params: dict[str, Any] = {
            "embedding": _dense(state, "embedding"),
            "crystal_0": _dense(state, "conv_to_fc"),
            **{f"crystal_{layer + 1}": _dense(state, f"fcs.{layer}") for layer in range(n_extra)},
            "output": _dense(state, "fc_out"),
        }
        stats: dict[str, Any] = {}
        for t in range(num_convs):
            params[f"conv_{t}"], stats[f"conv_{t}"] = _convolution(state, f"convs.{t}", width)
        return Reference(
            weights=jax.tree.map(jnp.asarray, Weights(params, stats, {"atom_table": table})),
            scaler=scaler,
            features=width,
            num_convs=num_convs,
            crystal_features=hidden,
            crystal_layers=1 + n_extra,
            validation_error=float(content.get("best_mae_error", float("nan"))),
            epoch=int(content.get("epoch", 0)),
            arguments={key: value for key, value in arguments.items() if isinstance(value, str | int | float | list)},
        )
    except (KeyError, AttributeError, TypeError, IndexError) as error:
        raise TorchFileError(f"{path}: a torch file, but not a checkpoint of the released CGCNN ({error!r})") from error


def load(
    path: str | Path,
    *,
    name: str | None = None,
    unit: str | None = None,
    atom_table: np.ndarray | None = None,
    invariant: bool = False,
) -> Predictor:
    """A predictor with the weights of the released code; see `read`.

    Args:
      path: A .pth.tar of any torch version since 1.0.
      name: See `read`.
      unit: See `read`.
      atom_table: See `read`; `data.elements.read_atom_init` reads one.
      invariant: False cuts the 12 nearest neighbours as published, ties included, so predictions equal the released
        code's. True lets equals of the 12th share its places (WholeShells.share_last): as accurate, and the same for
        every cell and order of atoms; docs/published_models.md has the figures.
    """
    reference = read(path, name=name, unit=unit, atom_table=atom_table)
    rule: NeighborRule = NearestK(NUM_NEIGHBORS, CUTOFF, published_padding=True)
    if invariant:
        rule = WholeShells(NUM_NEIGHBORS, CUTOFF, share_last=True)
    featurizer = Featurizer(rule, use_quotient=True, tolerance=QUOTIENT_TOLERANCE)
    return Predictor(
        reference.model(), reference.weights, reference.scaler, featurizer, {"arguments": reference.arguments}
    )


def save(workdir: str | Path, path: str | Path) -> None:
    """Writes a trained run as a checkpoint that the released predict.py loads; main.py --resume also wants an optimiser's state.

    Only what the released code can express is written: one target or two classes, its own layer, the mean pool, hidden
    layers after pooling, 41 Gaussians, and 12 neighbours: cut as published (graph.neighbors=nearest), or sharing the
    last places, whose mean over all cuts the released code's cut is a draw from. Property and unit have no place there.

    Raises:
      ValueError: Naming the first setting that the released code does not have.
    """
    predictor = Predictor.restore(workdir)
    model, scaler = predictor.model, predictor.scaler
    is_classifier = scaler.task == "classification"
    rule = predictor.featurizer.neighbors
    has_twelve = isinstance(rule, NearestK | WholeShells) and (rule.num_neighbors, rule.cutoff) == (
        NUM_NEIGHBORS,
        CUTOFF,
    )
    if not has_twelve or (isinstance(rule, WholeShells) and not rule.share_last):
        raise ValueError(
            f"{workdir}: the released code sums over exactly {NUM_NEIGHBORS} neighbours within {CUTOFF} Å, this model was "
            f"trained on {rule}; train with graph.neighbors=nearest, or with graph.share_last_shell=True"
        )
    basis = model.basis
    for name, value, wanted in (
        ("model.conv", model.conv, "gated_norm"),
        ("model.pool", model.pool, "mean"),
        ("model.activate_pooled", model.activate_pooled, True),
        ("model.atom_layers", model.atom_layers, 0),
        ("the number of targets", len(scaler.names), 1),
        ("model.num_classes", scaler.num_classes, 2 if is_classifier else 0),
        ("bonds", basis, GaussianBasis(CUTOFF, SPACING)),
        ("the number of angular features", model.n_angle, 0),
    ):
        if value != wanted:
            raise ValueError(f"{workdir}: in the released code {name} is always {wanted!r}, here it is {value!r}")
    if model.crystal_layers < 1:
        raise ValueError(f"{workdir}: the released code needs at least one layer after pooling (model.crystal_layers)")
    weights = jax.tree.map(np.asarray, predictor.weights)
    params, stats = weights.params, weights.batch_stats

    state: dict[str, np.ndarray] = {}

    def put(name: str, dense: dict[str, np.ndarray]) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = dense["kernel"].T, dense["bias"]

    def put_norm(name: str, convolution: str, parts: tuple[str, ...]) -> None:
        for key, source, tree in (
            ("weight", "scale", params),
            ("bias", "bias", params),
            ("running_mean", "mean", stats),
            ("running_var", "var", stats),
        ):
            state[f"{name}.{key}"] = np.concatenate([tree[convolution][part][source] for part in parts])

    put("embedding", params["embedding"])
    for t in range(model.num_convs):
        layer = params[f"conv_{t}"]
        put(
            f"convs.{t}.fc_full",
            {key: np.concatenate([layer["gate"][key], layer["core"][key]], axis=-1) for key in ("kernel", "bias")},
        )
        put_norm(f"convs.{t}.bn1", f"conv_{t}", ("gate_norm", "core_norm"))
        put_norm(f"convs.{t}.bn2", f"conv_{t}", ("sum_norm",))
    put("conv_to_fc", params["crystal_0"])
    for extra in range(1, model.crystal_layers):
        put(f"fcs.{extra - 1}", params[f"crystal_{extra}"])
    put("fc_out", params["output"])
    torchfile.write(
        path,
        {
            "epoch": 0,
            "state_dict": state,
            "best_mae_error": float("inf"),
            "optimizer": {},
            "normalizer": {
                "mean": np.array(scaler.mean[0], np.float32),
                "std": np.array(scaler.std[0], np.float32),
            },
            "args": {
                "task": scaler.task,
                "atom_fea_len": model.features,
                "h_fea_len": model.crystal_features,
                "n_conv": model.num_convs,
                "n_h": model.crystal_layers,
            },
        },
    )


def _dense(state: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}


def _convolution(state: dict[str, np.ndarray], name: str, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and statistics; the released layer holds gate and core in one matrix, gate first."""
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    full = _dense(state, f"{name}.fc_full")
    for part, columns in (("gate", slice(0, width)), ("core", slice(width, 2 * width))):
        params[part] = {"kernel": full["kernel"][:, columns], "bias": full["bias"][columns]}
        params[f"{part}_norm"], stats[f"{part}_norm"] = _norm(state, f"{name}.bn1", columns)
    params["sum_norm"], stats["sum_norm"] = _norm(state, f"{name}.bn2", slice(None))
    return params, stats


def _norm(state: dict[str, np.ndarray], name: str, columns: slice) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {"scale": state[f"{name}.weight"][columns], "bias": state[f"{name}.bias"][columns]},
        {"mean": state[f"{name}.running_mean"][columns], "var": state[f"{name}.running_var"][columns]},
    )
