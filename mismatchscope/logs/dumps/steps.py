"""The dumps of one rollout, which slime and miles train on as one step: joined, and each sample read once.

The trainer's dump has its samples by `sample_index`, which is the rollout dump's `index`, and by their place in it
(`rollout_position`, `partition`). Ranks of tensor parallelism, and earlier versions' pipeline stages, dump the same
samples each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checked_rows import CheckedRows
from ..refusals import readable
from ..restricted_pickle import RefusedFileError
from ..source import LogBatch, Part
from ..torch_files import Tensor, read_torch_file
from .files import DumpFile
from .rows import row_of

BATCH_VALUES = 2**20
"""Tokens after which rows are handed on."""

Values = Mapping[str, Any]
Places = list[tuple[Values, int]]
"""Where a sample is: columns of a rank, and its place in them."""


def parts_by_step(dumps: Iterable[DumpFile]) -> list[Part]:
    """A part a rollout: the trainer's files first. Rollouts for evaluation are nobody's training data."""
    steps: dict[tuple[int, Path | None], list[DumpFile]] = defaultdict(list)
    listed = [dump for dump in dumps if not dump.is_evaluation and dump.kind != "loss"]
    rollouts = Counter(dump.rollout_id for dump in listed if dump.kind == "rollout")
    several_runs = any(count > 1 for count in rollouts.values())
    for dump in listed:
        run = dump.path.resolve().parent.parent if several_runs else None
        steps[-1 if dump.rollout_id is None else dump.rollout_id, run].append(dump)
    parts = []
    for key in sorted(steps, key=lambda key: (key[0], str(key[1]))):
        of_step = sorted(steps[key], key=lambda dump: (dump.kind != "train", dump.rank or 0, str(dump.path)))
        paths = [dump.path for dump in of_step]
        parts.append(Part(paths[0], joined=tuple(paths[1:])))
    return parts


class Step:
    """The dumps of one rollout: its samples, and the rows of the trainer's ranks."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.rollout_id: int | None = None
        self.samples: list[Values] = []
        self.ranks: list[Values] = []
        for path in paths:
            with readable(path):
                self._add(read_torch_file(path))
        self._by_index = {index: sample for sample in self.samples if (index := sample.get("index")) is not None}

    def _add(self, document: Any) -> None:
        if type(document) is not dict:
            raise RefusedFileError("it holds no dictionary")
        rollout_id = document.get("rollout_id")
        self.rollout_id = rollout_id if type(rollout_id) is int else self.rollout_id
        columns, samples = document.get("rollout_data"), document.get("samples")
        if type(columns) is dict:
            context = {name: document.get(name) for name in ("rank", "cp_rank", "cp_size", "qkv_format")}
            self.ranks.append(columns | {"context": context})
        elif type(samples) is list and all(type(sample) is dict for sample in samples):
            if "format_version" in document:
                self.ranks.append({"rows": samples, "raw_reward": document.get("raw_reward")})
            else:
                self.samples = samples
        else:
            raise RefusedFileError("its samples are no list of dictionaries")

    def sample_of(self, trained: Values) -> Values:
        """The rollout's sample that a row of the trainer was made of; empty where there is none."""
        index, place = trained.get("sample_index"), trained.get("rollout_position")
        if index is not None:
            return self._by_index.get(index, {})
        found = self.samples[place] if type(place) is int and 0 <= place < len(self.samples) else {}
        return found if found.get("index") is None else {}

    def places(self) -> dict[Any, Places]:
        """The trainer's rows of each sample, by its index, or its place in the rollout where it has none."""
        found: dict[Any, Places] = defaultdict(list)
        for number, columns in enumerate(self.ranks):
            for at in range(_length(columns)):
                row = trained_row(columns, at)
                index, place = row.get("sample_index"), row.get("rollout_position")
                key = ("index", index) if index is not None else ("place", place)
                found[key if key[1] is not None else (number, at)].append((columns, at))
        return found


def _length(columns: Values) -> int:
    rows = columns.get("rows", columns.get("response_lengths"))
    return len(rows) if isinstance(rows, list | Tensor) else 0


def trained_row(columns: Values, at: int) -> dict[str, Any]:
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
        row["rank"] = columns["context"]["rank"]
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


def read_step(part: Part, merged: Callable[[Step, Places], tuple[Values, str | None]]) -> Iterator[LogBatch]:
    """The rows of a step. `merged` makes one row of what the ranks have of a sample, or says why it cannot.

    Raises `RefusedFileError` for more tokens than the files have bytes: some list is there many times.
    """
    paths = (part.path, *part.joined)
    step, left = Step(paths), sum(path.stat().st_size for path in paths)
    builder, remarks, values = CheckedRows(), Counter[str](), 0
    for row in _rows(step, merged, remarks):
        if isinstance(row, str):
            builder.rejected[row] += 1
            continue
        builder.add(row)
        tokens = sum(len(row[name]) for name in ("token_ids", "prompt_token_ids") if row[name] is not None)
        values, left = values + tokens + _size(row["experts"]) // 4, left - tokens
        if left < 0:
            raise RefusedFileError("its responses have more tokens than it has bytes")
        if values > BATCH_VALUES:
            yield LogBatch(builder.batch(), part, builder.rejected)
            builder, values = CheckedRows(), 0
    said = tuple(f"{count:,} responses {what}." for what, count in remarks.items())
    yield LogBatch(builder.batch(), part, builder.rejected, said)


def _size(values: np.ndarray | None) -> int:
    return 0 if values is None else values.size


def _rows(
    step: Step, merged: Callable[[Step, Places], tuple[Values, str | None]], remarks: Counter[str]
) -> Iterator[dict[str, Any] | str]:
    used: set[int] = set()
    for of_sample in step.places().values():
        trained, why = merged(step, of_sample)
        sample = step.sample_of(trained)
        used.add(id(sample))
        yield why or row_of(sample, trained, step.rollout_id, remarks)
    if not step.ranks:
        for sample in step.samples:
            yield row_of(sample, {}, step.rollout_id, remarks)
    elif alone := sum(id(sample) not in used for sample in step.samples):
        remarks["are in the rollout's dump alone: nothing was trained on them"] += alone
