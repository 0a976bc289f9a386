"""What a log's own labels say of where its mismatch comes from, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator

from ...measures.log_results import LengthScaling, PromptEffect, Staleness
from ..document import Report
from ..text import UNKNOWN, count, number, share
from .section import Line, interval_text


def origins_of(report: Report) -> Iterator[Line]:
    if report.staleness is not None:
        of_lags = [groups for groups in report.groups if groups.by == "lag" and not groups.omitted]
        yield from _staleness(report.staleness, [int(row.label) for groups in of_lags for row in groups.rows])
    if (cache := report.stale_cache) is not None:
        yield Line(cache.sentence, "caution" if cache.code == "stale_cache" else "neutral")
    if report.prompt_effect is not None:
        yield _prompt_effect(report.prompt_effect)
    if report.length_scaling is not None:
        yield Line(spread_of_lengths(report.length_scaling))
    if (kept := report.kept_support) is not None:
        yield Line(
            f"Truncation by the sampler alone: TV {interval_text(kept.truncation)}; on its kept set "
            f"{UNKNOWN if kept.tv is None else interval_text(kept.tv)}."
        )


def _staleness(stale: Staleness, lags: list[int]) -> Iterator[Line]:
    """What was observed; no sentence says that older weights are the cause. `lags` are all that occur, if known."""
    yield Line(f"At lag 0, where both sides have one version: mean TV {interval_text(stale.numerics)}.")
    yield Line(f"Over all lags it is {interval_text(stale.excess)} more.")
    if stale.alike is not None and stale.alike.value is not None:
        yield Line(
            f"Tokens with a lag have {interval_text(stale.alike)} times the mean TV of tokens at lag 0 that are "
            "alike in step, worker, environment, position, response length and certainty. What else their prompts "
            "differ in is part of it."
        )
    if stale.remark is not None:
        yield Line(stale.remark, "caution")
    if stale.passed_at is not None:
        others = "" if stale.passed_at == max(lags, default=None) else " and above"
        yield Line(f"Mean TV is above {number(stale.tolerance)} at lag {stale.passed_at}{others}.", "caution")


def _prompt_effect(effect: PromptEffect) -> Line:
    found = effect.intraclass
    if found.value is None:
        return Line("Whether it is always the same prompts cannot be told: no prompt has two responses.")
    return Line(
        f"{share(max(found.value, 0.0))} of the variance of responses' mean TV is between prompts "
        f"({interval_text(found)}, {count(effect.prompts, 'prompt')})."
    )


_SCALING = {
    "below": "less than a random walk does: errors of a response's tokens cancel, or its first ones are largest",
    "random_walk": "as a random walk does: errors of a response's tokens do not add up beyond it",
    "biased": "in proportion: responses differ in the mean of their tokens' d",
    "between": "between a random walk and a bias within responses",
    "above": "more than a random walk does, though early and late tokens of a response do not show a common error: "
    "later tokens may err more, or a few tokens by much",
    "cannot_tell": "and which of a random walk and a bias within responses it is cannot be told",
}


def spread_of_lengths(scaling: LengthScaling) -> str:
    if scaling.exponent.value is None or scaling.exponent.low is None:
        return "How log ρ(y) spreads with length cannot be told from these lengths."
    return f"log ρ(y) spreads with length to the power {interval_text(scaling.exponent)}, {_SCALING[scaling.code]}."
