"""What the figures of a comparison mean for a person: where they lie, what they add up to, what to run next.

Shapes: S whole responses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..reports.difference_fields import RoundingSize
from ..reports.document import Finding
from ..reports.reading_fields import PerResponse, Reading
from .next_step import next_step_of
from .pair import Pair, PolicyPair
from .public_figures import dtype_of, place_of

_MIDDLE = (0.05, 0.95)
_ENOUGH = 20  # responses, for the 5 % and the 95 % quantile to lie inside the sample


def reading_of(
    pair: Pair,
    finding: Finding,
    behavior: dict[str, Any],
    reference: dict[str, Any],
    command: str,
    size: RoundingSize | None = None,
) -> Reading:
    """`behavior` and `reference` are the provenance of the two sides, `command` is what made the report, `size`
    that of the gap in terms of rounding."""
    return Reading(
        place=place_of(pair.statistics, behavior, reference),
        outside_band=pair.figures.token.ratio_outside_band,
        per_response=per_response_of(pair),
        next_step=None
        if finding.code == "probe"  # which is the experiment that a next step would be
        else next_step_of(
            finding,
            command,
            prompts=pair.counts.prompts,
            dtypes=(dtype_of(behavior), dtype_of(reference)),
            evidence="full" if pair.statistics.all_exact else "sampled",
            beyond_rounding=size is not None and size.beyond,
        ),
    )


def per_response_of(pair: PolicyPair) -> PerResponse | None:
    """Over whole responses; None where there is none, or where μ's tokens were not drawn from μ."""
    sums = pair.statistics.sequences
    if not sums.length.size or not pair.context.on_policy or pair.context.weighted:
        return None
    log_ratio_S = np.sort(sums.log_ratio)
    low, high = _MIDDLE if log_ratio_S.size >= _ENOUGH else (0.0, 1.0)
    with np.errstate(over="ignore"):
        ratio_low, ratio_high = np.exp(np.quantile(log_ratio_S, [low, high], method="nearest"))
    tv_S = sums.sum_tv if pair.statistics.all_exact else sums.sum_tv_estimate
    return PerResponse(
        responses=int(sums.length.size),
        mean_length=float(sums.length.mean()),
        sum_tv=float(tv_S.mean()),
        ratio_low=float(ratio_low),
        ratio_high=float(ratio_high),
    )
