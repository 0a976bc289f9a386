"""Experiments until one cause is left, or nothing that can be run tells the rest apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...diagnosis.catalogue import ROUNDING, causes, experiments
from ...diagnosis.decisions import causes_of_setting, decision, excluded_on_average
from ...errors import DiskFullError, MismatchScopeError
from ...reports.confirmation_fields import Confirmation, ExperimentStep, Proof
from ...reports.text import estimate, number
from .case import NO_TIME, Case
from .experiments import EXPERIMENTS, UNCLEAR
from .settings import closing_change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...measures.results import Interval

_OF_THE_LOG = "log"
"""What only the writer of a log can do wrong, no engine."""


def confirm(case: Case, suspected: Sequence[str]) -> Confirmation:
    """Put the causes that the data left open, likeliest first, to experiments; without any, all of the catalogue.

    The settings that differ are tried first: what closes the gap is proved, whatever was suspected. Raises
    `DiskFullError`. What an experiment cannot do on these engines is its step's matter.
    """
    every = every_cause()
    suspected = list(suspected) or every
    first, proof = _settings(case, suspected, every)
    if proof is not None:
        withdrawn = not set(first.remaining) <= set(suspected)
        return _concluded(case, [first], proof, withdrawn)
    steps, withdrawn = [first], False
    for name in _chosen(steps):
        step = _run(case, name, steps[-1].remaining)
        if step.status == "told" and not step.remaining and not withdrawn:
            # The experiment has seen what the data had not: all that the steps leave is possible again.
            withdrawn = True
            step = replace(step, remaining=_not_excluded(every, [*steps, step]))
        steps.append(step)
    return _concluded(case, steps, None, withdrawn)


def every_cause() -> list[str]:
    """What engines can do wrong, and ordinary rounding."""
    return [*(code for code, cause in causes().items() if cause.experiment != _OF_THE_LOG), ROUNDING]


def _chosen(steps: Sequence[ExperimentStep]) -> Iterator[str]:
    """The experiment that rules out most of what is left for what it costs, again and again, until one cause is
    left that an experiment could have ruled out and has not.

    `steps` are those that were run so far, which grow between two of them.
    """
    open_names = list(EXPERIMENTS)
    while open_names:
        remaining = steps[-1].remaining
        told = [step.experiment for step in steps if step.status == "told"]
        if len(remaining) < 2 and any(excluded_on_average(name, remaining) for name in told):
            return
        ranked = ranked_experiments(remaining, open_names)
        if not ranked:
            return
        open_names.remove(ranked[0])
        yield ranked[0]


def ranked_experiments(remaining: Sequence[str], names: Sequence[str] = tuple(EXPERIMENTS)) -> list[str]:
    """Those of them that can rule out any of these causes, what rules out most for its cost first."""
    worth = {name: excluded_on_average(name, remaining) / experiments()[name].cost for name in names}
    return sorted((name for name in names if worth[name]), key=lambda name: -worth[name])


def _run(case: Case, name: str, remaining: Sequence[str]) -> ExperimentStep:
    """One experiment, with what it leaves of the causes."""
    question = experiments()[name].question

    def skipped(why: str) -> ExperimentStep:
        return ExperimentStep(name, question, "skipped", None, why, list(remaining))

    if case.late:
        return skipped(NO_TIME)
    began = time.monotonic()
    try:
        found = EXPERIMENTS[name](case)
    except DiskFullError:
        raise
    except MismatchScopeError as error:
        return skipped(f"Not possible here: {error.message}")
    return ExperimentStep(
        name,
        question,
        "unclear" if found.result == UNCLEAR else "told",
        found.result,
        found.sentence,
        decision(name, found.result).over(remaining),
        found.command,
        time.monotonic() - began,
    )


def _not_excluded(every: Sequence[str], steps: Sequence[ExperimentStep]) -> list[str]:
    """Of all causes, those that the steps so far leave open."""
    left = list(every)
    for step in steps:
        if step.status == "told" and step.result is not None:
            left = decision(step.experiment, step.result).over(left)
    return left


def _settings(case: Case, suspected: Sequence[str], every: Sequence[str]) -> tuple[ExperimentStep, Proof | None]:
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
        status="unclear" if found.proof is None else "told",
        sentence=found.sentence,
        command=case.command("bisect"),
        seconds=time.monotonic() - began,
    )
    if found.proof is None:
        return step, None
    makes = frozenset().union(*(causes_of_setting(key, value) for key, value in found.changed))
    left = [cause for cause in suspected if cause in makes] or [cause for cause in every if cause in makes]
    return replace(step, result="closes", remaining=left), found.proof


def _concluded(case: Case, steps: list[ExperimentStep], proof: Proof | None, withdrawn: bool) -> Confirmation:
    remaining = steps[-1].remaining
    cause = remaining[0] if len(remaining) == 1 else None
    return Confirmation(_sentence(proof, cause, remaining, case), cause, remaining, steps, proof, withdrawn)


def _sentence(proof: Proof | None, cause: str | None, remaining: Sequence[str], case: Case) -> str:
    """`Proved: with kv_cache_dtype unset the gap falls from a to b (floor c).`"""
    if proof is not None:
        floor = "" if case.floor is None else f" (floor {number(case.floor)})"
        what = f": {' or '.join(map(_title, remaining))}" if remaining else ""
        fall = f"the gap falls from {_mean(proof.before)} to {_mean(proof.after)}{floor}"
        return f"Proved{what}. With {proof.change} {fall}."
    if cause is not None:
        return f"One cause is left: {_title(cause)}. No setting was found that closes the gap."
    if not remaining:
        return "Cannot tell: the experiments rule out every cause that is known here."
    return f"Cannot tell which: {len(remaining)} causes are left ({', '.join(map(_title, remaining))})."


def _title(code: str) -> str:
    return "ordinary rounding" if code == ROUNDING else causes()[code].title


def _mean(interval: Interval) -> str:
    return estimate(interval.value, interval.low, interval.high)
