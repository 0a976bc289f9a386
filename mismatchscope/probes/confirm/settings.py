"""The change of settings that closes the gap, by `probe bisect`, and what it proves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...engines.spec import parse_spec, with_adapter
from ...reports.confirmation_fields import Proof
from ...reports.text import count, estimate
from ..candidates import candidates
from ..plan import Question
from .case import Case

if TYPE_CHECKING:
    from ...measures.results import Interval


_SHARE = 0.5
"""Of the gap: engines that are surely no farther apart than this share of it do not show it."""


class Closing(NamedTuple):
    """`absent`: the engines, run again, do not show the gap, so that no experiment on them is about it.

    `changed` has each setting that was changed, and the value that it had: both sides of the gap's cause.
    """

    sentence: str
    proof: Proof | None = None
    changed: tuple[tuple[str, str | None], ...] = ()
    absent: bool = False


def closing_change(case: Case) -> Closing:
    """Raises what a probe does; `ConfigError` where the two SPECs differ in nothing that can be changed."""
    probe = case.probe("bisect")
    conclusion = probe.conclusion[0]
    as_given = probe.cells[0].pair
    if as_given is not None and _is_absent(again := as_given.alpha.mean, case.gap):
        return Closing(
            f"The engines, run again, do not show the gap: mean TV {_text(again)}, where it was {_text(case.gap)}. "
            f"These two SPECs do not make it with this model and the first {count(again.clusters, 'prompt')}: look "
            "for another checkpoint or configuration, for other prompts, or at what was logged.",
            absent=True,
        )
    if conclusion.code != "closed_by" or not probe.effects:
        return Closing(conclusion.sentence)
    change = probe.effects[0].change
    means = {cell.setting: cell.pair.alpha.mean for cell in probe.cells if cell.pair is not None}
    before, least, *_ = means.values()
    settings = case.settings
    behavior, reference = (
        with_adapter(parse_spec(text), settings.adapter) for text in (settings.behavior, settings.reference)
    )
    changed = [each for each in candidates(Question(behavior, reference, 0)) if str(each) in change.split(", ")]
    return Closing(
        conclusion.sentence,
        Proof(change, before, means.get(change, least), least, case.floor),
        tuple((key, behavior.options.get(key)) for each in changed for key, _ in each.options),
    )


def _is_absent(again: Interval, gap: Interval) -> bool:
    return again.high is not None and gap.low is not None and again.high < _SHARE * gap.low


def _text(interval: Interval) -> str:
    return estimate(interval.value, interval.low, interval.high)
