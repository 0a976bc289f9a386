"""Fields of the report for the experiments that a diagnosis was put to."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from ..measures.results import Interval, result


@result
class Proof:
    """One change that closes the gap: mean TV before and after it, on the same tokens."""

    change: str
    """`kv_cache_dtype unset`, or a checkpoint that the tokens were scored with."""
    before: Interval
    after: Interval
    least: Interval | None = None
    """With everything changed that differs: what is left for other causes."""
    floor: float | None = None
    """Of the behaviour's own repeat, where there is one."""


@result
class ExperimentStep:
    """One experiment, and what is left of the causes after it.

    `status` "told": its result rules some out, or leaves all; "unclear": it has no clear result; "skipped": it was
    not run, for the reason in `sentence`.
    """

    experiment: str
    question: str
    status: Literal["told", "unclear", "skipped"]
    result: str | None
    sentence: str
    remaining: list[str]
    """Codes of the causes that are left."""
    command: str | None = None
    """Does the same again."""
    seconds: float | None = None


@result
class Confirmation:
    """The experiments in the order in which they were run.

    `cause` is the one that is left, or that the proof shows; None where several are left, or none. `withdrawn`: an
    experiment ruled out every cause that the data had named, so that `remaining` begins with all others again.
    """

    sentence: str
    cause: str | None
    remaining: list[str]
    steps: list[ExperimentStep] = field(default_factory=list)
    proof: Proof | None = None
    withdrawn: bool = False
