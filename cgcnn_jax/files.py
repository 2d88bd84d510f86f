"""Files written whole or not at all, and by one process at a time."""

import contextlib
import fcntl
import hashlib
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNFINISHED = ".*.????????.tmp"  # what written_whole calls a file until it is whole
_LONGEST = 200  # bytes of a name; file systems take 255, and endings are to come


def user_cache() -> Path:
    """Folder of what can be made again: CGCNN_JAX_CACHE, or the user's cache (~/.cache/cgcnn_jax on Linux)."""
    import platformdirs

    return Path(os.environ.get("CGCNN_JAX_CACHE") or platformdirs.user_cache_path("cgcnn_jax")).expanduser()


def file_name(text: str) -> str:
    """A text of the data as the name of a file: no part of a path, printable, and not too long.

    Slashes and what cannot be printed become underscores. A text that is too long is cut, and a digest of the whole
    tells it from others that begin as it does. Two texts may still have one name (a/b and a_b).
    """
    name = re.sub(
        r"^\.+",
        lambda dots: "_" * len(dots[0]),
        "".join(c if c.isprintable() and c not in "/\\" else "_" for c in text),
    )
    if len(name.encode()) <= _LONGEST:
        return name or "_"
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{name.encode()[: _LONGEST - 17].decode(errors='ignore')}-{digest}"


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, or leaves what was there; see written_whole."""
    with written_whole(path) as file:
        file.write(content)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that gets its name at the end: an error, a kill, a full disk or a power cut leaves what was there.

    A link stays one, and the file that it leads to is written. A pipe or a device is written as it is.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    # With the rights that the user gives to new files, or gave to this one.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        if path.exists():
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        with os.fdopen(handle, "wb") as file:
            yield file
            # Or a machine that loses its power may find the name and nothing in it.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def remove_unfinished(folder: Path) -> None:
    """Removes what killed writes left in a folder. No other process may write there meanwhile."""
    for left in folder.glob(_UNFINISHED):
        left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8; see write_bytes."""
    write_bytes(path, text.encode())


def write_figure(path: Path, figure: "Figure") -> None:
    """Writes a PNG of 150 dots an inch; see write_bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_bytes(path, content.getvalue())


@contextlib.contextmanager
def locked(path: Path, otherwise: str) -> Iterator[None]:
    """Holds the lock file of a folder in which no one else writes, and tidies up what killed writes left there.

    Raises:
      ValueError: With the message `otherwise`, if another process holds it.
    """
    with lock_if_free(path) as is_held:
        if not is_held:
            raise ValueError(otherwise)
        remove_unfinished(path.parent)
        yield


@contextlib.contextmanager
def lock_if_free(path: Path, *, waits: bool = False) -> Iterator[bool]:
    """Holds a lock file unless another process does, which the value tells; with `waits`, waits until none does.

    The lock ends with the process that holds it, however that ends.

    Raises:
      OSError: If the file system has no locks.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            is_held = True
        except BlockingIOError:
            is_held = False
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}: this file system has no locks, which keep two processes from writing one folder; "
                "choose a folder on another, or let it be mounted with them",
                str(path),
            ) from error
        yield is_held
