"""The .pt files that slime and miles write, told apart by the keys in their pickles, without reading them whole.

miles began as a copy of slime, and most of its files are slime's: rollout dumps (what the sampler returned), train
dumps (what the trainer made of it, of one rank or of all), and those of miles' policy loss.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal

from ..restricted_pickle import RefusedFileError
from ..torch_files import MAGIC, is_complete, pickle_edges

_SHOWN = 4  # rollouts of a run, of which some may be cut off
_INT_BYTES = {0x4B: 1, 0x4D: 2, 0x4A: 4}


@dataclass(frozen=True)
class DumpFile:
    """A dump: which it is, of which rollout (a step) and rank, or of all ranks, and whether it has what only miles
    writes."""

    path: Path
    kind: Literal["rollout", "train", "loss"]
    rollout_id: int | None
    rank: int | None
    call: int | None
    has_all_ranks: bool
    is_of_miles: bool

    @property
    def is_evaluation(self) -> bool:
        """A rollout that nothing is trained on."""
        return self.path.name.startswith("eval_")


def dump_file(path: Path) -> DumpFile:
    """Which dump a file is. Raises `RefusedFileError` where it is none."""
    status = path.stat()
    return _dump_file(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2**14)
def _dump_file(path: Path, size: int, modified_ns: int) -> DumpFile:
    """The same; a file that changes is another one."""
    edges = pickle_edges(path)
    if edges is None:
        raise RefusedFileError("it is no file of torch.save, or the end of it is missing")
    at = {name: edges.find(_key(name)) for name in _KEYS}
    has = {name for name, place in at.items() if place >= 0}
    if {"train_log_probs", "old_log_probs"} <= has:
        kind: Literal["rollout", "train", "loss"] = "loss"
    elif has & {"rollout_data", "format_version"}:
        kind = "train"
    elif {"rollout_id", "samples"} <= has:
        kind = "rollout"
    else:
        raise RefusedFileError("it has neither the samples of a rollout nor what a trainer made of them")
    only_miles = kind == "loss" or "qkv_format" in has
    only_miles |= kind == "rollout" and 0 <= at["metadata"] < at["samples"]
    return DumpFile(
        path,
        kind,
        rollout_id=_int_of(edges, "rollout_id"),
        rank=_int_of(edges, "rank"),
        call=_int_of(edges, "call"),
        has_all_ranks="format_version" in has,
        is_of_miles=only_miles,
    )


def dump_file_or_none(path: Path, head: bytes) -> DumpFile | None:
    """The same where a file may be anything, whose first bytes are `head`."""
    try:
        return dump_file(path) if head.startswith(MAGIC) else None
    except RefusedFileError:
        return None


def is_run_of_miles(directory: Path) -> bool:
    """Whether the directory that holds a run's dumps has any that only miles writes.

    The train dumps of its first versions are slime's to the letter.
    """
    if (directory / "policy_loss_debug").is_dir() or (directory / "dashboard_columns").is_dir():
        return True
    try:
        with os.scandir(directory / "rollout_data") as entries:
            dumps = (Path(entry.path) for entry in entries if entry.name.endswith(".pt"))
            rollouts = list(islice(dumps, _SHOWN))
    except OSError:
        return False
    return any(dump.is_of_miles for path in rollouts if (dump := dump_file_or_none(path, MAGIC)) is not None)


def is_cut_off(path: Path, head: bytes) -> bool:
    """Whether a file begins as a dump and lacks the end, where its keys are."""
    return path.suffix == ".pt" and head.startswith(MAGIC) and not is_complete(path)


def holds(path: Path) -> str | None:
    """Which piece of a run a dump is; None for those that no step is made of alone."""
    dump = dump_file_or_none(path, MAGIC)
    if dump is None or dump.kind == "loss" or dump.is_evaluation or dump.rollout_id is None:
        return None
    if dump.kind == "rollout":
        return f"Rollout {dump.rollout_id}"
    by = "" if dump.has_all_ranks or dump.rank is None else f" by rank {dump.rank}"
    return f"What was trained on rollout {dump.rollout_id}{by}"


def unfinished(path: Path) -> str | None:
    """Why a dump is still being written: the end of an archive comes last."""
    is_dump = path.suffix == ".pt"
    return f"the end of {path.name} is not there yet" if is_dump and not is_complete(path) else None


_KEYS = (
    *("rollout_id", "rollout_data", "format_version", "samples", "metadata", "qkv_format"),
    *("train_log_probs", "old_log_probs"),
)


def _key(name: str) -> bytes:
    """How a text begins in a pickle of protocol 2, which torch.save writes."""
    return b"X" + len(name).to_bytes(4, "little") + name.encode()


def _int_of(edges: bytes, name: str) -> int | None:
    """The integer that follows a key, and the memo of that key."""
    found = re.search(re.escape(_key(name)) + rb"(?:q.|r....)([KMJ])", edges, re.DOTALL)
    if found is None:
        return None
    size = _INT_BYTES[found[1][0]]
    return int.from_bytes(edges[found.end() : found.end() + size], "little", signed=size == 4)
