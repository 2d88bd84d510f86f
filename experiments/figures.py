r"""Draws the paper's kinds of figures of any runs.

python -m experiments.figures --figure=joint --workdir=RUN [--output=FOLDER]

joint        predicted against calculated values of the judged split, a picture a property (Figs. 2c, 3b, S4, S6)
roc          ROC curve of a classification (Fig. 2d)
contents     elements and atoms of the crystals of a run (Figs. 2a, S2); reads the run's data
convergence  test error against training size of several runs, --workdir=RUN,RUN,..., a line a convolution; --band=LOW,HIGH
             is another error to compare with, as that of DFT (Figs. 2b, S5)
trials       validation error against each hyperparameter, of --trials=results.csv (Fig. S3)
graphs       crystal graphs of --input=FILE,FILE,... (CIF, POSCAR, ...), and of NaCl and KCl without (Fig. S1)

Pictures go to --output, and to the run's folder if that is not given.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli

if TYPE_CHECKING:
    from cgcnn_jax.workdir import Workdir

KINDS = ("joint", "roc", "contents", "convergence", "trials", "graphs")
FIGURE = flags.DEFINE_enum("figure", None, KINDS, "What to draw.", required=True)
WORKDIR = flags.DEFINE_list("workdir", [], "Folders of training runs, separated by commas.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the pictures.")
TRIALS = flags.DEFINE_string("trials", None, "Table of trials (CSV): columns group.field and val_mae.")
UNIT = flags.DEFINE_string("unit", "", "Unit of the trials' errors.")
BAND = flags.DEFINE_list("band", [], "From and to, of the error of DFT against experiment, in `convergence`.")
INPUT = flags.DEFINE_list("input", [], "Structure files, separated by commas.")
NEIGHBORS = flags.DEFINE_integer("neighbors", 6, "Neighbours of each atom in `graphs`, and all as near as the last.", 1)


def main() -> None:
    cli.prepare()
    from cgcnn_jax.workdir import Workdir

    for kind, own in {"convergence": [BAND], "trials": [TRIALS, UNIT], "graphs": [INPUT, NEIGHBORS]}.items():
        if FIGURE.value != kind:
            cli.refuse(*own, unless=f"--figure={kind}")
    runs = [Workdir(path) for path in WORKDIR.value]
    wanted = {"joint": 1, "roc": 1, "contents": 1}.get(FIGURE.value)
    if len(runs) != wanted if wanted else FIGURE.value == "convergence" and not runs:
        raise ValueError(f"--figure={FIGURE.value} needs {'one run' if wanted else 'runs'} in --workdir")
    if not (OUTPUT.value or runs):
        raise ValueError(f"--figure={FIGURE.value} needs --output, the folder of the pictures")
    folder = Workdir(OUTPUT.value) if OUTPUT.value else runs[0]
    drawn = _draw(runs)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.save_figures(drawn)
    for name in drawn:
        print(folder.picture_path(name))


def _draw(runs: "list[Workdir]") -> dict[str, Any]:
    """Name -> figure."""
    from cgcnn_jax.studies import drawing

    match FIGURE.value:
        case "joint":
            return {f"joint_{name}": figure for name, figure in drawing.joint_histograms(runs[0]).items()}
        case "roc":
            return {"roc": drawing.roc(runs[0])}
        case "convergence":
            return {"convergence": drawing.convergence(runs, band=_band())}
        case "contents":
            ids = {id for split in runs[0].read_json("split.json").values() for id in split}
            return drawing.contents_of(_crystals(runs[0]), ids)
        case "trials":
            return {"trials": _trials()}
        case _:
            return {"graphs": _graphs()}


def _band() -> tuple[float, float] | None:
    if not BAND.value:
        return None
    try:
        low, high = map(float, BAND.value)
    except ValueError as error:
        raise ValueError(f"--band must be two numbers, LOW,HIGH; got {','.join(BAND.value)!r}") from error
    return low, high


def _crystals(run: "Workdir") -> Any:
    from cgcnn_jax import config as configs
    from experiments import data

    config = configs.from_dict(run.read_json("config.json"))
    return data.load(config, configs.build_atom_table(config))


def _trials() -> Any:
    from cgcnn_jax.report.trials import hyperparameter_effects, read

    if TRIALS.value is None:
        raise ValueError("--figure=trials needs --trials, a table of trials")
    return hyperparameter_effects(read(Path(TRIALS.value)), unit=UNIT.value)


def _graphs() -> Any:
    from cgcnn_jax.data.crystal import Rejected
    from cgcnn_jax.data.featurize import Featurizer
    from cgcnn_jax.data.neighbors import WholeShells
    from cgcnn_jax.data.sources import read_files
    from cgcnn_jax.report.crystal_graph import crystal_graphs
    from cgcnn_jax.studies.parts import worked_example

    featurize = Featurizer(WholeShells(NEIGHBORS.value), use_quotient=False)
    entries = list(read_files(Path(path) for path in INPUT.value)) if INPUT.value else list(worked_example())
    bad = [one.reason for one in entries if isinstance(one, Rejected)]
    if bad:
        raise ValueError("; ".join(bad))
    ids = Counter(one.id for one in entries)
    # Files of one name, as POSCAR of two folders, by their paths.
    return crystal_graphs(
        {
            str(getattr(one, "path", one.id)) if ids[one.id] > 1 else one.id: featurize(one.read()).graphs
            for one in entries
            if not isinstance(one, Rejected)
        }
    )


if __name__ == "__main__":
    cli.run(main)
