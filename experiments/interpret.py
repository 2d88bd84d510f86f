"""Explains the predictions of a trained model: which atoms make them, through which bonds, and near which known crystals.

python -m experiments.interpret --workdir=DIR --input=FILE_OR_FOLDER [--input=...] [--output=DIR/interpretation]

Inputs are those of experiments.predict. docs/interpret.md says what the results mean:
  sites.csv        what every atom contributes; models with --config.model.pool=site
  structures/      the same as site properties: ID.cif for viewers, ID.json for pymatgen
  bonds.csv        the mean gate and message of every bond, gates.png against its length; not for --config.model.conv=sum
  embeddings.csv   the crystals' vectors, map.png in a plane
  neighbours.csv   the nearest training crystals, and whether and why a crystal lies outside of what was trained on

The training crystals are looked up in the run's data once and kept in DIR/applicability.npz; if the data have moved,
--config.data.path=... says where they are now. Without --input only that is done.
"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli

if TYPE_CHECKING:
    import pandas as pd

    from cgcnn_jax.applicability import Applicability
    from cgcnn_jax.interpret import Explanation
    from cgcnn_jax.predict import Predictor

TABLES = ("embeddings", "sites", "bonds", "neighbours")
PICTURES = ("map", "map_prediction", "gates")

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
INPUT = flags.DEFINE_multi_string("input", [], "File or folder; may be given several times.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; DIR/interpretation if not given.")
WORKERS = flags.DEFINE_integer("workers", 0, "Processes that read structures; 0 takes all cores.")
NEIGHBORS = flags.DEFINE_integer("neighbors", 5, "Nearest training crystals to list.", lower_bound=1)
QUANTILE = flags.DEFINE_float(
    "quantile", None, "Share of training crystals within the distance that counts as near; 0.95 if not given.", 0, 1
)


def main() -> None:
    cli.prepare()
    from cgcnn_jax import interpret
    from cgcnn_jax.data.crystal import Rejected
    from cgcnn_jax.data.sources import read_inputs
    from cgcnn_jax.predict import Predictor
    from experiments import data

    output = Path(OUTPUT.value or Path(WORKDIR.value) / "interpretation").expanduser()
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output={output} is a file; name a folder")
    predictor = Predictor.restore(WORKDIR.value)
    known = None
    try:
        known = data.applicability(predictor, WORKDIR.value, sys.argv[1:])
    except (ValueError, OSError) as error:
        if not INPUT.value:
            raise
        _say(f"no neighbours.csv: {error}")
    if not INPUT.value:
        assert known is not None
        print(f"{len(known.ids)} training crystals, the distance that is far: {known.threshold:.4g}")
        return
    if known and QUANTILE.value is not None:
        known = dataclasses.replace(known, quantile=QUANTILE.value)

    with (
        cli.graph_workers(WORKERS.value) as executor,
        cli.bar(desc="explaining", unit="crystal", leave=False) as bar,
    ):
        entries = read_inputs(INPUT.value)
        explained = list(interpret.explain(predictor, entries, executor=executor, on_progress=bar.update))
    done = [one for one in explained if not isinstance(one, Rejected)]
    failed = len(explained) - len(done)
    output.mkdir(parents=True, exist_ok=True)

    tables = {"embeddings": _embeddings(predictor, explained)}
    try:
        interpret.check_sites(predictor)
    except ValueError as error:
        _say(f"no sites.csv: {error}")
    else:
        tables["sites"] = interpret.site_table(predictor, explained)
        interpret.write_structures(predictor, done, output / "structures")
    if predictor.model.conv == "sum":
        _say("no bonds.csv: model.conv=sum has no gate; the gated ones have one")
    else:
        tables["bonds"] = interpret.bond_table(explained)
    if known:
        tables["neighbours"] = _neighbours(known, explained)
    _write(tables, output)
    _draw(predictor, known, done, tables, output)
    print(f"{len(done)} structures explained in {output}, {failed} structures could not be read")
    if known and done:
        outside = int(tables["neighbours"]["is_outside"].eq(True).sum())
        print(f"{outside} lie outside of what the model was trained on; neighbours.csv says why")
    if not done:
        raise ValueError("no structure could be explained; the reasons stand in the last column of embeddings.csv")


def _embeddings(predictor: "Predictor", explained: list[Any]) -> "pd.DataFrame":
    import pandas as pd

    from cgcnn_jax.data.crystal import Rejected

    width = predictor.model.features
    rows = [
        [one.id, *[None] * (1 + width), one.reason]
        if isinstance(one, Rejected)
        else [one.id, one.crystal.formula, *one.vector, ""]
        for one in explained
    ]
    return pd.DataFrame(rows, columns=["id", "formula", *(f"v_{k}" for k in range(width)), "reason"])


def _neighbours(known: "Applicability", explained: list[Any]) -> "pd.DataFrame":
    import numpy as np
    import pandas as pd

    from cgcnn_jax.data.crystal import Rejected
    from cgcnn_jax.graph import concatenate

    done = [one for one in explained if not isinstance(one, Rejected)]
    k = min(NEIGHBORS.value, len(known.ids))
    columns = [f"{name}_{n}" for n in range(1, k + 1) for name in ("neighbour", "formula", "distance")]
    judged = {}
    if done:
        found = known.judge(concatenate([one.graphs for one in done]), np.stack([one.vector for one in done]), k)
        for one, distances, places, reason in zip(done, *found, strict=True):
            near = [(known.ids[p], known.formulas[p], d) for p, d in zip(places, distances, strict=True)]
            judged[id(one)] = [bool(reason), reason, known.threshold, *(cell for row in near for cell in row)]
    rows = [
        [one.id, None, *[None] * (3 + len(columns)), one.reason]
        if isinstance(one, Rejected)
        else [one.id, one.crystal.formula, *judged[id(one)], ""]
        for one in explained
    ]
    return pd.DataFrame(rows, columns=["id", "formula", "is_outside", "outside", "threshold", *columns, "reason"])


def _write(tables: "dict[str, pd.DataFrame]", output: Path) -> None:
    from cgcnn_jax.files import write_text

    for name in TABLES:
        # That of an earlier call would be taken for this one's.
        (output / f"{name}.csv").unlink(missing_ok=True)
    for name, table in tables.items():
        write_text(output / f"{name}.csv", table.to_csv(index=False, lineterminator="\n", float_format="%.8g"))


def _draw(
    predictor: "Predictor",
    known: "Applicability | None",
    done: "list[Explanation]",
    tables: "dict[str, pd.DataFrame]",
    output: Path,
) -> None:
    import numpy as np

    from cgcnn_jax.interpret import principal_plane
    from cgcnn_jax.workdir import Workdir

    for name in PICTURES:
        (output / f"{name}.png").unlink(missing_ok=True)
    if not done:
        return
    try:
        from cgcnn_jax.report import figures, insight
    except ImportError as error:
        _say(f"no pictures: {error}")
        return
    vectors = np.stack([one.vector for one in done])
    base = vectors if known is None else known.vectors
    drawn = {}
    if len(base) > 2:
        plane = principal_plane(base)
        points = plane.project(vectors)
        if known is None:
            groups = {"structures": points}
        else:
            table = tables["neighbours"]
            is_outside = table.loc[table["reason"] == "", "is_outside"].to_numpy(bool)
            groups = {"training": plane.project(base), "within": points[~is_outside], "outside": points[is_outside]}
        drawn["map"] = insight.crystal_map(groups, shares=plane.shares)
        if predictor.scaler.task == "regression":
            first = predictor.scaler.names[0], predictor.scaler.units[0]
            drawn["map_prediction"] = insight.crystal_map(
                ({"training": plane.project(base)} if known else {}) | {"structures": points},
                shares=plane.shares,
                values={"structures": np.array([one.values[0] for one in done])},
                label=f"predicted {figures.axis_label(*first)}",
            )
    bonds = [one.bonds for one in done if one.bonds is not None]
    if bonds and predictor.model.num_convs:
        drawn["gates"] = insight.gates_by_distance(
            *(np.concatenate([getattr(one, name) for one in bonds]) for name in ("distances", "gates", "messages"))
        )
    Workdir(output).save_figures(drawn)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, allow="--config.data.")
