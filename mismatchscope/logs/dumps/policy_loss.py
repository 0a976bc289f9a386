"""miles' dumps of its policy loss: one file a micro-batch, with the log-probs of all three policies.

They have neither tokens nor steps nor the sample's number. The response of a train dump is known in them by its
length and the very bits of its log-probs, of the sampler and of the old policy; short responses can be alike in
these, and then nothing says which is which. Where there are no train dumps they are read by themselves.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
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
from .runs import run_of
from .steps import BATCH_VALUES, Values


def with_losses(parts: Sequence[Part], losses: Iterable[DumpFile]) -> list[Part]:
    """Parts of steps, those that were trained on joined with the losses that were written after the step before and
    no later than their own files. Where times do not say it, as of a copy, a part has the run's first, and `Losses`
    looks among all."""
    waiting: dict[Path, list[DumpFile]] = defaultdict(list)
    for dump in sorted(losses, key=lambda dump: (dump.rank or 0, dump.call or 0)):
        waiting[run_of(dump.path)].append(dump)
    first = {run: calls[0].path for run, calls in waiting.items()}
    ends = {
        part: max(_time(path) for path in (part.path, *part.joined))
        for part in parts
        if dump_file(part.path).kind == "train"
    }
    for run, calls in waiting.items():
        times: dict[int | None, list[int]] = defaultdict(list)
        for dump in calls:
            times[dump.rank].append(_time(dump.path))
        of_steps = [end for part, end in ends.items() if run_of(part.path) == run]
        if any(each != sorted(each) for each in (of_steps, *times.values())):
            waiting[run] = []
    joined = []
    for part in parts:
        run = run_of(part.path)
        if part in ends and run in first:
            calls = [dump for dump in waiting[run] if _time(dump.path) <= ends[part]]
            waiting[run] = [dump for dump in waiting[run] if _time(dump.path) > ends[part]]
            paths = sorted(dump.path for dump in calls) or [first[run]]
            part = replace(part, joined=(*part.joined, *paths))
        joined.append(part)
    return joined


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


class Losses:
    """The responses of some dumps of the loss, by what they are known by."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = frozenset(paths)

    def add_to(self, rows: Sequence[Values], remarks: Counter[str]) -> list[Values]:
        """Rows of a train dump with the log-probs that the loss saw of each, of several epochs the first's."""
        if not self.paths:
            return list(rows)
        of_run = self._of_run() if len(self.paths) == 1 else None
        of_step = of_run or _indexed(self.paths)
        alike = Counter((_key(row), _bits(row, "advantages")) for row in rows)
        joined = []
        for row in rows:
            index, seen = of_step, of_step.of(row)
            if not seen:
                index = of_run = of_run or self._of_run()
                seen = index.of(row)
            has_twin = alike[_key(row), _bits(row, "advantages")] > 1
            if not seen:
                remarks["are in no dump of the loss, which alone has π_θ"] += 1
            elif len(seen) > 1 and (has_twin or len(seen) > index.epochs):
                remarks["are like others in the dumps of the loss, so that π_θ of each is not known"] += 1
            else:
                names = ("train_log_probs", "old_log_probs")
                row = {**row, **{name: seen[0][name] for name in names if name in seen[0]}}
            joined.append(row)
        return joined

    def _of_run(self) -> _Index:
        return _indexed(frozenset(next(iter(self.paths)).parent.glob("*.pt")))


class _Index:
    """Responses of the loss by their key, in the order of the calls."""

    def __init__(self, samples: Iterable[Values]) -> None:
        self._by_key: dict[bytes, list[Values]] = defaultdict(list)
        updates: dict[tuple[bytes, ...], set[bytes]] = defaultdict(set)
        self._takes_sampler = True
        """Whether the loss takes the sampler's log-probs for the old policy's."""
        for sample in samples:
            key, target, old = _key(sample), _bits(sample, "train_log_probs"), _bits(sample, "old_log_probs")
            self._by_key[key].append(sample)
            self._takes_sampler &= old == _bits(sample, "rollout_log_probs")
            # Without a forward before the update the old policy's are the update's own, others in each epoch.
            updates[key, b"" if old == target else old, _bits(sample, "advantages")].add(target)
        counts = Counter(map(len, updates.values()))
        self.epochs = min((n for n, count in counts.items() if count == max(counts.values())), default=0)
        """In how many updates a response is, as most of them say."""

    def of(self, row: Values) -> list[Values]:
        """What can be a row's, with one log-prob of π_θ each."""
        found = self._by_key.get(_key(row), [])
        old = _bits(row, "rollout_log_probs" if self._takes_sampler else "log_probs")
        found = [sample for sample in found if not old or _bits(sample, "old_log_probs") == old]
        advantages = _bits(row, "advantages")
        found = [sample for sample in found if _bits(sample, "advantages") == advantages] or found
        first: dict[bytes, Values] = {}
        for sample in found:
            first.setdefault(_bits(sample, "train_log_probs"), sample)
        return list(first.values())


@lru_cache(maxsize=2)
def _indexed(paths: frozenset[Path]) -> _Index:
    return _Index(sample for path in sorted(paths, key=_call) for sample in samples_of(path))


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
        first = (directory, *(_content(sample) for sample in samples_of(files[0].path)))
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
            content = _content(sample)
            if content in seen:
                again += 1
                continue
            seen.add(content)
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
        "mask": mask,
    }


def _key(values: Values) -> bytes:
    """What a response is known by in both dumps: its lengths, and the sampler's log-probs or else the trainer's."""
    lengths = [_either(values, name) for name in ("total_length", "response_length")]
    trainer = "log_probs" if "old_log_probs" not in values else "old_log_probs"
    return repr(lengths).encode() + (_bits(values, "rollout_log_probs") or _bits(values, trainer))


def _either(values: Values, name: str) -> Any:
    """A length under its name in a loss, or in a train dump."""
    return values.get(name, values.get(f"{name}s"))


def _content(sample: Values) -> bytes:
    """What a response is known by in dumps of the loss alone."""
    return _key(sample) + _bits(sample, "old_log_probs") + _bits(sample, "advantages")


def _bits(values: Values, name: str) -> bytes:
    """A digest of the float32 of a column; empty where there are none."""
    found = array_of(values.get(name))
    if found is None or found.dtype.kind not in "biuf":
        return b""
    return hashlib.blake2b(found.astype(np.float32).tobytes(), digest_size=16).digest()


def samples_of(path: Path) -> list[Values]:
    """The responses of a micro-batch. Raises `TraceError` for a file that holds none."""
    with readable(path):
        document = read_torch_file(path)
        samples = document.get("samples") if type(document) is dict else None
        if type(samples) is not list or not all(type(sample) is dict for sample in samples):
            raise RefusedFileError("its samples are no list of dictionaries")
        return samples
