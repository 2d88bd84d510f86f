"""Writes the network of a finished run to a folder to give away: weights, configuration and a card, no training.

python -m experiments.export --workdir=DIR --output=FOLDER

FOLDER stands for a --workdir wherever a model is used (predict, evaluate, interpret, screen), and training starts
from it by --config.init_from=FOLDER. Who has it can read the ids of the crystals that trained, validated and tested the
network, so that nobody judges it by those that it was trained on (but not those of a model that it started from), and on
which machine that was; structures and labels are not in it. Where DIR has applicability.npz
(experiments.train makes it with its report, experiments.interpret if that is missing), it goes with it, and warns of
crystals unlike the training crystals: their elements and bonds, and ids, formulas and vectors of as many as it needs.
"""

from absl import flags

from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished training run.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder to make.", required=True)


def main() -> None:
    cli.prepare()
    from cgcnn_jax.export import CARD, export

    print(export(WORKDIR.value, OUTPUT.value))
    print(f"exported  {OUTPUT.value}, what it is: {CARD}")


if __name__ == "__main__":
    cli.run(main)
