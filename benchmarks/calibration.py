"""Claim: the intervals and bounds of a report hold as often as they say.

    python benchmarks/calibration.py

Simulates audits whose truth is known exactly and counts how often each bound contains it. States are
clustered: prompts differ in how often a state mismatches and in length, most states are close to zero, and
the mismatching ones have a Pareto tail that ends at TV = 1. One or eight responses a prompt. The mean's interval
is compared, on the same audits, with the cluster t interval, the bootstrap-t and BCa. Prints the tables and writes
them to benchmarks/results/calibration.md and .json.

Shape suffixes: N tokens, C prompts, B bootstrap replicates.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from calibration_designs import DESIGNS, MANY_SAMPLES, Design
from calibration_tables import made_by, table, write
from scipy.special import ndtr, ndtri, stdtrit

from mismatchscope.measures.alpha import TotalVariation, exceedance_curve, tolerance_bound
from mismatchscope.measures.intervals import clustered_mean, empirical_bernstein

PROMPTS = (8, 16, 32, 64, 128)
PROMPTS_OF_MANY_SAMPLES = (8, 16, 64)
BEYOND = (2, 5, 15, 50)  # per cent of prompts that exceed the τ at which shares are bounded
BOOTSTRAPS = 999


@dataclass(frozen=True)
class Row:
    """How often each bound held over `audits` simulated audits. None: not defined for this design, or this few
    prompts."""

    design: str
    prompts: int
    audits: int
    mean: float
    mean_upper: float
    mean_high_over_truth: float
    t: float | None
    bootstrap_t: float | None
    bca: float | None
    prompt_mean: float
    prompts_beyond: float
    tokens_beyond_2: float | None
    tokens_beyond_5: float | None
    tokens_beyond_15: float | None
    tokens_beyond_50: float | None
    tokens_limit_15: float
    tokens_share_15: float
    tolerance_90: float | None
    tolerance_95: float | None


def calibrate(design: Design, prompts: int, audits: int, seed: int, *, peers: bool = True) -> Row:
    """Audit one population many times; every audit draws its own prompts, lengths and states."""
    rng = np.random.default_rng([seed, prompts, *design.name.encode()])
    weight_BC = _bootstrap_weights(prompts)
    truth, true_prompt_mean = design.token_mean(), design.prompt_mean()
    tau_of = {share: tau for share in BEYOND if (tau := design.tau(share / 100)) is not None}
    taus = tuple(sorted(tau_of.values()))
    held: dict[str, list[bool]] = {}
    high, limits = [], []

    def note(name: str, holds: bool) -> None:
        held.setdefault(name, []).append(holds)

    for _ in range(audits):
        tv_N, prompt_N = design.draw(rng, prompts)
        sum_C, count_C = np.bincount(prompt_N, tv_N), np.bincount(prompt_N)
        mean = clustered_mean(tv_N, prompt_N, bounds=(0.0, 1.0))
        high.append(mean.high / truth)
        note("mean", mean.low <= truth <= mean.high)
        note("mean_upper", truth <= mean.high)
        if peers:
            for name, (low, upper) in peer_intervals(sum_C, count_C, weight_BC).items():
                note(name, low <= truth <= upper)
        by_prompt = empirical_bernstein(sum_C / count_C)
        note("prompt_mean", by_prompt.low <= true_prompt_mean <= by_prompt.high)
        tv = TotalVariation.of(tv_N, prompt_N, taus)
        curve = {point.tau: point for point in exceedance_curve(tv, tv)}
        for share, tau in tau_of.items():
            note(f"tokens_beyond_{share}", curve[tau].tokens_upper >= design.tokens_beyond(tau))
        limits.append(curve[tau_of[15]].tokens_upper)
        note("prompts_beyond", curve[tau_of[15]].prompts_upper >= 0.15)
        max_C, _ = tv.exceedance.seen()
        for q in (0.9, 0.95):
            bound = tolerance_bound(max_C, q).value
            if bound is not None:
                note(f"tolerance_{q * 100:.0f}", 1 - design.prompts_beyond(bound) >= q)

    names = [field for field in Row.__dataclass_fields__ if field not in ("design", "prompts", "audits")]
    rates = {name: float(np.mean(held[name])) if name in held else None for name in names}
    rates["mean_high_over_truth"] = float(np.median(high))
    rates["tokens_limit_15"], rates["tokens_share_15"] = float(np.median(limits)), design.tokens_beyond(tau_of[15])
    return Row(design.name, prompts, audits, **rates)


def peer_intervals(
    sum_C: np.ndarray, count_C: np.ndarray, weight_BC: np.ndarray, confidence: float = 0.95
) -> dict[str, tuple[float, float]]:
    """The usual intervals of a ratio of cluster totals: linearised t, bootstrap-t and BCa."""
    clusters, total, tail = count_C.size, count_C.sum(), (1 - confidence) / 2
    mean = sum_C.sum() / total
    residual_C = sum_C - mean * count_C
    error = math.sqrt(clusters / (clusters - 1) * residual_C @ residual_C) / total
    t = stdtrit(clusters - 1, 1 - tail)

    moments = np.stack([residual_C, count_C, residual_C**2, residual_C * count_C, count_C**2], axis=1)
    r, n, rr, rn, nn = (weight_BC @ moments).T
    shift_B = r / n
    variance_B = clusters / (clusters - 1) * (rr - 2 * shift_B * rn + shift_B**2 * nn)
    with np.errstate(divide="ignore"):
        t_low, t_high = np.quantile(shift_B * n / np.sqrt(variance_B), [tail, 1 - tail])

    jackknife_C = residual_C / (total - count_C)
    jackknife_C = jackknife_C - jackknife_C.mean()
    acceleration = (jackknife_C**3).sum() / (6 * (jackknife_C**2).sum() ** 1.5)
    bias = ndtri((shift_B < 0).mean())
    z = bias + ndtri(np.array([tail, 1 - tail]))
    bca = mean + np.quantile(shift_B, ndtr(bias + z / (1 - acceleration * z)))
    return {
        "t": (mean - t * error, mean + t * error),
        "bootstrap_t": (mean - t_high * error, mean - t_low * error),
        "bca": (bca[0], bca[1]),
    }


def _bootstrap_weights(clusters: int) -> np.ndarray:
    return np.random.default_rng(0).multinomial(clusters, np.full(clusters, 1 / clusters), BOOTSTRAPS) * 1.0


def _document(rows: list[Row], seed: int, seconds: float) -> str:
    mean_columns = {
        "design": "design",
        "prompts": "prompts",
        "mean": "mismatchscope",
        "t": "cluster t",
        "bootstrap_t": "bootstrap-t",
        "bca": "BCa",
        "mean_upper": "upper end alone",
        "mean_high_over_truth": "median upper end / truth",
        "prompt_mean": "mean over prompts, empirical Bernstein",
    }
    share_columns = {
        "design": "design",
        "prompts": "prompts",
        **{f"tokens_beyond_{share}": f"tokens, {share} % of prompts" for share in BEYOND},
        "tokens_limit_15": "median limit, 15 %",
        "tokens_share_15": "truth",
    }
    prompt_columns = {
        "design": "design",
        "prompts": "prompts",
        "prompts_beyond": "P(M > τ), Clopper–Pearson",
        "tolerance_90": "tolerance q = 0.9",
        "tolerance_95": "tolerance q = 0.95",
    }
    noise = 2 * math.sqrt(0.95 * 0.05 / rows[0].audits)
    return f"""# Calibration of the intervals

{made_by("calibration.py", seed, seconds)}
{rows[0].audits} simulated audits a row; two binomial standard errors at 0.95 are {noise:.3f}.

## The mean of TV: how often the 95 % interval holds the truth

{table(rows, mean_columns)}

"Upper end alone" is how often the truth lies below the upper end, nominal 0.975. The lower end errs on the
wide side, the upper end on the narrow one; no interval without a bound on the tail keeps 0.975 everywhere. Where
one prompt in 25 holds nearly all of the mean ("rare huge"), few prompts miss it, and the interval with them; that
of the mean over prompts holds for any distribution, and is wide for it.

## The share of tokens beyond τ: how often the upper limit holds, nominal 95 %

{table(rows, share_columns)}

τ is where 2, 5, 15 and 50 % of prompts exceed it. A dash: fewer prompts than that have a mismatch at all.

## The share of prompts, and tolerance bounds, nominal 95 %

{table(rows, prompt_columns)}

τ is where 15 % of prompts exceed it. A dash: so few prompts give no bound.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the coverage of every interval of the report.")
    parser.add_argument("--audits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()

    start = time.process_time()
    populations = [(design, prompts) for design in DESIGNS for prompts in PROMPTS]
    populations += [(design, prompts) for design in MANY_SAMPLES for prompts in PROMPTS_OF_MANY_SAMPLES]
    rows = [calibrate(design, prompts, arguments.audits, arguments.seed) for design, prompts in populations]
    document = _document(rows, arguments.seed, time.process_time() - start)
    write(arguments.output, "calibration", document, arguments.seed, rows)


if __name__ == "__main__":
    main()
