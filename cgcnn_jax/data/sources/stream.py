"""Large JSON documents read item by item, plain, gzipped or zipped, so that memory stays flat."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def stream_items(path: Path, prefix: str) -> Iterator[Any]:
    """The values at a place of a JSON document, one after another.

    Args:
      path: A .json, .json.gz or .json.zip file.
      prefix: The place, as ijson writes it: "item" for the items of a list, "data.item" for those of its member data.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is damaged, or not JSON.
    """
    import ijson

    number = 0
    with open_json(path) as file:
        try:
            for value in ijson.items(file, prefix, use_float=True):
                yield value
                number += 1
        except (ijson.JSONError, EOFError, OSError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError) as error:
            reason = str(error).strip().splitlines()
            raise ValueError(
                f"{path}: damaged after record {number} ({reason[0] if reason else error!r}); fetch or make it again"
            ) from error


@contextmanager
def open_json(path: Path) -> Iterator[IO[bytes]]:
    """Opens a JSON document for reading. Raises as stream_items."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'a folder, not a file' if path.exists() else 'no such file'}")
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                # A Mac's zip holds hidden copies.
                names = [
                    name
                    for name in archive.namelist()
                    if name.endswith(".json") and not name.startswith(("__MACOSX", "."))
                ]
                if len(names) != 1:
                    raise ValueError(f"{path}: must hold one .json file, holds {', '.join(names) or 'none'}")
                with archive.open(names[0]) as file:
                    yield file
        elif path.suffix == ".gz":
            with gzip.open(path) as unzipped:
                yield unzipped  # type: ignore[misc]
        else:
            with path.open("rb") as plain:
                yield plain
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: damaged ({error}); fetch or make it again") from error
