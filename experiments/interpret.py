"""Explains the predictions of a trained model: which atoms make them, through which bonds, and near which known crystals.

python -m experiments.interpret --workdir=DIR --input=FILE_OR_FOLDER [--input=...] [--output=DIR/interpretation]

Inputs are those of experiments.predict. docs/interpret.md says what the results mean:
  sites.csv        what every atom contributes; models with --config.model.pool=site
  structures/      the same as site properties: ID.cif for viewers, ID.json for pymatgen
  bonds.csv        the mean gate and message of every bond, gates.png against its length; not for --config.model.conv=sum
  embeddings.csv   the crystals' vectors, map.png in a plane
  neighbours.csv   the nearest training crystals, and whether and why a crystal lies outside of what was trained on

The training crystals are looked up in the run's data once and kept in DIR/applicability.npz; if the data have moved,
--config.data.path=... says where they are now. Without --input only that is done. The same command goes on where it was
stopped (exit status 75), and the tables stand in the folder once all structures are explained.
"""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from experiments import cli

if TYPE_CHECKING:
    import numpy as np

    from cgcnn_jax.applicability import Applicability
    from cgcnn_jax.predict import Predictor

PICTURES = ("map", "map_prediction", "gates")

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
INPUT = flags.DEFINE_multi_string("input", [], "File, folder or pattern (a/*.cif); may be given several times.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; DIR/interpretation if not given.")
NEIGHBORS = flags.DEFINE_integer("neighbors", 5, "Nearest training crystals to list.", lower_bound=1)
QUANTILE = flags.DEFINE_float(
    "quantile", None, "Share of training crystals within the distance that counts as near; 0.95 if not given.", 0, 1
)


def main() -> None:
    cli.prepare()
    from cgcnn_jax import interpret
    from cgcnn_jax.data.sources import read_unparsed
    from cgcnn_jax.interpretation import Interpretation
    from cgcnn_jax.predict import Predictor
    from experiments import data

    output = Interpretation(OUTPUT.value or Path(WORKDIR.value) / "interpretation")
    output.check(INPUT.value)
    cli.check_inputs(INPUT.value)
    cli.tell_unread(INPUT.value)
    predictor = Predictor.restore(WORKDIR.value)
    known = None
    try:
        known = data.applicability(predictor, WORKDIR.value, sys.argv[1:])
    except (ValueError, OSError) as error:
        if not INPUT.value:
            raise
        _say(f"no neighbours.csv: {error}")
    if known and QUANTILE.value is not None:
        known = known.at(QUANTILE.value)
    if not INPUT.value:
        assert known is not None
        print(f"{len(known.spacing)} training crystals, the distance that is far: {known.threshold:.4g}")
        return
    try:
        interpret.check_sites(predictor)
    except ValueError as error:
        _say(f"no sites.csv: {error}")
    if predictor.model.conv == "sum":
        _say("no bonds.csv: model.conv=sum has no gate; the gated ones have one")

    with output.open(), cli.bar(desc="explaining", unit="crystal", leave=False) as bar:
        items = itertools.chain.from_iterable(read_unparsed(path) for path in INPUT.value)
        output.make(predictor, items, known=known, k=NEIGHBORS.value, on_progress=bar.update)
        drawn = output.drawn()
        if not drawn:
            raise ValueError(f"{', '.join(INPUT.value)}: no structure there")
        done, failed = (int(drawn[name].sum()) for name in ("n_done", "n_failed"))
        # The numbers are safe by now, whatever drawing runs into.
        try:
            _draw(predictor, known, drawn if done else {}, output.path)
        except Exception as error:
            _say(f"not all pictures were drawn ({type(error).__name__}: {error})")
        output.finish()
    print(f"{done} structures explained in {output.path}, {failed} structures could not be read")
    if known and known.is_thinned:
        _say(
            f"neighbours.csv and the maps know {len(known.ids):,} of {len(known.spacing):,} training crystals, near which the "
            "others lie: the nearest of all may be another, and the same crystal among those left out"
        )
    if known and done:
        outside = int(drawn["is_outside"].sum())
        print(f"{outside} lie outside of what the model was trained on; neighbours.csv says why")
    if not done:
        raise ValueError("no structure could be explained; the reasons stand in the last column of embeddings.csv")


def _draw(predictor: "Predictor", known: "Applicability | None", drawn: "dict[str, np.ndarray]", output: Path) -> None:
    from cgcnn_jax.interpret import principal_plane
    from cgcnn_jax.workdir import Workdir

    for name in PICTURES:
        (output / f"{name}.png").unlink(missing_ok=True)
    if not drawn:
        return
    try:
        from cgcnn_jax.report import figures, insight
    except ImportError as error:
        _say(f"no pictures: {error}")
        return
    vectors = drawn["vectors"]
    base = vectors if known is None else known.vectors
    training = "some of training" if known and known.is_thinned else "training"
    pictures = {}
    if len(base) > 2:
        plane = principal_plane(base)
        points = plane.project(vectors)
        if known is None:
            groups = {"structures": points}
            names = {"structures": drawn["ids"]}
        else:
            is_outside, ids = drawn["is_outside"], drawn["ids"]
            groups = {training: plane.project(base), "within": points[~is_outside], "outside": points[is_outside]}
            names = {"within": ids[~is_outside], "outside": ids[is_outside]}
        pictures["map"] = insight.crystal_map(groups, shares=plane.shares, names=names)
        if predictor.scaler.task == "regression":
            first = predictor.scaler.names[0], predictor.scaler.units[0]
            pictures["map_prediction"] = insight.crystal_map(
                ({training: plane.project(base)} if known else {}) | {"structures": points},
                shares=plane.shares,
                names={"structures": drawn["ids"]},
                values={"structures": drawn["values"]},
                label=f"predicted {figures.axis_label(*first)}",
            )
    if "distances" in drawn and predictor.model.num_convs:
        pictures["gates"] = insight.gates_by_distance(drawn["distances"], drawn["gates"], drawn["messages"])
    Workdir(output).save_figures(pictures)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, allow="--config.data.", goes_on=True)
