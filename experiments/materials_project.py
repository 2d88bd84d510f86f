"""Crystals of the Materials Project as JSON lines, batch by batch, so that a stopped query goes on where it was."""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources.jsonl import line_of
from cgcnn_jax.data.sources.materials_project import find_ids, read_materials_project
from cgcnn_jax.files import locked, write_text, written_whole
from cgcnn_jax.workdir import as_csv


@dataclass(frozen=True)
class Done:
    """What was written: counts, of crystals also by field, and the file of reasons, None if every material is a crystal."""

    crystals: int
    known: dict[str, int]
    rejected: int
    reasons: Path | None


def client() -> Any:
    """An open client.

    Raises:
      ValueError: If there is no key, or mp-api is not installed.
    """
    key = os.environ.get("MP_API_KEY")
    if not key:
        raise ValueError(
            "the Materials Project wants a key: make one at https://next-gen.materialsproject.org/api and give it in the "
            "environment, export MP_API_KEY=..."
        )
    try:
        from mp_api.client import MPRester
    except ImportError as error:
        raise ValueError("the Materials Project needs the package mp-api: pip install 'cgcnn-jax[mp]'") from error
    return MPRester(key)


def fetch(
    client: Any,
    output: Path,
    fields: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    chemsys: Sequence[str] = (),
    batch: int = 500,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Done:
    """Writes a .jsonl.gz with the crystals of a query, and OUTPUT.rejected.csv with those that cannot be used.

    Finished batches wait in OUTPUT.parts, with the ids that the query found: a later start asks for the rest alone.

    Args:
      client: An open MPRester.
      output: The file; it appears when it is whole.
      fields: See read_materials_project.
      ids: The materials; found by `chemsys` if not given.
      chemsys: Chemical systems.
      batch: Materials a request.
      on_progress: Called with the number of materials done, and of all.

    Raises:
      ValueError: If OUTPUT.parts belongs to another query or another process is at it, the query finds nothing, or no
        crystal has a number for one of the fields.
      OSError: If the Materials Project cannot be reached or refuses; finished batches are kept for the next start.
    """
    parts = output.with_name(f"{output.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    with locked(parts / ".lock", f"another process is writing {output}; wait for it"):
        done = _fetch(client, output, parts, fields, ids, chemsys, batch, on_progress)
        shutil.rmtree(parts)
    return done


def _fetch(
    client: Any,
    output: Path,
    parts: Path,
    fields: Sequence[str],
    ids: Sequence[str] | None,
    chemsys: Sequence[str],
    batch: int,
    on_progress: Callable[[int, int], None],
) -> Done:
    query = {"fields": list(fields), "ids": list(ids) if ids is not None else None, "chemsys": list(chemsys)}
    begun = parts / "query.json"
    if begun.exists():
        stored = json.loads(begun.read_text())
        if stored["query"] != query:
            raise ValueError(f"{parts} holds a part of another query; choose another --output, or remove it")
    else:
        # Without their query, as a kill leaves them that came while they were removed, batches are of nobody knows what.
        for part in parts.glob("*.json"):
            part.unlink()
        found = list(dict.fromkeys(ids)) if ids is not None else find_ids(client, chemsys=list(chemsys))
        if not found:
            raise ValueError(f"the Materials Project has nothing in {', '.join(chemsys) or 'an empty list of ids'}")
        stored = {"query": query, "found": found, "batch": batch}
        write_text(begun, json.dumps(stored))

    found, size = stored["found"], stored["batch"]
    batches = {start: parts / f"{start:07d}.json" for start in range(0, len(found), size)}
    for start, part in batches.items():
        if not part.exists():
            entries = list(read_materials_project(client, found[start : start + size], fields))
            content = {
                "lines": [line_of(entry) for entry in entries if isinstance(entry, Crystal)],
                "rejected": [(entry.id, entry.reason) for entry in entries if not isinstance(entry, Crystal)],
            }
            write_text(part, json.dumps(content))
        on_progress(min(start + size, len(found)), len(found))

    # One batch in memory at a time. Without name and time in it, the same crystals are the same file.
    n_crystal, known, rejected = 0, dict.fromkeys(fields, 0), []
    reasons = output.with_name(f"{output.name.removesuffix('.jsonl.gz')}.rejected.csv")
    with written_whole(output) as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        for part in batches.values():
            content = json.loads(part.read_text())
            packed.write("".join(content["lines"]).encode())
            n_crystal += len(content["lines"])
            rejected += content["rejected"]
            for line in content["lines"]:
                for field in json.loads(line)["properties"]:
                    known[field] += 1
        if n_crystal and not all(known.values()):
            unknown = ", ".join(field for field, number in known.items() if not number)
            raise ValueError(
                f"none of {n_crystal} crystals has a number for {unknown}: a text, or nothing that is known of them; ask "
                f"without it, and remove {parts} or choose another --output"
            )
        # Before the crystals get their name: whoever finds them finds what is left out.
        if rejected:
            write_text(reasons, as_csv(("id", "reason"), rejected))
        else:
            reasons.unlink(missing_ok=True)  # of an earlier query
    return Done(n_crystal, known, len(rejected), reasons if rejected else None)
