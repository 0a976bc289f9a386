"""Claim: the intervals and bounds of a report hold as often as they say.

    python benchmarks/calibration.py

Simulates audits whose truth is known exactly and counts how often each bound contains it. States are
clustered: prompts differ in how often a state mismatches and in length, most states are close to zero, and
the mismatching ones have a Pareto tail that ends at TV = 1. The mean's interval is compared, on the same
audits, with the cluster t interval, the bootstrap-t and BCa. Prints the tables and writes them to
benchmarks/results/calibration.md and .json.

Shape suffixes: N tokens, C prompts, B bootstrap replicates.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from calibration_designs import BEYOND, DESIGNS, Design
from scipy import __version__ as scipy_version
from scipy.special import ndtr, ndtri, stdtrit

from mismatchscope.measures.alpha import TotalVariation, exceedance_curve, tolerance_bound
from mismatchscope.measures.intervals import clustered_mean, empirical_bernstein

PROMPTS = (32, 64, 128)
BOOTSTRAPS = 999


@dataclass(frozen=True)
class Row:
    """How often each bound held over `audits` simulated audits. None: not defined at so few prompts."""

    design: str
    prompts: int
    audits: int
    mean: float
    mean_upper: float
    mean_high_over_truth: float
    t: float | None
    bootstrap_t: float | None
    bca: float | None
    bernstein: float
    prompts_beyond: float
    tokens_beyond: float
    tolerance_90: float | None
    tolerance_95: float | None


def calibrate(design: Design, prompts: int, audits: int, seed: int, *, peers: bool = True) -> Row:
    """Audit one population many times; every audit draws its own prompts, lengths and states."""
    rng = np.random.default_rng([seed, prompts, *design.name.encode()])
    weight_BC = _bootstrap_weights(prompts)
    truth, true_prompt_mean = design.token_mean(), design.prompt_mean()
    tau = design.tau()
    true_tokens = design.tokens_beyond(tau)
    held: dict[str, list[bool]] = {}
    high = []

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
        note("bernstein", empirical_bernstein(sum_C / count_C, side="upper").high >= true_prompt_mean)
        tv = TotalVariation.of(tv_N, prompt_N, (tau,))
        (beyond,) = exceedance_curve(tv, tv)
        note("prompts_beyond", beyond.prompts_upper >= BEYOND)
        note("tokens_beyond", beyond.tokens_upper >= true_tokens)
        max_C, _ = tv.exceedance.seen()
        for q in (0.9, 0.95):
            bound = tolerance_bound(max_C, q).value
            if bound is not None:
                note(f"tolerance_{q * 100:.0f}", 1 - design.prompts_beyond(bound) >= q)

    names = [field for field in Row.__dataclass_fields__ if field not in ("design", "prompts", "audits")]
    rates = {name: float(np.mean(held[name])) if name in held else None for name in names}
    rates["mean_high_over_truth"] = float(np.median(high))
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


def _table(rows: list[Row], columns: dict[str, str]) -> str:
    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        return "–" if value is None else str(value)

    lines = ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(getattr(row, name)) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


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
    }
    bound_columns = {
        "design": "design",
        "prompts": "prompts",
        "bernstein": "empirical Bernstein, mean",
        "prompts_beyond": "P(M > τ), Clopper–Pearson",
        "tokens_beyond": "P(TV > τ)",
        "tolerance_90": "tolerance q = 0.9",
        "tolerance_95": "tolerance q = 0.95",
    }
    audits = rows[0].audits
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy_version}"
    noise = 2 * math.sqrt(0.95 * 0.05 / audits)
    return f"""# Calibration of the intervals

Made by `python benchmarks/calibration.py` on {date.today()}: {audits} simulated audits a row, seed {seed},
{seconds:.0f} s of one core of {_processor()}; {versions}.
Two binomial standard errors at 0.95 are {noise:.3f}.

## The mean of TV: how often the 95 % interval holds the truth

{_table(rows, mean_columns)}

"Upper end alone" is how often the truth lies below the upper end, nominal 0.975. The lower end errs on the
wide side, the upper end on the narrow one; no interval without a bound on the tail keeps 0.975 everywhere.

## One-sided bounds: how often they hold, nominal 95 %

{_table(rows, bound_columns)}

τ is where {BEYOND:.0%} of prompts exceed it. A dash: so few prompts give no bound. Empirical Bernstein and
Clopper–Pearson hold for any distribution, and Bernstein is wide for it; the limit on P(TV > τ) is approximate,
like the mean's interval.
"""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the coverage of every interval of the report.")
    parser.add_argument("--audits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()

    start = time.process_time()
    rows = [
        calibrate(design, prompts, arguments.audits, arguments.seed) for design in DESIGNS for prompts in PROMPTS
    ]
    document = _document(rows, arguments.seed, time.process_time() - start)
    print(document)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "calibration.md").write_text(document)
    record = {"seed": arguments.seed, "rows": [asdict(row) for row in rows]}
    (arguments.output / "calibration.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
