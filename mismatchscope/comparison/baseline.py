"""Is the new engine closer to the trainer than the old one? Three pairs of policies on the same tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..measures.intervals import paired_difference
from ..reports.document import Alpha, BaselineComparison, Difference, Mean, PairSummary
from ..reports.text import count, estimate, number
from .states import StateMeasures
from .statistics import alpha, mean_of, token_measures


def compare_versions(
    new_reference: StateMeasures,
    old_reference: StateMeasures,
    new_old: StateMeasures,
    *,
    noise: float | None,
    provenance: dict[str, Any],
    difference: list[Difference],
    on_policy: bool,
    confidence: float,
) -> BaselineComparison:
    """Hold new against trainer, old against trainer and new against old; all three measure the same states.

    `noise` is the mean TV of the new engine's repeat floor, None where it was not measured: a change inside it is
    none. The tokens were drawn from the new engine, so the old pair has no sampled-token estimators of TV and KL.
    Nor has the new one where the policy is not the one drawn from (not `on_policy`).
    """
    shared = _shared_states(new_reference, old_reference)
    tv = _paired(new_reference, old_reference, "tv", shared, confidence)
    apart = _summary(new_old, on_policy=on_policy, confidence=confidence)
    verdict, sentence = _verdict(new_old, apart.alpha, tv, noise)
    return BaselineComparison(
        verdict=verdict,
        sentence=sentence,
        old_reference=_summary(old_reference, on_policy=False, confidence=confidence),
        new_old=apart,
        tv_difference=tv,
        kl_difference=_paired(new_reference, old_reference, "kl", shared, confidence),
        abs_logprob_difference=_paired(new_reference, old_reference, "abs_logprob_diff", shared, confidence),
        provenance=provenance,
        difference=difference,
    )


def _verdict(new_old: StateMeasures, apart: Alpha, tv: Mean | None, noise: float | None) -> tuple[str, str]:
    sample = (
        f"{count(new_old.token_id_N.size, 'token')} of {count(len(set(new_old.prompt_id_N.tolist())), 'prompt')}"
    )
    if new_old.identical:
        return "unchanged", f"Bit-identical to the baseline: no recorded log-prob differs at all ({sample})."
    mean = apart.mean
    moved = f"mean TV between the two {estimate(mean.value, mean.low, mean.high)}"
    if mean.value is None:
        moved = f"TV between the two up to {number(apart.observed_max)} at least"
    elif noise is not None and mean.high is not None and mean.high <= noise:
        return "unchanged", f"Unchanged: {moved}, inside the repeat floor of {number(noise)} ({sample})."
    if tv is None or tv.low is None:
        return "inconclusive", f"It differs from the baseline, {moved}; which is closer cannot be said ({sample})."
    if tv.high < 0:
        lower = estimate(-tv.value, -tv.high, -tv.low)
        return "better", f"Closer to the trainer than the baseline: mean TV lower by {lower} ({sample})."
    by = estimate(tv.value, tv.low, tv.high)
    if tv.low > 0:
        return "worse", f"Further from the trainer than the baseline: mean TV higher by {by} ({sample})."
    return "changed", f"It differs from the baseline, {moved}, but is no closer to the trainer: by {by} ({sample})."


def _shared_states(new: StateMeasures, old: StateMeasures) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the states that both pairs measured; one may have lost rows to NaN or a missing sequence."""
    keys = [one.sequence_id_N.astype(np.int64) << 32 | one.position_N.astype(np.int64) for one in (new, old)]
    return np.intersect1d(*keys, assume_unique=True, return_indices=True)[1:]


def _paired(
    new: StateMeasures, old: StateMeasures, figure: str, shared: tuple[np.ndarray, np.ndarray], confidence: float
) -> Mean | None:
    """The mean of new less old over shared states, the prompt as the unit; None where no state has the figure."""
    values = [_figure(one, figure)[rows] for one, rows in zip((new, old), shared, strict=True)]
    known = np.isfinite(values[0]) & np.isfinite(values[1])
    if not known.any():
        return None
    prompt_id = new.prompt_id_N[shared[0]][known]
    return mean_of(paired_difference(values[0][known], values[1][known], prompt_id, confidence=confidence))


def _figure(measures: StateMeasures, figure: str) -> np.ndarray:
    if figure == "abs_logprob_diff":
        return measures.sampled.abs_logprob_diff
    if measures.exact_N.any():
        return measures.columns[figure]
    # Top-k: the lower ends of both pairs, at the same ids. The sampled token alone bounds too loosely to compare.
    lower_N = measures.tv_lower_N if figure == "tv" else measures.columns["kl_lower"]
    return lower_N if measures.bounded else np.full_like(measures.logp_mu_N, np.nan)


def _summary(measures: StateMeasures, *, on_policy: bool, confidence: float) -> PairSummary:
    tokens = token_measures(measures, on_policy=on_policy, confidence=confidence)
    return PairSummary(
        alpha=alpha(measures, on_policy=on_policy, confidence=confidence),
        tv=tokens.tv,
        kl=tokens.kl,
        abs_logprob_diff=tokens.abs_logprob_diff,
        identical=measures.identical,
    )
