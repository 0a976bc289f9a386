"""The dumps of one rollout, which slime and miles train on as one step: joined, and each sample read once.

A row of the trainer's dump has its sample's place in the rollout's dump (`rollout_position`), or else its number
(`sample_index`, there `index`). Several samples have one number where one rollout was cut into several; then their
tokens tell them apart. Ranks of tensor parallelism, and earlier versions' pipeline stages, dump the same rows each.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..checked_rows import CheckedRows
from ..refusals import readable
from ..restricted_pickle import ForeignObjectError, RefusedFileError
from ..row_types import no_rows
from ..source import LogBatch, Part
from ..torch_files import Tensor, read_torch_file
from .rows import array_of, group_of, row_of, tokens_of

BATCH_VALUES = 2**20
"""Tokens after which rows are handed on."""

Values = Mapping[str, Any]
Merged = tuple[Values, str | None]
"""One row of those that ranks have of a sample; or why there is none."""
Merge = Callable[[Sequence[Sequence[Values]], Sequence[Values], "Counter[str]"], list[Merged]]
"""Makes these of the rows of all samples and of the rollout's own samples, and counts what is odd."""


class Step:
    """The dumps of one rollout: its samples, and the rows of the trainer's ranks."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.rollout_id: int | None = None
        self.samples: list[Values] = []
        self.ranks: list[Values] = []
        self.remarks: list[str] = []
        for path in paths:
            with readable(path):
                try:
                    self._add(read_torch_file(path))
                except ForeignObjectError as error:
                    if not self.ranks:
                        raise
                    self.remarks.append(f"A rollout's dump is left out: {error}. The trainer's dump of it is read.")
        self._taken: set[int] = set()
        self._tokens_left = sum(path.stat().st_size for path in paths)

    def _add(self, document: Any) -> None:
        if type(document) is not dict:
            raise RefusedFileError("it holds no dictionary")
        rollout_id = document.get("rollout_id")
        self.rollout_id = rollout_id if type(rollout_id) is int else self.rollout_id
        columns, samples = document.get("rollout_data"), document.get("samples")
        if type(columns) is dict:
            context = {name: document.get(name) for name in ("rank", "cp_rank", "cp_size", "qkv_format")}
            known = {name: value for name, value in context.items() if type(value) in (int, str)}
            self.ranks.append(columns | {"context": known})
        elif type(samples) is list and all(type(sample) is dict for sample in samples):
            if "format_version" in document:
                self.ranks.append({"rows": samples, "raw_reward": document.get("raw_reward")})
            else:
                self.samples = samples
        else:
            raise RefusedFileError("its samples are no list of dictionaries")

    def trained(self) -> list[list[Values]]:
        """Of each sample the rows that the trainer's ranks have of it."""
        replicas: dict[bytes, list[list[Values]]] = defaultdict(list)
        for columns in self.ranks:
            rows: list[Values] = [_trained_row(columns, at) for at in range(_length(columns))]
            replicas[self._content(rows) if len(self.ranks) > 1 else b""].append(rows)
        return [list(of_sample) for ranks in replicas.values() for of_sample in zip(*ranks, strict=True)]

    def sample_of(self, trained: Values) -> Values:
        """The rollout's sample that a row of the trainer was made of; empty where there is none. Of those that are
        alike each is returned once."""
        number, place = number_of(trained), trained.get("rollout_position")
        if type(place) is int and 0 <= place < len(self.samples) and number_of(self.samples[place]) == number:
            found = [self.samples[place]]
        elif number is not None and len(self._by_number[number]) == 1:
            found = self._by_number[number]
        else:
            alike = self._by_response.get(self._response(trained), [])
            found = [sample for sample in alike if number in (None, number_of(sample))]
            found.sort(key=lambda sample: (id(sample) in self._taken, not _same_mu(sample, trained)))
            found = found or ([] if number is None else self._by_number[number])
        self._taken.update(id(sample) for sample in found[:1])
        return found[0] if found else {}

    @property
    def untrained(self) -> int:
        """How many samples no row of the trainer was made of."""
        return sum(id(sample) not in self._taken for sample in self.samples)

    @cached_property
    def _by_number(self) -> dict[Any, list[Values]]:
        found = defaultdict(list)
        for sample in self.samples:
            found[number_of(sample)].append(sample)
        return found

    @cached_property
    def _by_response(self) -> dict[bytes, list[Values]]:
        found = defaultdict(list)
        for sample in self.samples:
            found[self._response(sample)].append(sample)
        return found

    def _content(self, rows: Iterable[Values]) -> bytes:
        """What tells a rank's rows from those of a rank that has others."""
        places = [(number_of(row), row.get("rollout_position")) for row in rows]
        return repr(places).encode() + b"".join(map(self._response, rows))

    def _response(self, sample: Values) -> bytes:
        """What tells a response from others: its length and all tokens."""
        tokens, length = tokens_of({}, sample)
        known = np.empty(0) if tokens is None or tokens.dtype.kind not in "iu" else tokens
        self.count(known.size)
        return hashlib.blake2b(b"%d " % length + known.astype(np.int64).tobytes(), digest_size=16).digest()

    def count(self, tokens: int) -> None:
        """Raise `RefusedFileError` for more tokens than the files have bytes: some list is there many times."""
        self._tokens_left -= tokens
        if self._tokens_left < 0:
            raise RefusedFileError("its responses have more tokens than it has bytes")


def number_of(sample: Values) -> int | str | None:
    """The number of a sample, or its name, under either dump's key; None where it has none."""
    number = sample.get("sample_index", sample.get("index"))
    return number if type(number) in (int, str) else None


def _same_mu(sample: Values, trained: Values) -> bool:
    ours, theirs = (array_of(values.get("rollout_log_probs")) for values in (sample, trained))
    are_numbers = all(array is not None and array.dtype.kind in "biuf" for array in (ours, theirs))
    return are_numbers and np.array_equal(np.asarray(ours, np.float32), np.asarray(theirs, np.float32))


def _length(columns: Values) -> int:
    rows = columns.get("rows", columns.get("response_lengths"))
    return len(rows) if isinstance(rows, list | Tensor) else 0


def _trained_row(columns: Values, at: int) -> dict[str, Any]:
    """One sample of a trainer's dump, under the names of its format 2, where a dump has rows; earlier it had
    columns, of which some are as long as the whole rollout."""
    reward = columns.get("raw_reward")
    if "rows" in columns:
        row = dict(columns["rows"][at])
    else:
        count = _length(columns)
        row = {
            name: _item(values, at)
            for name, values in columns.items()
            if isinstance(values, list | Tensor) and len(values) == count and name != "raw_reward"
        }
        row["sample_index"], row["rollout_position"] = row.get("sample_indices"), row.get("partition")
        row |= columns["context"]
    place = row.get("rollout_position")
    if row.get("local_raw_reward") is None and type(place) is int and isinstance(reward, list | Tensor):
        row["local_raw_reward"] = _item(reward, place) if 0 <= place < len(reward) else None
    return row


def _item(values: Any, at: int) -> Any:
    if isinstance(values, Tensor):
        return (
            values.raw[at].item()
            if values.raw.ndim == 1 and not values.is_bfloat16
            else Tensor(values.raw[at], values.is_bfloat16)
        )
    return values[at]


def read_step(part: Part, merged: Merge) -> Iterator[LogBatch]:
    """The rows of a step; none of a rollout whose part is empty."""
    if part.stop == 0:
        yield LogBatch(
            no_rows(), part, remarks=("Rollouts without a dump of what was trained on them are left out.",)
        )
        return
    step = Step((part.path, *part.joined))
    builder, remarks, values = CheckedRows(), Counter[str](), 0
    for row in _rows(step, merged, remarks):
        if isinstance(row, str):
            builder.rejected[row] += 1
            continue
        builder.add(row)
        tokens = sum(len(row[name]) for name in ("token_ids", "prompt_token_ids") if row[name] is not None)
        step.count(tokens)
        values += tokens + _size(row["experts"]) // 4
        if values > BATCH_VALUES:
            yield LogBatch(builder.batch(), part, builder.rejected)
            builder, values = CheckedRows(), 0
    said = (*step.remarks, *(f"{count:,} responses {what}." for what, count in remarks.items()))
    yield LogBatch(builder.batch(), part, builder.rejected, said)


def _size(values: np.ndarray | None) -> int:
    return 0 if values is None else values.size


def _rows(step: Step, merged: Merge, remarks: Counter[str]) -> Iterator[dict[str, Any] | str]:
    """Rows, or why one is none. What one prompt was sampled for has one label, that of the first of its rows: of a
    conversation each turn may be a sample, with all before it as its prompt."""
    trained = step.trained() if step.ranks else [[{}] for _ in step.samples]
    samples = [step.sample_of(rows[0]) for rows in trained] if step.ranks else step.samples
    numbers = Counter(number_of(rows[0] or sample) for rows, sample in zip(trained, samples, strict=True))
    are_numbered = all(type(number) is int and count == 1 for number, count in numbers.items())
    if shared := sum(count for number, count in numbers.items() if count > 1 and number is not None):
        remarks["share the number of another one of their rollout, and are numbered by their place in it"] += shared
    labels: dict[tuple[str, int], int] = {}
    whole_rows = merged(trained, samples, remarks) if step.ranks else [({}, None) for _ in samples]
    for place, ((whole, why), sample) in enumerate(zip(whole_rows, samples, strict=True)):
        row = why or row_of(sample, whole, step.rollout_id, remarks)
        if not isinstance(row, str):
            label = row["prompt"]
            if label is not None and (group := group_of(sample, whole)) is not None:
                row["prompt"] = labels.setdefault(group, label)
            row["sequence_id"] = row["sequence_id"] if are_numbered else place
        yield row
    if step.ranks and step.untrained:
        remarks["are in the rollout's dump alone: nothing was trained on them"] += step.untrained
