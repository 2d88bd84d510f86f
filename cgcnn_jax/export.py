"""Export: a finished run as a folder to give away, its network with a card that says what it is and how far to trust it."""

from pathlib import Path

from cgcnn_jax import applicability, evaluation
from cgcnn_jax.files import write_bytes, write_text
from cgcnn_jax.predict import Predictor
from cgcnn_jax.workdir import Workdir

CARD = "card.md"


def export(workdir: str | Path, folder: str | Path) -> str:
    """Writes the network of a run without its training, as `Predictor.save`, and beside it CARD, whose text it returns.

    What the run was trained on goes with it (`Applicability.save`) where it is known already.

    Raises:
      FileNotFoundError: If there is no run with a checkpoint.
      ValueError: If the run was not trained to its end, or the folder holds a model already.
    """
    run = Workdir(workdir)
    predictor = Predictor.restore(run.path)
    if not run.is_finished:
        raise ValueError(
            f"{run.path} is no run that was trained to its end, so that nothing says how good its network is; export one "
            "that is, or train this one on"
        )
    text = card(predictor, run)
    predictor.save(folder)
    known = run.path / applicability.FILE
    if known.exists():
        write_bytes(Workdir(folder).path / applicability.FILE, known.read_bytes())
    write_text(Workdir(folder).path / CARD, text)
    return text


def card(predictor: Predictor, run: Workdir) -> str:
    """What a finished run's network is, on what it was trained and judged, and with what errors; Markdown."""
    summary, config, scaler = run.summary(), predictor.about["config"], predictor.scaler
    named = zip(scaler.names, scaler.units, strict=True)
    title = ", ".join(f"{name} ({unit})" if unit else name for name, unit in named)
    data, crystals = config["data"], summary["crystals"]
    source = f"{data['task']}, fold {data['fold']}" if data["task"] else data["source"]
    versions = summary["versions"]
    judged = next(iter(summary["intervals_95"]))
    errors = evaluation.headline(scaler, summary["metrics"][judged], summary["intervals_95"][judged])
    lines = [
        f"{config['model']['num_convs']} x {config['model']['conv']}, {summary['parameters']:,} parameters",
        f"trained on {crystals['train']:,} crystals ({source}) for {config['train']['epochs']} epochs"
        + (f", chosen by {crystals['val']:,}" if crystals["val"] else ""),
        *(f"{crystals[judged]:,} crystals of {judged}: {line}" for line in errors),
        f"{summary['finished'][:10]}, cgcnn_jax {versions['cgcnn-jax']}"
        + (f" (commit {summary['commit']})" if summary["commit"] else "")
        + f", jax {versions['jax']}, {summary['hardware']['processor']}",
    ]
    listed = "\n".join(f"- {line}" for line in lines)
    return (
        f"# {title}\n\n{listed}\n\n```bash\npython -m experiments.predict --workdir=FOLDER --input=YOUR_CRYSTALS\n```\n"
    )
