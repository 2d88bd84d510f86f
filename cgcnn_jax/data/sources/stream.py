"""Large JSON documents read item by item, plain, gzipped or zipped, so that memory stays flat.

Written here because the sets come from Python's json, whose NaN and Infinity the libraries for streams refuse.
"""

import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

# What reading a damaged file raises, compressed in whatever way.
DAMAGE = (EOFError, OSError, UnicodeDecodeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_BLOCK = 1 << 18
# Characters; a record that seems longer is a broken one, which would otherwise take the rest of the file with it.
_LONGEST = 1 << 27
_AFTER_VALUE = frozenset(" \t\n\r,:]}")
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def stream_items(path: Path, member: str = "") -> Iterator[Any]:
    """The items of a JSON list, one after another.

    Args:
      path: A .json, .json.gz or .json.zip file.
      member: Name of the list in the object that the document is; empty if the document is the list.

    Yields:
      The items; none if there is no such list.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is damaged, or not JSON.
    """
    number = 0
    with open_json(path) as file:
        try:
            reader = _Reader(io.TextIOWrapper(file, encoding="utf-8-sig"))
            for item in reader.items(member):
                yield item
                number += 1
        except (_NotJsonError, *DAMAGE) as error:
            raise ValueError(f"{path}: damaged after record {number} ({error}); fetch or make it again") from error


def read_member(path: Path, member: str) -> Any:
    """A small member of an object, None if it has none; reads no further than to it. Raises as stream_items."""
    with open_json(path) as file:
        try:
            reader = _Reader(io.TextIOWrapper(file, encoding="utf-8-sig"))
            return reader.value() if reader.find(member) else None
        except (_NotJsonError, *DAMAGE) as error:
            raise ValueError(f"{path}: damaged before {member} ({error}); fetch or make it again") from error


class _NotJsonError(ValueError):
    """What stands there is not JSON."""


class _Reader:
    """Decodes values from a text that is held piece by piece."""

    def __init__(self, text: TextIO) -> None:
        self._text, self._held, self._place = text, "", 0

    def items(self, member: str) -> Iterator[Any]:
        """Items of the list in a member, or of the list that is the document; then reads on to the end."""
        if self.find(member) if member else self._next() == "[":
            self._take("[")
            if self._next() == "]":
                self._take("]")
            else:
                yield self.value()
                while self._take(",]") == ",":
                    yield self.value()
            # As where two files were joined; the rest would be lost.
            if not member and (after := self._next()):
                raise _NotJsonError(f"{after} follows the list that the document is")
        # The checksum of a compressed file stands at its end.
        while self._text.read(_BLOCK):
            pass

    def find(self, member: str) -> bool:
        """Goes to the value of a member of the object that the document is."""
        self._take("{")
        if self._next() == "}":
            return False
        while True:
            name = self.value()
            self._take(":")
            if name == member:
                return True
            self.value()
            if self._take(",}") == "}":
                return False

    def value(self) -> Any:
        """The value that follows."""
        self._next()
        size = _BLOCK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._place)
            except json.JSONDecodeError as error:
                problem = error.msg
            # Thousands of open brackets, or a number of thousands of digits.
            except (RecursionError, ValueError) as error:
                raise _NotJsonError(str(error)) from error
            else:
                # A number may go on in the next piece: 1, 1.5 and 1.5e-7 all begin alike.
                if self._held[end : end + 1] in _AFTER_VALUE:
                    self._place = end
                    return value
                problem = f"{self._held[end : end + 1] or 'the end'} follows a value"
            if len(self._held) - self._place > _LONGEST or not self._more(size):
                raise _NotJsonError(problem)
            size *= 2

    def _next(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            self._place = _SPACE.match(self._held, self._place).end()  # type: ignore[union-attr]
            if self._place < len(self._held):
                return self._held[self._place]
            if not self._more(_BLOCK):
                return ""

    def _take(self, expected: str) -> str:
        found = self._next()
        if not found or found not in expected:
            raise _NotJsonError(f"{' or '.join(expected)} should stand where {found or 'the text ends'}")
        self._place += 1
        return found

    def _more(self, size: int) -> bool:
        piece = self._text.read(size)
        self._held, self._place = self._held[self._place :] + piece, 0
        return bool(piece)


@contextmanager
def open_json(path: Path) -> Iterator[IO[bytes]]:
    """Opens a JSON document for reading. Raises as stream_items."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'a folder, not a file' if path.exists() else 'no such file'}")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(path, stack))
        except DAMAGE as error:
            if getattr(error, "filename", None) is not None:
                raise  # the file cannot be opened
            raise ValueError(f"{path}: damaged ({error}); fetch or make it again") from error
        # Of a password, or of a version or method that zipfile has not.
        except RuntimeError as error:
            raise ValueError(f"{path}: cannot be unpacked ({error}); make it again without that") from error
        yield file


def _opened(path: Path, stack: ExitStack) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    if path.suffix != ".zip":
        return path.open("rb")
    archive = stack.enter_context(zipfile.ZipFile(path))
    # A Mac's zip holds hidden copies.
    names = [name for name in archive.namelist() if name.endswith(".json") and not name.startswith(("__MACOSX", "."))]
    if len(names) != 1:
        raise ValueError(f"{path}: must hold one .json file, holds {', '.join(names) or 'none'}")
    return archive.open(names[0])
