"""The responses of a log, as the policy that sampled had them, and their scores by a checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...collection.collector import Events
from ...collection.single_trace import ScoreSettings, score_trace
from ...comparison.context import Context
from ...comparison.pair import Pair, measure_pair
from ...errors import ConfigError, EmptyComparisonError
from ...traces.reader import Trace
from ...traces.schema import TraceCounts
from ...traces.store import is_complete, write_records

if TYPE_CHECKING:
    from ...records import SequenceRecord


@dataclass(frozen=True, eq=False)
class LogCase:
    """The policy that sampled, as a log has it, and what it is scored with.

    `affected` are the ids of the sequences that the fault is about. `model` is the checkpoint that they should be
    of, `checkpoints` are those that they may be of instead, by what each is called, `engine` is the SPEC that
    scores.
    """

    sampled: Trace
    affected: Set[int]
    model: str
    checkpoints: Mapping[str, str]
    engine: str
    directory: Path
    on_event: Events
    adapter: str | None = None
    confidence: float = 0.95
    deadline: float = float("inf")
    """A time of `time.monotonic`, after which no scoring begins."""


def parts_of(case: LogCase) -> tuple[Trace, Trace | None]:
    """The affected responses, and the others where there are some, as traces of their own. Raises `ConfigError` for
    a log without prompts, `EmptyComparisonError` where no response is affected."""

    def chosen(affected: bool) -> Iterator[SequenceRecord]:
        for record in case.sampled.records():
            if not len(record.prompt_token_ids):
                raise ConfigError(
                    "The log has no prompt token ids, without which its responses cannot be scored again.",
                    hint="log prompt_token_ids, or use mismatchscope.Recorder",
                )
            if (record.sequence_id in case.affected) == affected:
                yield record

    affected, others = (
        _written(case, name, chosen(which)) for name, which in (("affected", True), ("others", False))
    )
    if affected is None:
        raise EmptyComparisonError("No response of the log is one that the diagnosis is about.")
    return affected, others


def _written(case: LogCase, name: str, records: Iterator[SequenceRecord]) -> Trace | None:
    """These responses as a trace of their own; None where there are none."""
    first = next(records, None)
    if first is None:
        return None
    path = case.directory / name
    if not is_complete(path):
        manifest = case.sampled.manifest.model_copy(
            update={"complete": False, "files": {}, "counts": TraceCounts()}
        )
        write_records(path, manifest, itertools.chain([first], records))
    return Trace.open(path)


def pair_of(case: LogCase, sampled: Trace, model: str, name: str) -> Pair:
    """The policy that sampled, as logged, and a checkpoint, which scores what was not scored yet. Raises what
    `score_trace` does."""
    settings = ScoreSettings(case.engine, model, adapter=case.adapter)
    path = case.directory / f"{sampled.path.name}-{name}"
    score_trace(sampled.path, path, settings, on_event=case.on_event)
    scored = Trace.open(path)
    return measure_pair(sampled, scored, Context.of(sampled, scored, None, confidence=case.confidence))
