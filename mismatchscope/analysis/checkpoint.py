"""What following a log has added up, and which files it has read: kept, so that a restart goes on from there.

The file is a line of JSON that says what it is of, and a pickle. That is loaded where nobody but the user could
have written it and its content is what the first line says, and then by an unpickler that makes nothing but our own
statistics, arrays and the standard library's containers: of the functions that a file can name none does more than
arithmetic.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any, Final

from .. import __version__
from ..durable import write_atomic
from ..input_files import open_regular
from ..ownership import why_unsafe
from .statistics import LogStatistics

_SCHEMA: Final = 1
_HEADER_BYTES: Final = 2**16

_ROOMS: Final = ("mismatchscope.analysis.", "mismatchscope.comparison.", "mismatchscope.measures.")
_RULES: Final = "mismatchscope.measures.corrections."
"""Whose functions a statistic may hold too: they take arrays and return arrays."""
_OTHERS: Final = {
    "builtins": {
        "set",
        "frozenset",
        "bytearray",
        "complex",
        "int",
        "float",
        "list",
        "dict",
        "tuple",
        "str",
        "bool",
    },
    "collections": {"Counter", "defaultdict", "deque", "OrderedDict"},
    "pathlib": {"PosixPath", "PurePosixPath"},
    "numpy": {"ndarray", "dtype"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
}


@dataclass(frozen=True)
class FileProgress:
    """How far a file was read, in bytes, and what it was then."""

    read: int
    modified_ns: int
    before: bytes
    """A digest of the last bytes that were read: other ones there say that the file was written anew."""


@dataclass
class Progress:
    """All that following needs to go on."""

    statistics: LogStatistics
    files: dict[str, FileProgress] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    """Of every file that was read: what tells its responses from those of the others."""
    remarks: list[str] = field(default_factory=list)


class UnusableCheckpointError(ValueError):
    """A checkpoint that is not gone on from; the text is a clause that says why."""


def save(path: Path, progress: Progress, of: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all. `of` says what it is of; only the same goes on from it."""
    payload = pickle.dumps(progress, protocol=5)
    header = {"schema_version": _SCHEMA, "version": __version__, "of": of, "sha256": _digest(payload)}
    write_atomic(path, json.dumps(header).encode() + b"\n" + payload)


def load(path: Path, of: dict[str, Any]) -> Progress:
    """The progress in a checkpoint. Raises `UnusableCheckpointError`, and `OSError` where it cannot be read."""
    reason = why_unsafe(path)
    if reason is not None:
        raise UnusableCheckpointError(reason)
    with open_regular(path) as file:
        line = file.readline(_HEADER_BYTES)
        payload = file.read()
    try:
        header = json.loads(line)
        expected = {"schema_version": _SCHEMA, "version": __version__, "of": of}
        if {key: header[key] for key in expected} != json.loads(json.dumps(expected)):
            raise UnusableCheckpointError("it is of another log, of other settings or of another version")
        if header["sha256"] != _digest(payload):
            raise UnusableCheckpointError("it is damaged")
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UnusableCheckpointError):
            raise
        raise UnusableCheckpointError("it is no checkpoint") from None
    return _unpickled(payload)


def _unpickled(payload: bytes) -> Progress:
    try:
        value = _Unpickler(io.BytesIO(payload)).load()
    except Exception as error:  # pickle raises almost anything on what it does not know
        raise UnusableCheckpointError(f"it cannot be read ({type(error).__name__})") from None
    if not isinstance(value, Progress):
        raise UnusableCheckpointError("it holds something else")
    return value


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _OTHERS.get(module, ()):
            return getattr(importlib.import_module(module), name)
        if module.startswith(_ROOMS):
            found = getattr(importlib.import_module(module), name, None)
            is_rule = isinstance(found, FunctionType) and module.startswith(_RULES)
            if (isinstance(found, type) or is_rule) and found.__module__ == module:
                return found
        if (module, name) == ("builtins", "getattr"):
            return _method_of
        raise pickle.UnpicklingError(f"{module}.{name} is nothing that a checkpoint holds")


def _method_of(owner: Any, name: str) -> Any:
    """A method of one of our statistics, which is how pickle writes a method that another object holds."""
    if not type(owner).__module__.startswith(_ROOMS) or name.startswith("__"):
        raise pickle.UnpicklingError("an attribute of what is not ours")
    return getattr(owner, name)


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
