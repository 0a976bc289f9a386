"""The tokens of a log scored again: with the checkpoint that the run has now, and with those that it may have had.

A log alone cannot be run again, and its engines are gone; what is left to try is which weights its rows were drawn
from. Rows that the fault is not about are the floor: what the present checkpoint is away from them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...collection.collector import Events
from ...collection.single_trace import ScoreSettings, score_trace
from ...comparison.context import Context
from ...comparison.pair import measure_pair
from ...errors import ConfigError, EmptyComparisonError
from ...reports.confirmation_fields import Confirmation, ExperimentStep, Proof
from ...reports.text import count, estimate
from ...traces.reader import Trace
from ...traces.schema import TraceCounts
from ...traces.store import is_complete, write_records
from .case import NO_TIME

if TYPE_CHECKING:
    from ...measures.results import Interval
    from ...records import SequenceRecord

_TIMES_FLOOR = 2.0
_SHARE_LEFT = 0.1
"""A checkpoint closes the gap where what is left is surely below this share of it or this multiple of the floor."""


@dataclass(frozen=True, eq=False)
class LogCase:
    """The policy that sampled, as a log has it, and what it is scored with.

    `affected` are the ids of the sequences that the fault is about. `model` is the checkpoint that they should be
    of, `candidates` are those that they may be of instead, by what each is called, `engine` is the SPEC that
    scores.
    """

    sampled: Trace
    affected: Set[int]
    model: str
    candidates: Mapping[str, str]
    engine: str
    directory: Path
    on_event: Events
    adapter: str | None = None
    confidence: float = 0.95
    deadline: float = float("inf")
    """A time of `time.monotonic`, after which no scoring begins."""


def confirm_log(case: LogCase, suspected: Sequence[str]) -> Confirmation:
    """Whether another checkpoint than the present one is what the affected responses were drawn from.

    `suspected` are causes that another checkpoint would show, likeliest first. Raises `ConfigError` for a log
    without prompts, `EmptyComparisonError` where no response is affected, and what `score_trace` does.
    """
    affected, others = _parts(case)
    before = _gap(case, affected, case.model, "model")
    floor = None if others is None else _gap(case, others, case.model, "model")
    step = _step(f"With {case.model} mean TV is {_text(before)}{_against(floor)}.", suspected)
    steps = [step]
    if floor is not None and _at_floor(before, floor):
        sentence = (
            f"{case.model} fits these responses as it fits the others: what is off in them is the log's π_old"
        )
        return Confirmation(f"{sentence}, not what sampled.", None, list(suspected), steps)
    for number, (candidate, checkpoint) in enumerate(case.candidates.items()):
        if time.monotonic() >= case.deadline:
            steps.append(replace(_step(f"{candidate}: {NO_TIME}", suspected), status="skipped"))
            continue
        after = _gap(case, affected, checkpoint, f"candidate-{number}")
        told = f"With {candidate} mean TV of {count(after.n, 'token')} is {_text(after)}, before {_text(before)}"
        if _closes(before, after, floor):
            proof = Proof(candidate, before, after, floor=None if floor is None else floor.value)
            cause = suspected[0] if len(suspected) == 1 else None
            steps.append(_step(f"{told}: it closes the gap.", suspected, "closes"))
            limit = "" if floor is None else f" (floor {_text(floor)})"
            fall = f"the gap of these responses falls from {_text(before)} to {_text(after)}{limit}"
            return Confirmation(
                f"Proved: with the weights of {candidate} {fall}.", cause, list(suspected), steps, proof
            )
        steps.append(_step(f"{told}: it does not close the gap.", suspected, "stays"))
    return Confirmation(_unproved(steps), None, list(suspected), steps)


def _unproved(steps: Sequence[ExperimentStep]) -> str:
    tried = sum(step.status == "told" for step in steps) - 1
    if not tried:
        return "Cannot tell: no other checkpoint was tried; --candidate names one."
    return (
        f"Cannot tell: {count(tried, 'other checkpoint')} tried, and none closes the gap; --candidate names more."
    )


def _parts(case: LogCase) -> tuple[Trace, Trace | None]:
    """The affected responses, and the others where there are some, as traces of their own."""

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


def _gap(case: LogCase, sampled: Trace, model: str, name: str) -> Interval:
    """Mean TV between the policy that sampled, as logged, and a checkpoint."""
    settings = ScoreSettings(case.engine, model, adapter=case.adapter)
    path = case.directory / f"{sampled.path.name}-{name}"
    score_trace(sampled.path, path, settings, on_event=case.on_event)
    scored = Trace.open(path)
    return measure_pair(sampled, scored, Context.of(sampled, scored, None, confidence=case.confidence)).alpha.mean


def _at_floor(gap: Interval, floor: Interval) -> bool:
    return gap.high is not None and floor.high is not None and gap.high <= _TIMES_FLOOR * floor.high


def _closes(before: Interval, after: Interval, floor: Interval | None) -> bool:
    if after.high is None or before.low is None:
        return False
    limit = _SHARE_LEFT * before.low
    if floor is not None and floor.high is not None:
        limit = max(limit, min(_TIMES_FLOOR * floor.high, before.low / 2))
    return after.high <= limit


def _step(sentence: str, remaining: Sequence[str], result: str | None = None) -> ExperimentStep:
    return ExperimentStep(
        "rescore", "Which checkpoint were the responses drawn from?", "told", result, sentence, list(remaining)
    )


def _against(floor: Interval | None) -> str:
    return "" if floor is None else f", of the other responses {_text(floor)}"


def _text(interval: Interval) -> str:
    return estimate(interval.value, interval.low, interval.high)
