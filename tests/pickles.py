"""Which pickles are read, and what they name."""

import contextlib
import sys
from collections.abc import Iterator

_opened: list[list[str]] = []


def _listen(event: str, arguments: tuple) -> None:
    if event == "pickle.find_class":
        for names in _opened:
            names.append(".".join(map(str, arguments)))


# Python has no way to take a hook back; between uses it does nothing.
sys.addaudithook(_listen)


@contextlib.contextmanager
def unpickled() -> Iterator[list[str]]:
    """What is named by the pickles that are read meanwhile."""
    names: list[str] = []
    _opened.append(names)
    try:
        yield names
    finally:
        _opened.remove(names)
