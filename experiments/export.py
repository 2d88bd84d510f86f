"""Writes the network of a finished run to a folder to give away: weights, configuration and a card, no training.

python -m experiments.export --workdir=DIR --output=FOLDER

FOLDER stands for a --workdir wherever a model is used (predict, evaluate, interpret, screen), and training starts
from it by --config.init_from=FOLDER. The ids of the crystals it was trained on are in it, so that nobody judges it by
those; their structures and labels are not. `experiments.interpret --workdir=DIR`, run before, adds what warns of
crystals unlike these (applicability.npz: their formulas, and their vectors in the network).
"""

from absl import flags

from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished training run.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder to make.", required=True)


def main() -> None:
    cli.prepare()
    from cgcnn_jax.export import CARD, export

    print(export(WORKDIR.value, OUTPUT.value).split("```")[0].strip())
    print(f"exported  {OUTPUT.value}/{CARD}")


if __name__ == "__main__":
    cli.run(main)
