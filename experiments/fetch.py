"""Brings a public data set to this machine: whole, checked, and ready for --config.data.source.

python -m experiments.fetch --list
python -m experiments.fetch matbench_log_kvrh [--folder=DIR]
python -m experiments.fetch materials_project --chemsys=Li-Fe-O --fields=band_gap,k_vrh --output=lifeo.jsonl.gz

Sets go to the user's data folder, or CGCNN_JAX_DATA, or --folder. A download that breaks off goes on where it was, with
the same command. Without a network, put the files there by hand; the same command then checks them. The Materials
Project needs a key of your own in MP_API_KEY; --fields are fields of its summary, k_vrh and g_vrh among them.
"""

import shlex
from itertools import islice
from pathlib import Path

from absl import flags

from experiments import cli

LIST = flags.DEFINE_bool("list", False, "Show the known sets.")
FOLDER = flags.DEFINE_string("folder", None, "Folder of sets; the user's data folder if not given.")
CHEMSYS = flags.DEFINE_list("chemsys", [], "Chemical systems, such as Li-Fe-O,Si-*; materials_project only.")
IDS = flags.DEFINE_string("ids", None, "File of ids such as mp-149, one a line; materials_project only.")
FIELDS = flags.DEFINE_list("fields", [], "Properties to take; materials_project only.")
OUTPUT = flags.DEFINE_string("output", None, "The .jsonl.gz to write; materials_project only.")


def main(*names: str) -> None:
    from cgcnn_jax.data import sets

    folder = Path(FOLDER.value).expanduser() if FOLDER.value else sets.data_folder()
    if LIST.value:
        cli.refuse(CHEMSYS, IDS, FIELDS, OUTPUT, unless="materials_project")
        if names:
            raise ValueError(f"--list shows all sets; got {names[0]!r} as well, which is fetched without it")
        for one in sets.SETS.values():
            print(f"{' ' if sets.missing(one.name, folder) else '*'} {one.name:33} {one.records:>7}  {one.about}")
        print(f"* is there, in {folder}")
        return
    if len(names) != 1:
        raise ValueError("name one set: python -m experiments.fetch NAME; --list shows them")
    if names[0] == "materials_project":
        cli.refuse(FOLDER, unless="sets; --output says where the crystals of materials_project go")
        _materials_project()
    elif names[0] in sets.SETS:
        cli.refuse(CHEMSYS, IDS, FIELDS, OUTPUT, unless="materials_project")
        _fetch(names[0], folder)
    else:
        raise ValueError(f"unknown set {names[0]!r}; --list shows them (and there is materials_project)")


def _fetch(name: str, folder: Path) -> None:
    from cgcnn_jax.data import sets
    from experiments.install import install

    chosen = sets.SETS[name]
    n_record = install(chosen, folder)
    print(f"{name}: {n_record} records, checked, in {folder / name}")
    print(f"licence: {chosen.licence}\ncite:    {chosen.cite}")
    for line in _usage(name, folder):
        print(f"use:     {line}")


def _usage(name: str, folder: Path) -> list[str]:
    """The flags that train on a fetched set, after what else has to be fetched for it."""
    from cgcnn_jax.data import sets, sources

    chosen, is_default = sets.SETS[name], folder == sets.data_folder()
    source = sources.SOURCES[chosen.source]
    task = name if chosen.benchmark or chosen.source != "jarvis" else ""
    found = source.fetched(sources.Request(task=task))
    # A benchmark is values and splits; its crystals are a set of their own.
    crystals = found if chosen.benchmark and found else name
    lines = []
    if sets.missing(crystals, folder):
        there = "" if is_default else f" --folder={shlex.quote(str(folder))}"
        lines.append(f"python -m experiments.fetch {crystals}{there}   (the crystals of these values)")
    flags_of_it = [f"--config.data.source={chosen.source}"]
    if task:
        # By name it is looked up in the default folder alone.
        given = sets.place(name, folder) if chosen.benchmark and not is_default else task
        flags_of_it.append(f"--config.data.task={shlex.quote(str(given))}")
    if not is_default or crystals != found:
        flags_of_it.append(f"--config.data.path={shlex.quote(str(sets.place(crystals, folder)))}")
    lines.append(" ".join(flags_of_it))
    if source.task(task) is None and not sets.missing(name, folder):
        # No task says what is learned.
        entries = sources.read(chosen.source, sources.Request(str(sets.place(name, folder)), task=task))
        known = {target for one in islice(entries, 100) for target in getattr(one, "targets", ())}
        lines[-1] += (
            f" --config.data.target=PROPERTY   (of the first 100 crystals: {', '.join(sorted(known)) or 'none'})"
        )
    return lines


def _materials_project() -> None:
    from cgcnn_jax.data.sources.materials_project import UNITS
    from experiments import materials_project

    if not OUTPUT.value or not OUTPUT.value.endswith(".jsonl.gz"):
        raise ValueError("--output=NAME.jsonl.gz must say where the crystals go")
    if bool(IDS.value) == bool(CHEMSYS.value):
        raise ValueError("choose the crystals by either --chemsys=Li-Fe-O or --ids=FILE")
    ids = Path(IDS.value).expanduser().read_text(encoding="utf-8-sig").split() if IDS.value else None
    output = Path(OUTPUT.value).expanduser()
    with (
        materials_project.client() as client,
        cli.bar(desc="Materials Project", unit="crystal", leave=False) as bar,
    ):

        def advance(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        done = materials_project.fetch(
            client, output, FIELDS.value, ids=ids, chemsys=CHEMSYS.value, on_progress=advance
        )
    print(
        f"{done.crystals} crystals in {output}, {done.rejected} left out"
        + (f" ({done.reasons})" if done.rejected else "")
    )
    for field, number in done.known.items():
        print(f"{field:8} is known of {number}")
    print("licence: CC BY 4.0\ncite:    A. Jain et al., APL Mater. 1, 011002 (2013), doi:10.1063/1.4812323")
    # A run learns one property if none is named by hand; of several, the first.
    target = FIELDS.value[0] if FIELDS.value else "PROPERTY"
    unit = UNITS.get(target, "")
    print(
        f"use:     --config.data.source=jsonl --config.data.path={shlex.quote(str(output))} --config.data.target={target}"
        + (f" --config.data.unit={unit}" if unit else "")
    )


if __name__ == "__main__":
    cli.run(main, positional=True)
