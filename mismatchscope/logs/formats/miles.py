"""miles' dumps, written with --dump-details: rollout and train dumps, `policy_loss_debug` with all three policies,
and the Parquet files of its dashboard, which hold the sampler's side alone.

Sources: `miles/backends/training_utils/debug_dump.py` and `cp_utils.py`, `miles/utils/train_dump_utils.py`,
`miles/ray/rollout/debug_data.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...parquet_files import check_expansion, open_parquet
from ..checked_rows import CheckedRows
from ..dumps.context_parallel import reassembled
from ..dumps.files import dump_file, dump_file_or_none, holds, is_run_of_miles, unfinished
from ..dumps.policy_loss import Losses, parts_of_losses, read_losses, with_losses
from ..dumps.rows import SLICED, array_of, row_of
from ..dumps.runs import finished_parts, parts_by_step
from ..dumps.steps import Merged, Values, read_step
from ..refusals import readable
from ..source import ColumnOrigin, LogBatch, LogFormat, Part

_PARQUET = b"PAR1"
_COLUMNS = ("sample_index", "response_length", "total_length", "tokens", "loss_mask", "rollout_log_probs")
_SLICED_FIELDS = ("log_probs", "rollout_log_probs", "advantages", "entropy")
_BATCH_ROWS = 64


def recognises(path: Path, head: bytes) -> bool:
    """Whether a file is a dump that only miles writes, or lies in a run that has one."""
    if head.startswith(_PARQUET):
        return tuple(open_parquet(path).schema_arrow.names) == _COLUMNS
    dump = dump_file_or_none(path, head)
    return dump is not None and (dump.is_of_miles or is_run_of_miles(path.resolve().parent.parent))


def parts_of_files(files: list[Path]) -> list[Part]:
    """A part a rollout, with the losses that its update dumped; a part a rank where there are losses alone. The
    dashboard's files repeat the rollouts, and are read where there is nothing else."""
    dumps = []
    for path in files:
        if path.suffix != ".parquet":
            with readable(path):
                dumps.append(dump_file(path))
    losses = [dump for dump in dumps if dump.kind == "loss"]
    if losses and not any(dump.kind == "train" for dump in dumps):
        return parts_of_losses(losses)
    if dumps:
        return with_losses(parts_by_step(dumps), losses)
    return [Part(path) for path in files if not path.name.startswith("rollout_eval")]


def parts_of(path: Path) -> list[Part]:
    """The same of a file alone."""
    return parts_of_files([path])


def read(part: Part) -> Iterator[LogBatch]:
    """The rows of a rollout, of a rank's losses or of a file of the dashboard."""
    if part.path.suffix == ".parquet":
        yield from _read_dashboard(part)
    elif dump_file(part.path).kind == "loss":
        yield from read_losses(part)
    else:
        yield from _read_rollout(part)


def _read_rollout(part: Part) -> Iterator[LogBatch]:
    losses = Losses([path for path in part.joined if dump_file(path).kind == "loss"])
    dumps = tuple(path for path in part.joined if path not in losses.paths)

    def merged(
        trained: Sequence[Sequence[Values]], samples: Sequence[Values], remarks: Counter[str]
    ) -> list[Merged]:
        found = [_merged(rows, sample) for rows, sample in zip(trained, samples, strict=True)]
        whole = iter(losses.add_to([row for row, why in found if why is None], remarks))
        return [(row if why else next(whole), why) for row, why in found]

    for batch in read_step(replace(part, joined=dumps), merged):
        yield replace(batch, part=part)


def _merged(rows: Sequence[Values], sample: Values) -> Merged:
    """What the ranks have of a sample, as one row; or that the slices of it have no order that can be shown."""
    first = next((row for row in rows if row.get("log_probs") is not None), rows[0])
    size = first.get("cp_size")
    if type(size) is not int or size == 1:
        return first, None
    whole = dict(first)
    total, response = first.get("total_lengths"), first.get("response_lengths")
    padded = first.get("max_seq_lens") if first.get("qkv_format") == "bshd" else None
    if type(total) is not int or type(response) is not int or not 0 <= response < total:
        return first, SLICED
    for name in _SLICED_FIELDS:
        held: dict[Any, np.ndarray] = {}
        for row in rows:
            if (values := array_of(row.get(name))) is not None:
                held.setdefault(row.get("cp_rank"), values)
        if held:
            whole[name] = reassembled(held, size, total, response, padded)
    # The recorded ranks say in which order the slices go; the rollout's dump has the same values whole.
    expected = array_of(sample.get("rollout_log_probs"))
    found = whole.get("rollout_log_probs")
    if expected is None or found is None or whole.get("log_probs") is None:
        return first, SLICED
    is_shown = np.array_equal(found.astype(np.float32), expected.astype(np.float32))
    return (whole, None) if is_shown else (first, SLICED)


def _read_dashboard(part: Part) -> Iterator[LogBatch]:
    file = open_parquet(part.path)
    check_expansion(part.path, file, _COLUMNS)
    found = re.search(r"(\d+)$", part.path.stem)
    remarks: Counter[str] = Counter()
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(_COLUMNS)):
        builder = CheckedRows()
        for sample in batch.to_pylist():
            row = row_of(sample | {"index": sample["sample_index"]}, {}, int(found[1]) if found else None, remarks)
            if isinstance(row, str):
                builder.rejected[row] += 1
            else:
                builder.add(row)
        yield LogBatch(builder.batch(), part, builder.rejected)


FORMAT = LogFormat(
    name="miles",
    looks_for="policy_loss_debug/*.pt, train_data/ID_RANK.pt and rollout_data/ID.pt, which --dump-details writes",
    recognises=recognises,
    parts=parts_of,
    parts_of_files=parts_of_files,
    read=read,
    holds=holds,
    finished_parts=finished_parts,
    unfinished=unfinished,
    columns=(
        ColumnOrigin(
            "behavior_logprobs", "rollout_log_probs", "behavior", remark="0.0 where a token is not trained"
        ),
        ColumnOrigin(
            "reference_logprobs",
            "old_log_probs, log_probs",
            "reference",
            settled=False,
            remark="the sampler's own with --use-rollout-logprobs, the update's forward (π_θ) with "
            "--skip-actor-forward-only; the metrics of miles make 0 of NaN, its dumped log-probs stay as they were",
        ),
        ColumnOrigin("target_logprobs", "train_log_probs", "target", remark="in policy_loss_debug alone"),
    ),
    selects="loss_masks is 0 for responses that a filter removed (remove_sample)",
)
