"""Downloads that go on where they were broken off."""

import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

_BLOCK = 1 << 18
_AGENT = "cgcnn_jax"


class NotServedError(OSError):
    """The server cannot be reached, or sends another page instead of the file."""


class _BrokenError(Exception):
    """The transfer ended before the file did, or the server asks for patience; another attempt may go on."""


def download(
    url: str,
    part: Path,
    *,
    checked: bool = False,
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
    attempts: int = 5,
    wait: float = 1.0,
    timeout: float = 60.0,
) -> None:
    """Brings a whole file to `part`, appending to what an earlier start has left there.

    What is there is used if the server says (Range, If-Range) that its file is still the same; PART.from keeps the mark
    by which it knows. Of a server that gives no mark, only a caller who checks the whole may go on with a piece.

    Args:
      url: Where it is.
      part: Where it goes; its folder exists.
      checked: Whether the caller compares the whole file with a published checksum.
      on_progress: Called with the bytes that are there, and of how many, None if the server does not say.
      attempts: Broken transfers in a row, without a byte gained, before giving up.
      wait: Seconds before the second attempt; twice as many before each further one.
      timeout: Seconds without an answer that count as broken.

    Raises:
      NotServedError: If the server cannot be reached, or sends another page.
      OSError: If the server does not have the file, the transfer keeps breaking, or the disk is full. All but the first
        leave what has come for the next start.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            _attempt(url, part, checked, on_progress, timeout)
            _mark(part).unlink(missing_ok=True)
            return
        except _BrokenError as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= attempts:
                said = f"{url}: {error}; tried {failures} times"
                if not (size := _size(part)):
                    raise NotServedError(said) from error
                raise OSError(
                    f"{said}. {size} bytes are kept in {part}; the same command goes on from there"
                ) from error
            time.sleep(wait * 2 ** (failures - 1))


def _attempt(
    url: str, part: Path, checked: bool, on_progress: Callable[[int, int | None], None], timeout: float
) -> None:
    start = _size(part)
    mark = _mark(part).read_text() if _mark(part).exists() else ""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": _AGENT})
    if start and (mark or checked):
        request.add_header("Range", f"bytes={start}-")
        if mark:
            request.add_header("If-Range", mark)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and start:
                if error.headers.get("Content-Range") == f"bytes */{start}":
                    return  # all of it is there already
                _discard(part)
                raise _BrokenError("what was there is longer than the server's file") from error
            if error.code == 429 or error.code >= 500:
                raise _BrokenError(f"the server answers {error.code} {error.reason}") from error
            raise NotServedError(f"{url}: the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _BrokenError(f"no answer in {timeout:.0f} s") from error
        # Refused is no network; reset while it was set up is a server that has too much to do.
        if isinstance(error.reason, ConnectionResetError | BrokenPipeError | ssl.SSLEOFError):
            raise _BrokenError(f"the connection broke ({error.reason!r})") from error
        raise NotServedError(f"{url}: cannot be reached ({error.reason})") from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _BrokenError(f"the connection broke ({error!r})") from error

    with response:
        if response.status not in (200, 206):
            # What a server sends instead to clients that it takes for robots.
            raise NotServedError(f"{url}: the server answers {response.status} {response.reason}, not with the file")
        goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if response.status == 206 and not goes_on:
            _discard(part)
            raise _BrokenError("the server sent another piece than the one asked for")
        done = start if goes_on else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with _explained(part), part.open("ab" if goes_on else "wb", buffering=0) as file:
            _write_mark(part, response.headers)
            while True:
                on_progress(done, total)
                try:
                    block = response.read(_BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    raise _BrokenError(f"the connection broke after {done} bytes ({error!r})") from error
                if not block:
                    break
                _write(file, block)
                done += len(block)
    if total is not None and done < total:
        raise _BrokenError(f"the connection ended after {done} of {total} bytes")


def digest(path: Path, *, git_blob: bool = False) -> str:
    """SHA-256 of a file, or the name that git gives its content."""
    content = hashlib.sha1(f"blob {path.stat().st_size}\0".encode()) if git_blob else hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            content.update(block)
    return content.hexdigest()


@contextmanager
def _explained(part: Path) -> Iterator[None]:
    """Says what a failure to write means for what has come."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{part} cannot be written ({error.strerror}); {_size(part)} bytes are kept. Make room, or choose another "
            "--folder; the same command goes on from there"
        ) from error


def _write(file: FileIO, block: bytes) -> None:
    # Unbuffered, so that what is counted is on the disk; such a write may take only a part of the block.
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _write_mark(part: Path, headers: http.client.HTTPMessage) -> None:
    tag = headers.get("ETag", "")
    mark = headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    if mark:
        _mark(part).write_text(mark)
    else:
        _mark(part).unlink(missing_ok=True)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _mark(part).unlink(missing_ok=True)


def _mark(part: Path) -> Path:
    return part.with_name(part.name + ".from")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
