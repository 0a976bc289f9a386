"""Experiments until one cause is left, or nothing that can be run tells the rest apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...diagnosis.catalogue import ROUNDING, causes, experiments
from ...diagnosis.decisions import RESCORE, Decision, causes_of_setting, decision
from ...diagnosis.narrowing import Narrowing, every_cause, is_of_the_log
from ...errors import DiskFullError, MismatchScopeError
from ...reports.confirmation_fields import Confirmation, ExperimentStep, Proof
from ...reports.text import estimate, number
from .case import NO_TIME, Case
from .experiments import EXPERIMENTS
from .impossible import impossible
from .settings import closing_change

if TYPE_CHECKING:
    from ...measures.results import Interval


_ABSENT = "absent"


def confirm(case: Case, suspected: Sequence[str]) -> Confirmation:
    """Put the causes that the data left open, likeliest first, to experiments; without any, all of the catalogue.

    The settings that differ are tried first: what closes the gap is proved, whatever was suspected. Raises
    `DiskFullError`. What an experiment cannot do on these engines is its step's matter.
    """
    if (why := nothing_to_run(suspected)) is not None:
        return Confirmation(why, None, list(suspected))
    suspected = put_to_engines(suspected, case)
    first, proof = _settings(case, suspected)
    if first.result == _ABSENT:
        return Confirmation(f"Cannot tell. {first.sentence}", None, suspected, [first])
    if proof is not None:
        withdrawn = not set(first.remaining) <= set(suspected)
        return _concluded(case, [first], proof, withdrawn)
    every = every_cause(impossible(case.settings))
    steps, narrowing = [first], Narrowing(list(first.remaining), list(EXPERIMENTS), every)
    while (name := narrowing.following() or narrowing.proving()) is not None:
        step, proof = _run(case, name, narrowing.remaining)
        if step.status == "told" and step.result is not None:
            narrowing.tell(name, step.result)
        steps.append(replace(step, remaining=list(narrowing.remaining)))
        if proof is not None:
            return _concluded(case, steps, proof, narrowing.withdrawn)
    return _concluded(case, steps, None, narrowing.withdrawn)


def nothing_to_run(suspected: Sequence[str]) -> str | None:
    """Why no engine is asked: all that is suspected is the log's. None where one is."""
    if not suspected or not all(map(is_of_the_log, suspected)):
        return None
    return f"Nothing to run: what writes the log does this ({' or '.join(map(_title, suspected))})."


def put_to_engines(suspected: Sequence[str], case: Case) -> list[str]:
    """The causes that these two engines can have; without any, all of the catalogue that they can."""
    left_out = impossible(case.settings)
    return [each for each in suspected if not is_of_the_log(each) and each not in left_out] or every_cause(left_out)


def _run(case: Case, name: str, remaining: Sequence[str]) -> tuple[ExperimentStep, Proof | None]:
    """One experiment, and what it proves. What it leaves of the causes is not its own matter."""
    question = experiments()[name].question

    def skipped(why: str) -> tuple[ExperimentStep, None]:
        return ExperimentStep(name, question, "skipped", None, why, list(remaining)), None

    if case.late:
        return skipped(NO_TIME)
    began = time.monotonic()
    try:
        found = EXPERIMENTS[name](replace(case, suspected=list(remaining)))
    except DiskFullError:
        raise
    except MismatchScopeError as error:
        return skipped(f"Not possible here: {error.message}")
    step = ExperimentStep(
        name,
        question,
        "unclear" if decision(name, found.result) == Decision() else "told",
        found.result,
        found.sentence,
        list(remaining),
        found.command,
        time.monotonic() - began,
    )
    return step, found.proof


def _settings(case: Case, suspected: Sequence[str]) -> tuple[ExperimentStep, Proof | None]:
    """Whether a setting that differs closes the gap, and what it is the cause of."""
    began = time.monotonic()
    step = ExperimentStep("settings", experiments()["settings"].question, "skipped", None, "", list(suspected))
    if case.late:
        return replace(step, sentence=NO_TIME), None
    try:
        found = closing_change(case)
    except DiskFullError:
        raise
    except MismatchScopeError as error:
        return replace(step, sentence=f"Not possible here: {error.message}"), None
    step = replace(
        step,
        status="told" if found.proof is not None or found.absent else "unclear",
        result=_ABSENT if found.absent else None,
        sentence=found.sentence,
        command=case.command("bisect"),
        seconds=time.monotonic() - began,
    )
    if found.proof is None:
        return step, None
    makes = frozenset().union(*(causes_of_setting(key, value) for key, value in found.changed))
    left = [cause for cause in suspected if cause in makes] or [cause for cause in every_cause() if cause in makes]
    return replace(step, result="closes", remaining=left), found.proof


def _concluded(case: Case, steps: list[ExperimentStep], proof: Proof | None, withdrawn: bool) -> Confirmation:
    remaining = steps[-1].remaining
    cause = remaining[0] if len(remaining) == 1 else None
    scored = any(step.experiment == RESCORE and step.status != "skipped" for step in steps)
    what = "setting and no candidate" if scored else "setting"
    return Confirmation(_sentence(proof, cause, remaining, case, what), cause, remaining, steps, proof, withdrawn)


def _sentence(proof: Proof | None, cause: str | None, remaining: Sequence[str], case: Case, tried: str) -> str:
    """`Proved: an 8-bit key-value cache. With kv_cache_dtype unset the gap falls from a to b (floor c).`"""
    if proof is not None:
        floor = "" if case.floor is None else f" (floor {number(case.floor)})"
        what = f": {' or '.join(map(_title, remaining))}" if remaining else ""
        fall = f"the gap falls from {_mean(proof.before)} to {_mean(proof.after)}{floor}"
        return f"Proved{what}. With {proof.change} {fall}."
    if cause is not None:
        return f"One cause is left: {_title(cause)}. No {tried} was found that closes the gap."
    if not remaining:
        return "Cannot tell: the experiments rule out every cause that is known here."
    return f"Cannot tell which: {len(remaining)} causes are left ({', '.join(map(_title, remaining))})."


def _title(code: str) -> str:
    return "ordinary rounding" if code == ROUNDING else causes()[code].title


def _mean(interval: Interval) -> str:
    return estimate(interval.value, interval.low, interval.high)
