"""slime's dumps: `rollout_data/ID.pt` and `train_data/ID.pt`, written with --dump-details or --save-debug-*-data.

Sources: `slime/observability/train_data_utils.py` and `rollout_data_utils.py`, `slime/utils/types.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..dumps.files import dump_file, dump_file_or_none, holds, is_cut_off, unfinished
from ..dumps.runs import finished_parts, parts_by_step
from ..dumps.steps import Merged, Values, read_step
from ..refusals import readable
from ..source import ColumnOrigin, LogBatch, LogFormat, Part


def recognises(path: Path, head: bytes) -> bool:
    """Whether a file is a dump that has nothing which only miles writes, or the beginning of one."""
    dump = dump_file_or_none(path, head)
    return is_cut_off(path, head) if dump is None else not dump.is_of_miles


def parts_of_files(files: list[Path]) -> list[Part]:
    """A part a rollout."""
    dumps = []
    for path in files:
        with readable(path):
            dumps.append(dump_file(path))
    return parts_by_step(dumps)


def parts_of(path: Path) -> list[Part]:
    """The same of a file alone."""
    return parts_of_files([path])


def read(part: Part) -> Iterator[LogBatch]:
    """The rows of a rollout."""
    yield from read_step(part, _merged)


def _merged(trained: Sequence[Sequence[Values]], samples: Sequence[Values], remarks: Counter[str]) -> list[Merged]:
    """The rows of the first rank that has the trainer's log-probs: those of other pipeline stages lack them."""
    return [(next((row for row in rows if row.get("log_probs") is not None), rows[0]), None) for rows in trained]


FORMAT = LogFormat(
    name="slime",
    looks_for="rollout_data/ID.pt and train_data/ID.pt, which --dump-details writes",
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
            "log_probs",
            "reference",
            settled=False,
            remark="the update's own forward (π_θ) where one step of the optimizer takes the whole rollout",
        ),
    ),
    selects="loss_masks is 0 for responses that a filter removed (remove_sample)",
)
