"""The change of settings that closes the gap, by `probe bisect`, and what it proves."""

from __future__ import annotations

from typing import NamedTuple

from ...engines.spec import parse_spec, with_adapter
from ...reports.confirmation_fields import Proof
from ..candidates import candidates
from ..plan import Question
from .case import Case


class Closing(NamedTuple):
    """`changed` has each setting that was changed, and the value that it had: both sides of the gap's cause."""

    sentence: str
    proof: Proof | None = None
    changed: tuple[tuple[str, str | None], ...] = ()


def closing_change(case: Case) -> Closing:
    """Raises what a probe does; `ConfigError` where the two SPECs differ in nothing that can be changed."""
    probe = case.probe("bisect")
    conclusion = probe.conclusion[0]
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
