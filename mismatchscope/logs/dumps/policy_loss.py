"""miles' dumps of its policy loss: one file a micro-batch, with the log-probs of all three policies.

They have neither tokens nor steps nor the sample's number. The response of a train dump is known in them by the
very bits of the sampler's log-probs. Where there are no train dumps they are read by themselves.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
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
from .rows import SLICED, array_of
from .steps import BATCH_VALUES, Values


def with_losses(parts: Iterable[Part], losses: Iterable[DumpFile]) -> list[Part]:
    """Parts of steps, each joined with the losses that were written after the step before it, and no later than its
    own files, or else with the run's first. What is not there, because copies have other times, is looked for among
    all of the run."""
    waiting: dict[Path, list[tuple[int, Path]]] = defaultdict(list)
    for dump in losses:
        waiting[dump.path.resolve().parent.parent].append((dump.path.stat().st_mtime_ns, dump.path))
    first = {run: min(calls)[1] for run, calls in waiting.items()}
    joined = []
    for part in parts:
        run = part.path.resolve().parent.parent
        end = max(path.stat().st_mtime_ns for path in (part.path, *part.joined))
        calls = sorted(path for time, path in waiting[run] if time <= end)
        waiting[run] = [(time, path) for time, path in waiting[run] if time > end]
        calls = calls or ([first[run]] if run in first else [])
        joined.append(replace(part, joined=(*part.joined, *calls)))
    return joined


class Losses:
    """The responses of some dumps of the loss, by what they are known by; of several epochs the first."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = frozenset(paths)
        self._samples = _indexed(tuple(sorted(self.paths, key=_call)))

    def of(self, trained: Values) -> Values:
        """What a loss saw of a row of a train dump; empty where none did."""
        signature = _signature(trained, "log_probs")
        if signature not in self._samples and self.paths:
            everywhere = next(iter(self.paths)).parent.glob("*.pt")
            return _indexed(tuple(sorted(everywhere, key=_call))).get(signature, {})
        return self._samples.get(signature, {})


@lru_cache(maxsize=2)
def _indexed(paths: tuple[Path, ...]) -> dict[bytes, Values]:
    found: dict[bytes, Values] = {}
    for path in paths:
        for sample in samples_of(path):
            found.setdefault(_signature(sample, "old_log_probs"), sample)
    return found


def _call(path: Path) -> tuple[int, str]:
    return dump_file(path).call or 0, str(path)


def parts_of_losses(losses: Iterable[DumpFile]) -> list[Part]:
    """A part a rank. Tensor-parallel ranks compute the same micro-batches; of those whose first is the same, the
    lowest is read."""
    calls: dict[tuple[Path, int], list[DumpFile]] = defaultdict(list)
    for dump in losses:
        calls[dump.path.resolve().parent, dump.rank or 0].append(dump)
    parts, seen = [], set()
    for (directory, _), files in sorted(calls.items(), key=lambda item: (str(item[0][0]), item[0][1])):
        files.sort(key=lambda dump: dump.call or 0)
        first = (directory, *(_signature(sample, "old_log_probs") for sample in samples_of(files[0].path)))
        if first not in seen:
            seen.add(first)
            parts.append(Part(files[0].path, joined=tuple(dump.path for dump in files[1:])))
    return parts


def read_losses(part: Part) -> Iterator[LogBatch]:
    """The rows of a rank, without tokens and steps."""
    rows, values, found, again = CheckedRows(), 0, 0, 0
    seen: set[bytes] = set()
    for path in (part.path, *part.joined):
        rank = dump_file(path).rank
        for sample in samples_of(path):
            signature = _signature(sample, "old_log_probs")
            if signature in seen:
                again += 1
                continue
            seen.add(signature)
            row = _row(sample)
            if isinstance(row, str):
                rows.rejected[row] += 1
                continue
            rows.add(row | {"rank": rank})
            found += 1
            values += int(sample["response_length"])
        if values > BATCH_VALUES:
            yield LogBatch(rows.batch(), part, rows.rejected)
            rows, values = CheckedRows(), 0
    remarks = [f"{found:,} responses have no train dump beside them, so neither tokens nor a step."]
    remarks += [f"{again:,} responses have been read before: a later epoch of the update."] if again else []
    yield LogBatch(rows.batch(), part, rows.rejected, tuple(remarks))


def _row(sample: Values) -> dict[str, Any] | str:
    names = ("train_log_probs", "old_log_probs", "rollout_log_probs", "local_loss_mask", "advantages")
    target, reference, behavior, mask, advantages = (array_of(sample.get(name)) for name in names)
    length = sample.get("response_length")
    if target is None or target.shape != (length,):
        return SLICED
    return {
        "behavior_logprobs": behavior,
        "reference_logprobs": reference,
        "target_logprobs": target,
        "advantages": advantages if advantages is not None and advantages.shape == (length,) else None,
        "mask": None if mask is None else mask != 0,
    }


def _signature(sample: Values, trainer: str) -> bytes:
    """What a response is known by: the bits of the sampler's log-probs, or else of the trainer's."""
    values = array_of(sample.get("rollout_log_probs"))
    values = array_of(sample.get(trainer)) if values is None else values
    bits = b"" if values is None or values.dtype.kind not in "biuf" else values.astype(np.float32).tobytes()
    return hashlib.blake2b(bits, digest_size=16).digest()


def samples_of(path: Path) -> list[Values]:
    """The responses of a micro-batch. Raises `TraceError` for a file that holds none."""
    with readable(path):
        document = read_torch_file(path)
        samples = document.get("samples") if type(document) is dict else None
        if type(samples) is not list or not all(type(sample) is dict for sample in samples):
            raise RefusedFileError("its samples are no list of dictionaries")
        return samples
