"""Brings a public data set to this machine: whole, checked, and ready for --config.data.source.

python -m experiments.fetch --list
python -m experiments.fetch matbench_log_kvrh [--folder=DIR]
python -m experiments.fetch materials_project --chemsys=Li-Fe-O --fields=band_gap,k_vrh --output=lifeo.jsonl.gz

Sets go to the user's data folder, or CGCNN_JAX_DATA, or --folder. A download that breaks off goes on where it was, with
the same command. Without a network, put the files there by hand; the same command then checks them. The Materials
Project needs a key of your own in MP_API_KEY; --fields are fields of its summary, k_vrh and g_vrh among them.
"""

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
        for one in sets.SETS.values():
            there = all((folder / one.name / file.name).is_file() for file in one.files)
            print(f"{'*' if there else ' '} {one.name:33} {one.records:>7}  {one.about}")
        print(f"* is there, in {folder}")
        return
    if len(names) != 1:
        raise ValueError("name one set: python -m experiments.fetch NAME; --list shows them")
    if names[0] == "materials_project":
        _materials_project()
    elif names[0] in sets.SETS:
        _fetch(names[0], folder)
    else:
        raise ValueError(f"unknown set {names[0]!r}; --list shows them (and there is materials_project)")


def _fetch(name: str, folder: Path) -> None:
    from cgcnn_jax.data import sets, sources
    from experiments.install import install

    chosen = sets.SETS[name]
    n_record = install(chosen, folder)
    print(f"{name}: {n_record} records, checked, in {folder / name}")
    print(f"licence: {chosen.licence}\ncite:    {chosen.cite}")
    if chosen.benchmark:
        print(f"use:     --config.data.source={chosen.source} --config.data.task={name}")
        return
    task = "" if chosen.source == "jarvis" else name
    is_found = folder == sets.data_folder() and name == sources.SOURCES[chosen.source].fetched(
        sources.Request(task=task)
    )
    print(
        f"use:     --config.data.source={chosen.source}"
        + (f" --config.data.task={task}" if task else "")
        + ("" if is_found else f" --config.data.path={sets.locate(name, folder)}")
    )


def _materials_project() -> None:
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
    print("licence: CC BY 4.0\ncite:    A. Jain et al., APL Mater. 1, 011002 (2013), doi:10.1063/1.4812323")
    print(f"use:     --config.data.source=jsonl --config.data.path={output}")


if __name__ == "__main__":
    cli.run(main, positional=True)
