"""Predicts for structure files with a trained model.

python -m experiments.predict --workdir=DIR [--workdir=...] --input=FILE_OR_FOLDER [--input=...] [--output=predictions.csv]

Inputs are CIF or POSCAR files, folders of them (an id_prop.csv is not needed), .jsonl(.gz) files, or files of Matbench,
CDVAE and ase; a pattern ('folder/N*.cif') is all files that it matches.
The output has a row per structure, in input order; a structure without prediction has a reason instead. The column
outside says why a structure is unlike those that the network was trained on, where DIR has applicability.npz
(experiments.train makes it with its report, experiments.interpret if that is missing). Several --workdir, of runs that
differ in their seeds, predict together: the mean, and in the column std how far they agree.
"""

import sys
from typing import TYPE_CHECKING

from absl import flags

from experiments import cli

if TYPE_CHECKING:
    from cgcnn_jax.predict import TablePredictor

WORKDIR = flags.DEFINE_multi_string(
    "workdir", None, "Folder of a training run; several are an ensemble.", required=True
)
INPUT = flags.DEFINE_multi_string(
    "input", None, "File, folder or pattern (a/*.cif); may be given several times.", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "CSV file; the screen if not given.")
WORKERS = flags.DEFINE_integer("workers", 0, "Processes that read structures; 0 takes all cores.")


def main() -> None:
    cli.prepare()
    from cgcnn_jax.data.sources import read_inputs
    from cgcnn_jax.files import write_text

    output = cli.output_file(OUTPUT.value, "a CSV") if OUTPUT.value else None
    predictor = _restore(WORKDIR.value)
    cli.tell_unread(INPUT.value)
    with (
        cli.graph_workers(WORKERS.value) as executor,
        cli.bar(desc="predicting", unit="crystal", leave=False) as bar,
    ):
        table = predictor.predict_entries(read_inputs(INPUT.value), executor=executor, on_progress=bar.update)
    if not len(table):
        raise ValueError(f"{', '.join(INPUT.value)}: no structure there")
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.8g")
    if output:
        write_text(output, text)
    else:
        print(text, end="")
    failed = int((table["reason"] != "").sum())
    where = f" in {output}" if output else ""
    print(f"{len(table) - failed} predictions{where}, {failed} structures without one", file=sys.stderr)
    if "outside" in table and (outside := int((table["outside"] != "").sum())):
        print(f"{outside} lie outside of what the network was trained on; the column outside says why", file=sys.stderr)
    if twice := int(table["id"].duplicated().sum()):
        print(
            f"{twice} rows have the id of an earlier one (files of one name); the folder above them as --input gives each its own",
            file=sys.stderr,
        )
    if failed == len(table):
        raise ValueError("no structure could be predicted; the reasons stand in the last column")


def _restore(workdirs: list[str]) -> "TablePredictor":
    """The networks of the folders, and what judges structures by their training crystals if that is known."""
    from cgcnn_jax.ensemble import restore
    from cgcnn_jax.judging import JudgingPredictor, first_known

    predictor = restore(*workdirs)
    try:
        return JudgingPredictor(predictor, first_known(predictor, workdirs))
    except (FileNotFoundError, ValueError) as error:
        print(f"no column outside: {error}", file=sys.stderr)
        return predictor


if __name__ == "__main__":
    cli.run(main)
