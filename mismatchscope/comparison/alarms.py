"""Pitfalls the tool catches so that the user need not: each alarm says what is wrong, how it shows, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..measures.intervals import clustered_mean
from ..reports.document import Alarm, Floors
from .states import StateMeasures

# A slope of the log-odds this far from 1 is no rounding: bf16 noise moves it by less than a hundredth. It is a
# temperature only where it explains most of what differs; a shift of another kind can tilt the cloud a little too.
_SLOPE_TOLERANCE = 0.03
_SLOPE_EXPLAINS = 0.5
_SLOPE_TOKENS = 200
_PARETO_LIMIT = 0.7


def alarms(
    measures: StateMeasures,
    *,
    on_policy: bool,
    behavior: dict[str, Any],
    reference: dict[str, Any],
    pareto_k: float | None,
    unmatched: tuple[int, int],
    rejected: int,
    floors: Floors,
    notes: list[str],
) -> list[Alarm]:
    """Everything that makes the figures of this comparison mean less, or something else, than they seem to.

    `on_policy` says whether the tokens were drawn from the μ that is compared; they were not when the raw policy of
    a truncated or tempered sampler is. `unmatched` counts the sequences found on the behaviour and on the reference
    side only, `floors` are the repeat floors that were measured, `notes` the remarks of the alignment.
    """
    found = [
        *(_ratio_alarm(measures) if on_policy else _off_policy_alarm()),
        *_temperature_alarm(measures, truncated=_truncated(behavior)),
        *_leak_alarm(measures),
        *_provenance_alarms(behavior, reference),
        *_row_alarms(unmatched, rejected),
        *_floor_alarm(floors),
        *(Alarm(code="alignment", message=note) for note in notes),
    ]
    if pareto_k is not None and pareto_k > _PARETO_LIMIT:
        found.append(
            Alarm(
                code="heavy_weights",
                message=f"The sequence weights have Pareto k {pareto_k:.2f} > {_PARETO_LIMIT}: their ESS and χ² "
                "cannot be trusted.",
                evidence={"pareto_k": pareto_k},
                remedy="read the token measures, or shorter responses in by_length",
            )
        )
    return found


def _ratio_alarm(measures: StateMeasures) -> Iterator[Alarm]:
    """E_μ ρ = 1 − leak, so a mean ratio away from that says that the two sides describe different things."""
    leak_N = measures.columns["leak"]
    expected = 1.0 - float(np.nanmean(leak_N)) if not np.isnan(leak_N).all() else 1.0
    # At 95 % one sound run in twenty would be alarmed.
    mean = clustered_mean(measures.sampled.ratio, measures.prompt_id_N, confidence=0.9999)
    if mean.low is None or mean.high is None or mean.low <= expected <= mean.high:
        return
    yield Alarm(
        code="mean_ratio",
        message=f"The mean ratio is {mean.value:.4g}, not {expected:.4g}: the two sides do not describe the same "
        "distribution of the same tokens.",
        evidence={"mean": mean.value, "low": mean.low, "high": mean.high, "expected": expected},
        remedy="check temperature, raw against processed log-probs, top-p/top-k, and the weights of both sides",
    )


def _off_policy_alarm() -> Iterator[Alarm]:
    yield Alarm(
        code="off_policy_tokens",
        message="The tokens were drawn after temperature, top-k or top-p, and the raw policies are compared: every "
        "mean is over the states the sampler visited, and sampled-token estimators of TV and KL do not apply.",
        remedy="read the exact figures, or compare --policy processed",
    )


def _temperature_alarm(measures: StateMeasures, *, truncated: bool) -> Iterator[Alarm]:
    """A temperature on one side only scales the log-odds, so their difference is a multiple of themselves."""
    # Cutting ids off scales what is kept, which tilts the log-odds too: π is first put on μ's support, where known.
    leak_N = measures.columns["leak"]
    logp_pi_N = measures.logp_pi_N - np.log1p(-leak_N) if truncated else measures.logp_pi_N
    seen_N = np.isfinite(measures.logp_mu_N) & np.isfinite(logp_pi_N)
    # The log-odds of nearly certain tokens are all rounding.
    seen_N &= (measures.logp_mu_N < -1e-3) & (logp_pi_N < -1e-3)
    if seen_N.sum() < _SLOPE_TOKENS:
        return
    odds_mu, odds_pi = (_log_odds(logp_N[seen_N]) for logp_N in (measures.logp_mu_N, logp_pi_N))
    difference = odds_pi - odds_mu
    if np.ptp(odds_mu) == 0 or np.ptp(difference) == 0:
        return
    slope = float(np.polyfit(odds_mu, odds_pi, 1)[0])
    explained = float(np.corrcoef(difference, odds_mu)[0, 1]) ** 2
    if abs(slope - 1.0) > _SLOPE_TOLERANCE and explained > _SLOPE_EXPLAINS:
        yield Alarm(
            code="temperature",
            message=f"The log-odds of the reference are {slope:.3f} times the behaviour's: one side seems to "
            "divide its logits by a temperature that the other does not.",
            evidence={"slope": slope, "explained": explained},
            remedy="score with --reference-temperature equal to the sampling temperature, or compare --policy raw",
        )


def _truncated(behavior: dict[str, Any]) -> bool:
    sampling = behavior.get("sampling") or {}
    return (sampling.get("top_p") or 1.0) < 1.0 or (sampling.get("top_k") or 0) > 0


def _log_odds(logp_N: np.ndarray) -> np.ndarray:
    return logp_N - np.log(-np.expm1(logp_N))


def _leak_alarm(measures: StateMeasures) -> Iterator[Alarm]:
    outside = int(np.isneginf(measures.logp_pi_N).sum())
    if outside:
        yield Alarm(
            code="impossible_tokens",
            message=f"{outside} sampled tokens have probability 0 under the reference, so KL(μ‖π) is infinite.",
            evidence={"tokens": outside},
            remedy="the reference masks or truncates tokens that the behaviour samples; compare --policy raw",
        )
    leak_N = measures.columns["leak"]
    if np.isnan(leak_N).all():
        return
    leak = float(np.nanmean(leak_N))
    if leak > 1e-6:
        yield Alarm(
            code="support_leak",
            message=f"On average {leak:.3g} of π's mass lies on tokens that μ cannot sample; that much TV would "
            "remain with perfect numerics.",
            evidence={"leak": leak},
            remedy="--policy raw measures the numerics alone, --policy support renormalises π on μ's support",
        )


def _provenance_alarms(behavior: dict[str, Any], reference: dict[str, Any]) -> Iterator[Alarm]:
    weights = [side.get("model", {}).get("weights_sha256") for side in (behavior, reference)]
    if None not in weights and weights[0] != weights[1]:
        yield Alarm(
            code="weights",
            message="The two sides ran different weights, so this measures staleness and numerics together.",
            evidence={"behavior": weights[0], "reference": weights[1]},
            remedy="give both sides the same --model",
        )


def _floor_alarm(floors: Floors) -> Iterator[Alarm]:
    sides = {"behaviour": floors.behavior, "reference": floors.reference}
    missing = [name for name, floor in sides.items() if floor is None]
    if len(missing) == 1:
        yield Alarm(
            code="one_sided_floor",
            message=f"The {missing[0]} was not measured against itself, so its own noise counts as mismatch here.",
            remedy="an engine that can score through decoding, or compare --behavior-repeat / --reference-repeat",
        )


def _row_alarms(unmatched: tuple[int, int], rejected: int) -> Iterator[Alarm]:
    if any(unmatched):
        yield Alarm(
            code="unmatched",
            message=f"{unmatched[0]} sequences exist on the behaviour side only and {unmatched[1]} on the "
            "reference side only; they are counted, not compared.",
            evidence={"behavior": unmatched[0], "reference": unmatched[1]},
            remedy="a selective loss biases every figure: find out which sequences are missing",
        )
    if rejected:
        yield Alarm(
            code="rejected",
            message=f"{rejected} rows have a NaN or +inf log-prob and were left out of every figure.",
            evidence={"rows": rejected},
            remedy="an engine that produces NaN must be mended first",
            severity="error",
        )
