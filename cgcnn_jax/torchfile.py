"""Checkpoint files of torch read with numpy alone, running no code of theirs.

A torch file is a pickle, and unpickling runs what the file names. Here the only names are those of tensors, their
storages, dictionaries and numpy scalars, each replaced by a function of ours; any other name is refused.
Two formats: torch >= 1.6 writes a zip archive, older ones (and the published CGCNN weights) five pickles followed by
the raw storages.
"""

# mypy: disable-error-code="attr-defined,misc,name-defined"
import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cgcnn_jax.files import write_bytes

MAX_BYTES = 2**30
_MAX_VALUES = 10**6  # tensors, numbers and texts
_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_SCALARS = {"f8": "<f8", "f4": "<f4", "f2": "<f2", "i8": "<i8", "i4": "<i4", "u1": "u1", "b1": "?"}


class TorchFileError(ValueError):
    """A file that is not a torch checkpoint, is damaged, or names something that is not allowed."""


def read(path: str | Path) -> Any:
    """The content of a torch file: nested dictionaries with numpy arrays in place of tensors.

    Raises:
      FileNotFoundError: If there is no such file.
      TorchFileError: If the file is too large, truncated, of another kind, or names anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise TorchFileError(f"{path}: {size / 2**20:.0f} MB; checkpoints above {MAX_BYTES >> 20} MB are not read")
    content = path.read_bytes()
    try:
        return _read_zip(content) if content[:2] == b"PK" else _read_legacy(content)
    except TorchFileError as error:
        raise TorchFileError(f"{path}: {error}") from error
    # A damaged pickle fails in whatever way its bytes lead to.
    except Exception as error:
        raise TorchFileError(
            f"{path}: not a whole torch checkpoint ({type(error).__name__}: {error}); fetch or save it again"
        ) from error


class _Storage:
    """A flat array that may be filled in after the tensors that view it were made."""

    def __init__(self, dtype: str, size: int) -> None:
        self.dtype, self.size = np.dtype(dtype), size
        self.data: np.ndarray | None = None

    def fill(self, raw: bytes) -> None:
        if len(raw) != self.size * self.dtype.itemsize:
            raise TorchFileError(f"a storage of {self.size} numbers has {len(raw)} bytes; the file is cut short")
        self.data = np.frombuffer(raw, self.dtype)


class _Tensor:
    """A view of a storage, made an array at the end."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def array(self) -> np.ndarray:
        assert self.storage.data is not None
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        # More elements than the storage holds would be one number repeated, and a small file could ask for any memory.
        is_outside = 0 not in self.shape and max(last, math.prod(self.shape) - 1) >= self.storage.size
        if min((self.offset, *self.shape, *self.stride)) < 0 or is_outside:
            raise TorchFileError(f"a tensor of shape {self.shape} reaches outside its storage")
        item = self.storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            self.storage.data[self.offset :], self.shape, [step * item for step in self.stride], writeable=False
        )
        return view.copy()


class _Dtype:
    """A numpy dtype of a scalar; its pickled state says no more than the name."""

    def __init__(self, name: str, *flags: object) -> None:
        if name not in _SCALARS:
            raise TorchFileError(f"a numpy scalar of type {name!r}")
        self.dtype = np.dtype(_SCALARS[name])


def _rebuild(storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *rest: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise TorchFileError("a tensor without a storage")
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def _parameter(tensor: Any, *rest: object) -> Any:
    return tensor


def _scalar(dtype: Any, raw: bytes) -> Any:
    if not isinstance(dtype, _Dtype) or len(raw) != dtype.dtype.itemsize:
        raise TorchFileError("a numpy scalar of an unknown type")
    return np.frombuffer(raw, dtype.dtype)[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise TorchFileError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": OrderedDict,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
}


# The unpickler written in Python: the one in C reserves memory for any memo index that a file names.
class _Unpickler(pickle._Unpickler):
    def __init__(self, file: io.BytesIO, storage: Callable[..., _Storage] | None = None) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in _ALLOWED:
            raise TorchFileError(f"names {full}, which a checkpoint has no need of; the file is refused")
        return _ALLOWED[full]

    def _build(self) -> None:
        # A pickle may set any attribute of what it made, such as the size of a storage or the defaults of a function.
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, OrderedDict | _Dtype):
            raise TorchFileError(f"sets attributes of {type(made).__name__}; the file is refused")
        del state  # of a state_dict its metadata, of a dtype its flags: neither is needed

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _build}

    def persistent_load(self, identity: Any) -> _Storage:
        if self._storage is None or not isinstance(identity, tuple) or identity[0] != "storage":
            raise TorchFileError(f"an unknown persistent object {identity!r}")
        return self._storage(*identity[1:5])


def _read_legacy(content: bytes) -> Any:
    file = io.BytesIO(content)
    if _Unpickler(file).load() != _MAGIC:
        raise TorchFileError("not a torch checkpoint")
    _Unpickler(file).load()  # protocol
    _Unpickler(file).load()  # system
    storages: dict[str, _Storage] = {}

    def storage(dtype: str, key: str, location: str, size: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype, size))

    tree = _Unpickler(file, storage).load()
    keys = _Unpickler(file).load()
    for key in keys:
        (size,) = struct.unpack("<q", file.read(8))
        if key not in storages or size != storages[key].size:
            raise TorchFileError(f"storage {key!r} does not match its tensors")
        storages[key].fill(file.read(size * storages[key].dtype.itemsize))
    return _as_arrays(tree)


def _read_zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
            raise TorchFileError(f"unpacks to more than {MAX_BYTES >> 20} MB")
        pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickled) != 1:
            raise TorchFileError("a zip archive, but not a torch checkpoint")
        root = pickled[0].removesuffix("data.pkl")
        storages: dict[str, _Storage] = {}

        def storage(dtype: str, key: str, location: str, size: int) -> _Storage:
            if key not in storages:
                storages[key] = _Storage(dtype, size)
                storages[key].fill(archive.read(f"{root}data/{key}"))
            return storages[key]

        return _as_arrays(_Unpickler(io.BytesIO(archive.read(pickled[0])), storage).load())


def _as_arrays(tree: Any) -> Any:
    """The tree with arrays in place of tensors.

    A pickle may name one list or storage any number of times, so that a small file stands for more than any memory.
    """
    left = {"values": _MAX_VALUES, "bytes": MAX_BYTES}

    def take(what: str, amount: int) -> None:
        left[what] -= amount
        if left[what] < 0:
            raise TorchFileError("a small file that unpacks to more than a checkpoint holds")

    def convert(tree: Any) -> Any:
        take("values", 1)
        if isinstance(tree, _Tensor):
            take("bytes", math.prod(tree.shape) * tree.storage.dtype.itemsize)
            return tree.array()
        if isinstance(tree, dict):
            return {key: convert(value) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)(convert(value) for value in tree)
        return tree

    return convert(tree)


class _Name:
    """A global that is written by name only."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _StorageOf:
    """Written as the persistent identity of a storage."""

    def __init__(self, key: str, size: int) -> None:
        self.key, self.size = key, size


_REBUILD = _Name("torch._utils", "_rebuild_tensor_v2")
_ORDERED = _Name("collections", "OrderedDict")


# The pickler written in Python: only there can a name be written without importing what it names.
class _Pickler(pickle._Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.arrays: dict[str, np.ndarray] = {}

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, _StorageOf):
            return ("storage", _Name("torch", "FloatStorage"), value.key, "cpu", value.size, None)
        return None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Name):
            self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, np.ndarray):
            key = str(len(self.arrays))
            self.arrays[key] = np.array(value, "<f4", order="C")
            stride = tuple(int(step) // 4 for step in self.arrays[key].strides)
            storage = _StorageOf(key, value.size)
            self._call(_REBUILD, (storage, 0, tuple(value.shape), stride, False, _Made(_ORDERED)))
        elif isinstance(value, _Made):
            self._call(value.name, ())
        else:
            super().save(value, save_persistent_id)

    def _call(self, name: _Name, arguments: tuple[Any, ...]) -> None:
        self.save(name)
        super().save(arguments)
        self.write(pickle.REDUCE)


class _Made:
    """What a global without arguments returns."""

    def __init__(self, name: _Name) -> None:
        self.name = name


def write(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes nested dictionaries of numbers, text and float32 arrays as a torch file, arrays becoming tensors.

    The format is the one before torch 1.6, which every version reads.
    """
    file = io.BytesIO()
    for header in (_MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(header, file, protocol=2)
    pickler = _Pickler(file)
    pickler.dump(dict(content))
    pickle.dump(list(pickler.arrays), file, protocol=2)
    for array in pickler.arrays.values():
        file.write(struct.pack("<q", array.size) + array.tobytes())
    write_bytes(Path(path), file.getvalue())
