"""Where crystals come from. Every source is a function that yields entries (`Crystal` and the like) or `Rejected`."""

from collections.abc import Callable, Iterator

from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.sources.ase import read_ase as read_ase
from cgcnn_jax.data.sources.by_name import is_there as is_there
from cgcnn_jax.data.sources.by_name import read_input as read_input
from cgcnn_jax.data.sources.by_name import read_inputs as read_inputs
from cgcnn_jax.data.sources.by_name import read_unparsed as read_unparsed
from cgcnn_jax.data.sources.by_name import unread as unread
from cgcnn_jax.data.sources.cdvae import read_cdvae as read_cdvae
from cgcnn_jax.data.sources.demo import read_demo as read_demo
from cgcnn_jax.data.sources.directory import read_directory as read_directory
from cgcnn_jax.data.sources.files import read_files as read_files
from cgcnn_jax.data.sources.jarvis import read_jarvis as read_jarvis
from cgcnn_jax.data.sources.jsonl import CrystalLine as CrystalLine
from cgcnn_jax.data.sources.jsonl import read_jsonl as read_jsonl
from cgcnn_jax.data.sources.matbench import read_matbench as read_matbench
from cgcnn_jax.data.sources.materials_project import read_materials_project as read_materials_project
from cgcnn_jax.data.sources.registry import SOURCES as SOURCES
from cgcnn_jax.data.sources.registry import Request as Request
from cgcnn_jax.data.sources.registry import Source as Source
from cgcnn_jax.data.sources.registry import read as read
from cgcnn_jax.data.sources.structures import entries_of as entries_of
from cgcnn_jax.data.sources.structures import read_structures as read_structures


class Entries:
    """Crystals that are read anew each time they are gone through, so that they need not be kept.

    Attributes:
      read: Starts reading.
    """

    def __init__(self, read: Callable[[], Iterator[Entry | Rejected]]) -> None:
        self.read = read

    def __iter__(self) -> Iterator[Entry | Rejected]:
        return self.read()
