"""The tokens of a log scored again: with the checkpoint that the run has now, with those that it may have had, and
under the candidates that the present one has.

A log alone cannot be run again, and its engines are gone; what is left to try is which policy its rows were drawn
from. Rows that the fault is not about are the floor: what the present checkpoint is away from them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...diagnosis.catalogue import ROUNDING, causes
from ...diagnosis.decisions import RESCORE
from ...reports.confirmation_fields import Confirmation, ExperimentStep, Proof
from ...reports.text import count, estimate
from ...traces.reader import Trace
from .case import NO_TIME
from .log_case import LogCase, pair_of, parts_of
from .rescore_log import under_candidates

if TYPE_CHECKING:
    from ...measures.results import Interval

_TIMES_FLOOR = 2.0
_SHARE_LEFT = 0.1
"""A checkpoint closes the gap where what is left is surely below this share of it or this multiple of the floor."""


def confirm_log(case: LogCase, suspected: Sequence[str]) -> Confirmation:
    """Whether another checkpoint than the present one, or this one under a candidate, is what the affected
    responses were drawn from.

    `suspected` are the causes that the data left open, likeliest first. Raises `ConfigError` for a log without
    prompts, `EmptyComparisonError` where no response is affected, and what `score_trace` does.
    """
    affected, others = parts_of(case)
    before = _gap(case, affected, case.model, "model")
    floor = None if others is None else _gap(case, others, case.model, "model")
    step = _step(f"With {case.model} mean TV is {_text(before)}{_against(floor)}.", suspected)
    steps = [step]
    if floor is not None and _at_floor(before, floor):
        sentence = (
            f"{case.model} fits these responses as it fits the others: what is off in them is the log's π_old"
        )
        return Confirmation(f"{sentence}, not what sampled.", None, list(suspected), steps)
    for number, (name, checkpoint) in enumerate(case.checkpoints.items()):
        if time.monotonic() >= case.deadline:
            steps.append(replace(_step(f"{name}: {NO_TIME}", suspected), status="skipped"))
            continue
        after = _gap(case, affected, checkpoint, f"candidate-{number}")
        told = f"With {name} mean TV of {count(after.n, 'token')} is {_text(after)}, before {_text(before)}"
        if _closes(before, after, floor):
            proof = Proof(name, before, after, floor=None if floor is None else floor.value)
            cause = suspected[0] if len(suspected) == 1 else None
            steps.append(_step(f"{told}: it closes the gap.", suspected, "closes"))
            limit = "" if floor is None else f" (floor {_text(floor)})"
            fall = f"the gap of these responses falls from {_text(before)} to {_text(after)}{limit}"
            return Confirmation(f"Proved: with the weights of {name} {fall}.", cause, list(suspected), steps, proof)
        steps.append(_step(f"{told}: it does not close the gap.", suspected, "stays"))
    checkpoints = sum(step.status == "told" for step in steps) - 1
    found = under_candidates(case, affected, others, suspected)
    steps.append(found.step)
    if found.proof is None:
        return Confirmation(_unproved(checkpoints, found.tried), None, list(suspected), steps)
    return _proved(found.proof, found.step.remaining, floor, suspected, steps)


def _proved(
    proof: Proof,
    left: Sequence[str],
    floor: Interval | None,
    suspected: Sequence[str],
    steps: list[ExperimentStep],
) -> Confirmation:
    """What a candidate that closes the gap of the affected responses is the cause of: those that are `left`."""
    names = " or ".join(causes()[cause].title for cause in left)
    limit = "" if floor is None else f" (floor {_text(floor)})"
    fall = f"falls from {_text(proof.before)} to {_text(proof.after)}{limit}"
    return Confirmation(
        f"Proved: {names}. With {proof.change} the gap of these responses {fall}.",
        left[0] if len(left) == 1 else None,
        list(left),
        steps,
        replace(proof, floor=None if floor is None else floor.value),
        withdrawn=bool(suspected) and not _is_about(suspected, left),
    )


def _is_about(suspected: Sequence[str], proved: Sequence[str]) -> bool:
    """Whether what is proved is one of those, or may be what is wrong with the rows that one of those is about."""
    return any(cause in proved or causes()[cause].family == "grouping" for cause in suspected if cause != ROUNDING)


def _unproved(checkpoints: int, candidates: int) -> str:
    tried = [
        count(number, what)
        for number, what in ((checkpoints, "other checkpoint"), (candidates, "candidate"))
        if number
    ]
    if not tried:
        return "Cannot tell: no other checkpoint was tried; --candidate names one."
    return f"Cannot tell: {' and '.join(tried)} tried, and none closes the gap; --candidate names more."


def _gap(case: LogCase, sampled: Trace, model: str, name: str) -> Interval:
    """Mean TV between the policy that sampled, as logged, and a checkpoint."""
    return pair_of(case, sampled, model, name).alpha.mean


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
        RESCORE, "Which checkpoint were the responses drawn from?", "told", result, sentence, list(remaining)
    )


def _against(floor: Interval | None) -> str:
    return "" if floor is None else f", of the other responses {_text(floor)}"


def _text(interval: Interval) -> str:
    return estimate(interval.value, interval.low, interval.high)
