"""Claim: the bounds of 100,000 states from 65 observed ids take a third of the time at most of the same formulas
written down in numpy, and keep the digits that these lose.

    python benchmarks/topk.py

Both run in this process on the same float64 rows, in turn, so that whatever else the machine does falls on both.
The error is the largest of any row against the plain formulas in extended precision. Prints the table and writes it
to benchmarks/results/topk.md.

Legend: T = states, K = observed ids.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

from mismatchscope.measures import kernel
from mismatchscope.measures.topk import topk_interval

K = 65
EXACT_ROWS = 2000  # in extended precision
NOISES = (0.01, 1.0)
RESULT = Path(__file__).parent / "results" / "topk.md"
FIGURES = ("tv_lower", "tv_upper", "kl_lower", "reverse_kl_lower", "js_lower")


def rows(n_rows: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """One per mille of the mass lies outside the observed ids."""
    rng = np.random.default_rng(0)
    logits_TK = -np.sort(rng.exponential(2.0, (n_rows, K)), axis=1)
    return tuple(
        each - np.logaddexp.reduce(each, axis=1, keepdims=True) + np.log(0.999)
        for each in (logits_TK, logits_TK + noise * rng.standard_normal(logits_TK.shape))
    )


def plain(logp_mu_TK: np.ndarray, logp_pi_TK: np.ndarray) -> dict[str, np.ndarray]:
    """The textbook sums over the observed ids and one tail."""
    mu, pi = np.exp(logp_mu_TK), np.exp(logp_pi_TK)
    mu = np.column_stack([mu, 1 - mu.sum(axis=1)])
    pi = np.column_stack([pi, 1 - pi.sum(axis=1)])
    log_mu, log_pi = np.log(mu), np.log(pi)
    log_mean = np.log((mu + pi) / 2)
    tv_T = np.abs(mu - pi).sum(axis=1) / 2
    return {
        "tv_lower": tv_T,
        "tv_upper": tv_T + np.minimum(mu[:, -1], pi[:, -1]),
        "kl_lower": (mu * (log_mu - log_pi)).sum(axis=1),
        "reverse_kl_lower": (pi * (log_pi - log_mu)).sum(axis=1),
        "js_lower": (mu * (log_mu - log_mean) + pi * (log_pi - log_mean)).sum(axis=1) / 2,
    }


def ours(logp_mu_TK: np.ndarray, logp_pi_TK: np.ndarray) -> dict[str, np.ndarray]:
    return vars(topk_interval(logp_mu_TK, logp_pi_TK))


CONTENDERS: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]] = {
    "plain numpy": plain,
    "mismatchscope": ours,
}


def measured(n_rows: int, noise: float, repeats: int) -> list[str]:
    """The table's rows for one distance of the two policies."""
    sides = rows(n_rows, noise)
    exact = plain(*(side[:EXACT_ROWS].astype(np.longdouble) for side in sides))
    wall, cpu = ({name: [] for name in CONTENDERS} for _ in range(2))
    for repeat in range(repeats + 1):
        for name, measure in CONTENDERS.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            measure(*sides)
            if repeat:  # the first call compiles
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - began_cpu)
    slowest = median(wall["plain numpy"])
    lines = []
    for name, measure in CONTENDERS.items():
        figures = measure(*(side[:EXACT_ROWS] for side in sides))
        error = max(float(np.max(np.abs(figures[key] / exact[key] - 1))) for key in FIGURES)
        each = median(wall[name])
        lines.append(
            f"| {noise} | {name} | {1e3 * each:.0f} ({1e3 * min(wall[name]):.0f}) | {1e3 * median(cpu[name]):.0f} "
            f"| {n_rows / each / 1e6:.2f} | {slowest / each:.1f} | {error:.0e} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    table = [line for noise in NOISES for line in measured(options.rows, noise, options.repeats)]
    lines = [
        "# Bounds from top-k evidence: time and error",
        "",
        f"Made by `python benchmarks/topk.py` on {date.today()}: {options.rows:,} states, {K} ids, float64; "
        f"medians of {options.repeats} calls in turn, in brackets the fastest. {platform.machine()}, "
        f"{kernel.available_cores()} cores, load average {load:.1f} before and {os.getloadavg()[0]:.1f} after, "
        f"Python {platform.python_version()}, numpy {np.__version__}, backend {kernel.backend()}.",
        "",
        "| logit noise | contender | ms | processor ms | million states / s | ratio | largest relative error |",
        "|---" * 7 + "|",
        *table,
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
