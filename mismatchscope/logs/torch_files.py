"""What `torch.save` writes, read without torch: a zip archive of a pickle and of the bytes of every tensor.

The pickle is read as data (`restricted_pickle`). Tensors are views of the file, which is mapped into memory: what
is not asked for is not read, and whatever a file declares, nothing is larger than the file itself.
Layout: `torch/serialization.py`, the zip format of version 1.6 and later.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..input_files import open_regular
from .restricted_pickle import ForeignObjectError, RefusedFileError, Unbuilt, parse

MAGIC = b"PK\x03\x04"
_PICKLE = "/data.pkl"
_LOCAL_HEADER, _LOCAL_MAGIC = struct.Struct("<4s22xHH"), b"PK\x03\x04"
_MAX_DIMENSIONS = 32
_EDGE_BYTES = 2**16

# Names of torch's types -> numpy's; bfloat16 is what float32 has in its upper half.
_DTYPES = {
    **dict.fromkeys(("float64", "DoubleStorage"), "<f8"),
    **dict.fromkeys(("float32", "FloatStorage"), "<f4"),
    **dict.fromkeys(("float16", "HalfStorage"), "<f2"),
    **dict.fromkeys(("bfloat16", "BFloat16Storage"), "bfloat16"),
    **dict.fromkeys(("int64", "LongStorage"), "<i8"),
    **dict.fromkeys(("int32", "IntStorage"), "<i4"),
    **dict.fromkeys(("int16", "ShortStorage"), "<i2"),
    **dict.fromkeys(("int8", "CharStorage"), "i1"),
    **dict.fromkeys(("uint8", "ByteStorage"), "u1"),
    **dict.fromkeys(("bool", "BoolStorage"), "?"),
    **{name: f"<u{size}" for name, size in (("uint16", 2), ("uint32", 4), ("uint64", 8))},
}
_NUMPY_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor, or a numpy array, of a file: its raw values, which are read when they are asked for."""

    raw: np.ndarray
    is_bfloat16: bool = False

    def numpy(self) -> np.ndarray:
        """Its values; bfloat16 as float32, which holds them all."""
        return (self.raw.astype(np.uint32) << 16).view(np.float32) if self.is_bfloat16 else self.raw

    def __len__(self) -> int:
        return len(self.raw) if self.raw.ndim else 0


def read_torch_file(path: Path) -> Any:
    """What a file of `torch.save` holds: lists, dictionaries, numbers, texts, and a `Tensor` for each tensor.

    Raises `RefusedFileError` for anything else, for a truncated file and for a pickle that names anything but
    tensors and numpy arrays; its text is a clause. Raises what `open_regular` raises.
    """
    return _load(_mapped(path))


def read_torch_bytes(data: Any) -> Any:
    """The same of a file that is in memory already."""
    return _load(memoryview(data))


def pickle_edges(path: Path) -> bytes | None:
    """The first and last 64 KiB of a file's pickle, where its keys are; None for another file."""
    try:
        data = _mapped(path)
        pickled = _entries(data)[0]
    except (RefusedFileError, OSError):
        return None
    return bytes(pickled[:_EDGE_BYTES]) + bytes(pickled[-_EDGE_BYTES:])


def is_complete(path: Path) -> bool:
    """Whether the end of the archive is there, which is written last."""
    with suppress(RefusedFileError, OSError):
        return zipfile.is_zipfile(_View(_mapped(path)))
    return False


def _mapped(path: Path) -> memoryview:
    with open_regular(path) as file:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:
            raise RefusedFileError("it is empty") from None


def _load(data: memoryview) -> Any:
    pickled, records = _entries(data)
    return parse(pickled, _stand_ins(len(data)), _Storages(records))[0]


def _entries(data: memoryview) -> tuple[memoryview, dict[str, memoryview]]:
    """The pickle of an archive, and its other entries by their name within it."""
    try:
        with zipfile.ZipFile(_View(data)) as archive:
            found = {info.filename: _content(data, info) for info in archive.infolist()}
    except RefusedFileError:
        raise
    except (
        zipfile.BadZipFile,
        struct.error,
        ArithmeticError,
        NotImplementedError,
        LookupError,
        ValueError,
        OSError,
    ):
        raise RefusedFileError("it is no file of torch.save, or the end of it is missing") from None
    pickles = [name for name in found if name.endswith(_PICKLE) and name.count("/") == 1]
    if len(pickles) != 1:
        raise RefusedFileError("it is a zip archive, and none of torch.save")
    prefix = pickles[0].removesuffix("data.pkl")
    if bytes(found.get(f"{prefix}byteorder", b"little")) != b"little":
        raise RefusedFileError("its bytes are in big-endian order")
    return found.pop(pickles[0]), {name.removeprefix(prefix): entry for name, entry in found.items()}


def _content(data: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry, where they are; torch.save compresses nothing."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
        raise RefusedFileError("it has compressed entries, which torch.save does not write")
    if info.header_offset < 0:
        raise RefusedFileError("its entries are not where it says that they are")
    magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(data, info.header_offset)
    start = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if magic != _LOCAL_MAGIC or start + info.file_size > len(data):
        raise RefusedFileError("its entries are not where it says that they are")
    return data[start : start + info.file_size]


class _View(io.RawIOBase):
    """A file to read the directory of an archive from, without a copy of the archive."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, len(self._data))[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else self._at + size
        taken = bytes(self._data[self._at : end])
        self._at += len(taken)
        return taken


class _Storages:
    """What the pickle stores outside of it: ("storage", type, name of the entry, device, number of values)."""

    def __init__(self, records: Mapping[str, memoryview]) -> None:
        self._records = records

    def __call__(self, pointer: Any) -> _Storage:
        if type(pointer) is not tuple or len(pointer) != 5 or pointer[0] != "storage":
            raise RefusedFileError("it points to something that is no storage of a tensor")
        _, kind, key, _, count = pointer
        record = self._records.get(f"data/{key}") if type(key) is str else None
        if record is None:
            raise RefusedFileError("the values of one of its tensors are missing")
        if type(kind) is not _Type or type(count) is not int:
            raise RefusedFileError("one of its storages is of no type")
        if count < 0 or count * kind.itemsize > len(record):
            raise RefusedFileError(f"a tensor is declared with {count:,} values, and has {len(record):,} bytes")
        return _Storage(kind, record)


@dataclass(frozen=True)
class _Type:
    name: str

    @property
    def itemsize(self) -> int:
        return 1 if self.name == "untyped" else self.dtype.itemsize

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("<u2" if self.name == "bfloat16" else self.name)


@dataclass(frozen=True, eq=False)
class _Storage:
    kind: _Type
    record: memoryview


def _stand_ins(limit: int) -> dict[str, Any]:
    """What stands for each name that a file of lists, tensors and numpy arrays has; no tensor has more values than
    `limit`, the bytes of the file."""

    def tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
        kind = next((value for value in rest if type(value) is _Type), None)
        return _tensor(storage, kind or getattr(storage, "kind", None), offset, size, stride, limit)

    types = {f"torch {name}": _Type(dtype) for name, dtype in _DTYPES.items()}
    names: dict[str, Any] = {
        "torch.storage UntypedStorage": _Type("untyped"),
        "torch._utils _rebuild_tensor_v2": tensor,
        "torch._utils _rebuild_tensor_v3": tensor,
        "torch Size": lambda size: size,
        "collections OrderedDict": lambda *_: {},
        "_codecs encode": _encoded,
        **dict.fromkeys(("__builtin__ bytes", "builtins bytes"), lambda: b""),  # how empty ones are written
        "numpy ndarray": "ndarray",
        "numpy dtype": _dtype,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[f"{module} _reconstruct"] = lambda *_: Unbuilt(_array)
        names[f"{module} scalar"] = _scalar
    return types | names


def _tensor(storage: Any, kind: Any, offset: Any, size: Any, stride: Any, limit: int) -> Tensor:
    if type(storage) is not _Storage or type(kind) is not _Type or kind.name == "untyped":
        raise RefusedFileError("a tensor is made of something that is no storage")
    shape_ok = type(size) is tuple and type(stride) is tuple and len(size) == len(stride) <= _MAX_DIMENSIONS
    numbers = (offset, *size, *stride) if shape_ok else ()
    if not numbers or not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise RefusedFileError("a tensor has a shape that is none")
    values = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if values > limit or (values and (last + 1) * kind.itemsize > len(storage.record)):
        raise RefusedFileError(f"a tensor of shape {size} is larger than what is stored of it")
    flat = np.frombuffer(storage.record, kind.dtype, count=len(storage.record) // kind.itemsize)
    strides = tuple(step * kind.itemsize for step in stride)
    raw = np.lib.stride_tricks.as_strided(flat[offset if values else 0 :], size, strides, writeable=False)
    return Tensor(raw, kind.name == "bfloat16")


def _encoded(text: Any, codec: Any) -> bytes:
    """How bytes are written in pickles of protocol 2."""
    if type(text) is not str or codec not in ("latin1", "latin-1"):
        raise RefusedFileError("it has bytes in an unknown encoding")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise RefusedFileError("it has bytes that are none") from None


def _dtype(name: Any, *_: Any) -> Unbuilt:
    """A numpy type, whose byte order follows as its state."""
    if name not in _NUMPY_TYPES:
        raise ForeignObjectError("it has a numpy array of something else than numbers")

    def with_order(state: Any) -> np.dtype:
        order = state[1] if type(state) is tuple and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise RefusedFileError("it has a numpy array of an unknown byte order")
        return np.dtype(name).newbyteorder(order)

    return Unbuilt(with_order)


def _array(state: Any) -> Tensor:
    """Of the state of a numpy array: version, shape, type, whether columns come first, its bytes."""
    if type(state) is not tuple or len(state) != 5:
        raise RefusedFileError("it has a numpy array of another version")
    _, shape, dtype, columns_first, data = state
    is_shape = (
        type(shape) is tuple and len(shape) <= _MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in shape)
    )
    is_data = isinstance(dtype, np.dtype) and isinstance(data, bytes | memoryview)
    if not is_shape or not is_data or math.prod(shape) * dtype.itemsize != len(data):
        raise RefusedFileError("it has a numpy array whose shape is not that of its bytes")
    return Tensor(np.frombuffer(data, dtype).reshape(shape, order="F" if columns_first else "C"))


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes | memoryview) or len(data) != dtype.itemsize:
        raise RefusedFileError("it has a number that is none")
    return np.frombuffer(data, dtype)[0].item()
