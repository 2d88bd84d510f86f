"""The embedded demo set: a few thousand crystals whose labels come from a machine-learned potential (demo_card.md)."""

from collections.abc import Iterator
from importlib.resources import as_file, files

from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.sources.jsonl import read_jsonl


def read_demo() -> Iterator[Crystal | Rejected]:
    """The demo crystals, for trying the software."""
    with as_file(files("cgcnn_jax") / "assets" / "demo.jsonl.gz") as path:
        yield from read_jsonl(path)
