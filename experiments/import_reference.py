"""Turns a checkpoint of the published PyTorch code into a work directory, without torch.

python -m experiments.import_reference --checkpoint=formation-energy-per-atom.pth.tar --workdir=DIR

Prediction, evaluation and fine-tuning (--config.init_from=DIR) then work as with any run.
"""

from pathlib import Path

from absl import flags

from experiments import cli

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A .pth.tar of the published code; may stand without its name.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder to make.", required=True)
NAME = flags.DEFINE_string("name", None, "Property; known for the eight published models.")
UNIT = flags.DEFINE_string("unit", None, "Its unit; known for the eight published models.")
ATOM_INIT = flags.DEFINE_string("atom_init", None, "The atom_init.json it was trained with, if not the published one.")
INVARIANT = flags.DEFINE_bool(
    "invariant", False, "Let equals of the 12th neighbour share its places instead of cutting as published."
)


def main(*arguments: str) -> None:
    import numpy as np

    from cgcnn_jax import config as configs
    from cgcnn_jax import reference
    from cgcnn_jax.data import elements
    from cgcnn_jax.nn.model import count_parameters
    from cgcnn_jax.predict import Predictor, describe
    from cgcnn_jax.workdir import as_json
    from configs import base

    paths = [path for path in (CHECKPOINT.value, *arguments) if path]
    if len(paths) != 1:
        raise ValueError(f"--checkpoint=FILE, the .pth.tar to import, names one file; got {', '.join(paths) or 'none'}")
    path = Path(paths[0]).expanduser()
    table = elements.read_atom_init(Path(ATOM_INIT.value).expanduser()) if ATOM_INIT.value else None
    found = reference.read(path, name=NAME.value, unit=UNIT.value, atom_table=table)
    scaler = found.scaler

    config = base.get_config()
    config.data.source, config.data.path = "files", ""
    config.data.target, config.data.unit = scaler.names[0], scaler.units[0]
    if INVARIANT.value:
        config.graph.neighbors, config.graph.share_last_shell = "shells", True
    else:
        config.graph.neighbors, config.graph.fidelity = "nearest", "published"
    config.graph.num_neighbors, config.graph.cutoff = reference.NUM_NEIGHBORS, reference.CUTOFF
    config.graph.quotient_tolerance = reference.QUOTIENT_TOLERANCE
    config.bonds.cutoff, config.bonds.spacing = reference.CUTOFF, reference.SPACING
    config.atoms.table = ATOM_INIT.value or "released"
    config.model.task = scaler.task
    config.model.num_classes = max(scaler.num_classes, 2)
    config.model.features, config.model.num_convs = found.features, found.num_convs
    config.model.crystal_layers, config.model.crystal_features = found.crystal_layers, found.crystal_features
    config.model.dropout = found.model().dropout

    atom_table = np.asarray(found.weights.constants["atom_table"])
    about = describe(config, scaler, atom_table.shape, {"train": [], "val": [], "test": []})
    featurizer = configs.build_featurizer(config, atom_table)
    origin = {
        "file": str(path),
        "epoch": found.epoch,
        "validation_error": found.validation_error,
        "arguments": found.arguments,
    }
    predictor = Predictor(found.model(), found.weights, scaler, featurizer, about)
    predictor.save(WORKDIR.value, {"reference.json": as_json(origin).encode()})
    n_parameter = count_parameters(found.weights.variables())
    print(
        f"{scaler.names[0]} ({scaler.units[0] or 'no unit'}): {found.num_convs} convolutions, {n_parameter} parameters"
    )
    print(f"stored validation {'AUC' if scaler.task == 'classification' else 'error'} {found.validation_error:.4g}")
    print(f"predict   python -m experiments.predict --workdir={WORKDIR.value} --input=YOUR_CIFS")


if __name__ == "__main__":
    cli.run(main, positional=True)
