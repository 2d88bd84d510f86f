"""Writes one HTML page about one finished run, or several side by side.

python -m experiments.report --workdir=DIR [--workdir=DIR2 ...] [--output=report.html]

The page needs no network and no data: what it shows lies in the runs' folders. docs/report.md explains it.
"""

from pathlib import Path

from absl import flags

from experiments import cli

WORKDIRS = flags.DEFINE_multi_string("workdir", None, "Folder of a finished run; several are compared.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "HTML file; report.html in the folder of the first run if not given.")


def main() -> None:
    try:
        from cgcnn_jax.report import page
    except ImportError as error:
        raise ValueError(str(error)) from error

    output = cli.output_file(OUTPUT.value, "an HTML") if OUTPUT.value else Path(WORKDIRS.value[0]) / "report.html"
    path = page.write(WORKDIRS.value, output)
    print(f"report    {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    cli.run(main)
