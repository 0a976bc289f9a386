"""miles' dumps of its policy loss: one file a micro-batch, with the log-probs of all three policies.

They have neither tokens nor steps nor the sample's number. A row of the rank's train dump with the very bits of the
sampler's log-probs has them; a response without such a row is read without.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..checked_rows import CheckedRows
from ..refusals import readable
from ..restricted_pickle import RefusedFileError
from ..source import LogBatch, Part
from ..torch_files import read_torch_file
from .files import DumpFile, dump_file
from .rows import SLICED, array_of, row_of
from .steps import BATCH_VALUES, Step, Values, trained_row


def parts_of_losses(dumps: Iterable[DumpFile]) -> list[Part]:
    """A part a rank: its calls, and the train dumps and rollout dumps that they are joined with.

    Tensor-parallel ranks compute the same micro-batches; of those whose first is the same, the lowest is read.
    """
    calls: dict[tuple[Path, int], list[DumpFile]] = defaultdict(list)
    others: dict[Path, list[DumpFile]] = defaultdict(list)
    for dump in dumps:
        run = dump.path.resolve().parent.parent
        if dump.kind == "loss":
            calls[run, dump.rank or 0].append(dump)
        elif not dump.is_evaluation:
            others[run].append(dump)
    parts, seen = [], set()
    for (run, rank), files in sorted(calls.items(), key=lambda item: (str(item[0][0]), item[0][1])):
        files.sort(key=lambda dump: dump.call or 0)
        first = tuple(_signature(sample) for sample in _samples(files[0].path))
        if (run, first) not in seen:
            seen.add((run, first))
            joined = [dump for dump in others[run] if dump.kind == "rollout" or dump.rank == rank]
            paths = [dump.path for dump in [*files, *sorted(joined, key=lambda dump: dump.rollout_id or 0)]]
            parts.append(Part(paths[0], joined=tuple(paths[1:])))
    return parts


def read_losses(part: Part) -> Iterator[LogBatch]:
    """The rows of a rank."""
    dumps = [dump_file(path) for path in (part.path, *part.joined)]
    known = _TrainedRows([dump for dump in dumps if dump.kind != "loss"])
    builder, remarks, values = CheckedRows(), Counter[str](), 0
    for dump in (dump for dump in dumps if dump.kind == "loss"):
        for found in _samples(dump.path):
            row = _row(found, dump.rank, known, remarks)
            if isinstance(row, str):
                builder.rejected[row] += 1
            elif row is not None:
                builder.add(row)
                values += len(row["behavior_logprobs"]) if row["behavior_logprobs"] is not None else 0
        if values > BATCH_VALUES:
            yield LogBatch(builder.batch(), part, builder.rejected)
            builder, values = CheckedRows(), 0
    said = tuple(f"{count:,} responses {what}." for what, count in remarks.items())
    yield LogBatch(builder.batch(), part, builder.rejected, said)


def _row(
    found: Values, rank: int | None, known: _TrainedRows, remarks: Counter[str]
) -> dict[str, Any] | str | None:
    names = ("train_log_probs", "old_log_probs", "rollout_log_probs", "local_loss_mask", "advantages")
    target, reference, behavior, mask, advantages = (array_of(found.get(name)) for name in names)
    length = found.get("response_length")
    if target is None or target.shape != (length,):
        return SLICED
    try:
        joined = known.find(_signature(found))
    except IndexError:
        remarks["have been read before: another epoch of the update, or another rank"] += 1
        return None
    if joined is None:
        remarks["have no row in a train dump, so neither tokens nor a step"] += 1
        row: dict[str, Any] | str = {"rank": rank}
    else:
        row = row_of(*joined, remarks)
    if isinstance(row, str):
        return row
    return row | {
        "behavior_logprobs": behavior,
        "reference_logprobs": reference,
        "target_logprobs": target,
        "advantages": advantages if advantages is not None and advantages.shape == (length,) else None,
        "mask": None if mask is None else mask != 0,
    }


class _TrainedRows:
    """Where each response of some train dumps is, by what it is known by; dumps are opened again when needed."""

    def __init__(self, dumps: list[DumpFile]) -> None:
        files: dict[int | None, list[Path]] = defaultdict(list)
        for dump in dumps:
            files[dump.rollout_id].append(dump.path)
        self._open = lru_cache(maxsize=2)(lambda rollout_id: _opened(files[rollout_id]))
        self._waiting: dict[bytes, deque[tuple[int | None, int]]] = defaultdict(deque)
        for rollout_id in files:
            for at, row in enumerate(self._open(rollout_id)[1]):
                self._waiting[_signature(row, "log_probs")].append((rollout_id, at))

    def find(self, signature: bytes) -> tuple[Values, Values, int | None] | None:
        """Sample, row and step of a response; None where there is no such. Raises `IndexError` where all that it
        could be were found before."""
        if signature not in self._waiting:
            return None
        rollout_id, at = self._waiting[signature].popleft()
        step, rows = self._open(rollout_id)
        return step.sample_of(rows[at]), rows[at], step.rollout_id


def _opened(paths: list[Path]) -> tuple[Step, list[Values]]:
    step = Step(paths)
    return step, [trained_row(*place) for places in step.places().values() for place in places]


def _signature(sample: Values, trainer: str = "old_log_probs") -> bytes:
    """What a response is known by: the bits of the sampler's log-probs, or else of the trainer's."""
    values = array_of(sample.get("rollout_log_probs"))
    values = array_of(sample.get(trainer)) if values is None else values
    bits = b"" if values is None or values.dtype.kind not in "biuf" else values.astype(np.float32).tobytes()
    return hashlib.blake2b(bits, digest_size=16).digest()


def _samples(path: Path) -> list[Values]:
    with readable(path):
        document = read_torch_file(path)
        samples = document.get("samples") if type(document) is dict else None
        if type(samples) is not list or not all(type(sample) is dict for sample in samples):
            raise RefusedFileError("its samples are no list of dictionaries")
        return samples
