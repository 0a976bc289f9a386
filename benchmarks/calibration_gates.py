"""Claim: a gate against a baseline fails on a change and not on the noise of two runs.

    python benchmarks/calibration_gates.py
    python benchmarks/calibration_gates.py --old WORKTREE       the gates of another checkout on the same audits

Simulates pairs of audits of the same prompts, whose responses are drawn anew. In one half both come from one law:
a gate at +10 % that fails there fails falsely. In the other half the mismatch of the second audit is 30 % larger.
Every state is a choice between two tokens whose log-odds differ by a shift; its size varies by prompt, response and
state. Also counts how often the limits of a quantile hold the true one. Writes benchmarks/results/calibration_gates
as .json and .md.

Shape suffixes: N states, S responses.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from scipy import __version__ as scipy_version

from mismatchscope import gate
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.reduction import reduce_pair
from mismatchscope.comparison.states import States
from mismatchscope.comparison.statistics import PairStatistics
from mismatchscope.reports.document import Counts, Finding, Provenance, Report

try:
    from mismatchscope.comparison.sums_by_prompt import prompt_sums_of
except ImportError:  # a checkout from before reports were paired by prompt
    prompt_sums_of = None  # type: ignore[assignment]

PROMPTS = (8, 16, 64)
SAMPLES = 2
LARGER = 1.3
GATES = (
    "token.tv.mean > +10%",
    "token.kl.mean > +10%",
    "token.tv.p99 > +10%",
    "token.ratio.p999 > +10%",
    "alpha1.observed_max > +10%",
    "token.ratio_outside_band > +10%",
    "sequence.kl.mean > +10%",
    "sequence.ess_fraction < -10%",
)
QUANTILES = ("token.tv.p50", "token.tv.p90", "token.tv.p99")
VERDICTS = ("fail", "inconclusive", "pass")


@dataclass(frozen=True)
class Law:
    """A population of prompts. `spread` is the log sd of the shift by prompt, response and state.

    Lengths are uniform on `shortest` … `longest`; `longer` says by how much a hard prompt's responses are.
    """

    name: str
    shift: float
    spread: tuple[float, float, float]
    shortest: int = 24
    longest: int = 160
    longer: float = 0.0

    def draw(self, rng: np.random.Generator, effect_P: np.ndarray, scale: float) -> tuple[States, np.ndarray]:
        """An audit of prompts with these effects (standard normal), and the TV of its states [N]."""
        prompt_S = np.repeat(np.arange(len(effect_P)), SAMPLES)
        by_prompt, by_response, by_state = self.spread
        length_S = rng.integers(self.shortest, self.longest + 1, len(prompt_S))
        length_S = np.maximum(1, (length_S * np.exp(self.longer * effect_P[prompt_S])).astype(np.int64))
        log_size_S = by_prompt * effect_P[prompt_S] + by_response * rng.standard_normal(len(prompt_S))
        n = int(length_S.sum())
        size_N = self.shift * scale * np.exp(np.repeat(log_size_S, length_S) + by_state * rng.standard_normal(n))
        odds_N = 1.5 + 2.0 * rng.standard_normal(n)
        shifted_N = odds_N + size_N * rng.choice((-1.0, 1.0), n)
        first_N = rng.random(n) < _sigmoid(odds_N)
        # log p of either token is -log(1 + exp(∓ log-odds)).
        logp_N2, logq_N2 = (-np.logaddexp(0.0, np.stack([-odds, odds])) for odds in (odds_N, shifted_N))
        tv_N = np.abs(_sigmoid(odds_N) - _sigmoid(shifted_N))
        kl_N = np.maximum(0.0, (np.exp(logp_N2) * (logp_N2 - logq_N2)).sum(axis=0))
        logp_mu_N, logp_pi_N = (np.where(first_N, both[0], both[1]) for both in (logp_N2, logq_N2))
        known = {field.name for field in fields(States)}  # an older build has less
        newer = {
            "cluster_S": prompt_S,
            "whole_S": np.ones(len(prompt_S), dtype=bool),
            "recorded_pi_N": logp_pi_N,
        }
        states = States(
            **{name: value for name, value in newer.items() if name in known},
            sequence_id_S=np.arange(len(prompt_S)),
            prompt_id_S=prompt_S,
            length_S=length_S,
            position_N=np.concatenate([np.arange(length) for length in length_S]),
            token_id_N=first_N.astype(np.int32),
            logp_mu_N=logp_mu_N,
            logp_pi_N=logp_pi_N,
            certified_lower_N=tv_N,
            tv_upper_N=tv_N,
            columns={"tv": tv_N, "kl": kl_N},
            topk=False,
        )
        return states, tv_N


LAWS = (
    Law("prompts alike", 0.05, (0.2, 0.1, 1.0)),
    Law("prompts differ", 0.05, (0.8, 0.3, 1.0)),
    Law("heavy tail, hard prompts longer", 0.02, (1.0, 0.5, 1.6), longer=0.4),
)


def audit(states: States, confidence: float = 0.95) -> Report:
    """The report of these states, as far as gates read it, with its sums by prompt where the build keeps them."""
    statistics = PairStatistics()
    statistics.add(states)
    figures = reduce_pair(statistics, Context("processed", confidence=confidence))
    report = Report(
        finding=Finding(code="no_floor", sentence=""),
        evidence="full",
        policy="processed",
        counts=Counts(
            prompts=len(np.unique(states.prompt_id_S)),
            sequences=len(states.length_S),
            tokens=len(states.position_N),
        ),
        alpha1=figures.alpha,
        token=figures.token,
        sequence=figures.sequence,
        provenance=Provenance(behavior={}, reference={}, command="calibration"),
    )
    if prompt_sums_of is None:
        return report
    return report.with_prompt_sums(prompt_sums_of(figures, statistics))


def calibrate(law: Law, prompts: int, audits: int, seed: int) -> dict[str, Any]:
    """How often each gate fails, passes or stays open over pairs of audits without and with a change."""
    rng = np.random.default_rng([seed, prompts, *law.name.encode()])
    found: dict[str, dict[str, Counter[str]]] = {
        name: {one: Counter() for one in GATES} for name in ("same", "larger")
    }
    truth = dict(zip(QUANTILES, _true_quantiles(law), strict=True))
    held: dict[str, list[bool]] = {name: [] for name in QUANTILES}
    for _ in range(audits):
        effect_P = rng.standard_normal(prompts)
        base, same, larger = (audit(law.draw(rng, effect_P, scale)[0]) for scale in (1.0, 1.0, LARGER))
        for name, report in (("same", same), ("larger", larger)):
            for result in gate.apply(report, GATES, base).gates:
                found[name][result.expression][result.verdict] += 1
        for path in QUANTILES:
            limits = getattr(base.token.tv, "quantile_limits", {}).get(path.rpartition(".")[2])
            if limits is not None:
                low, high = (-math.inf if limits[0] is None else limits[0], limits[1] or math.inf)
                held[path].append(low <= truth[path] <= high)
    return {
        "law": law.name,
        "prompts": prompts,
        "audits": audits,
        "gates": {
            name: {
                one: {verdict: counts[verdict] / audits for verdict in VERDICTS} for one, counts in gates.items()
            }
            for name, gates in found.items()
        },
        "coverage": {path: float(np.mean(holds)) if holds else None for path, holds in held.items()},
    }


def _true_quantiles(law: Law, prompts: int = 6000) -> list[float]:
    rng = np.random.default_rng(0)
    _, tv_N = law.draw(rng, rng.standard_normal(prompts), 1.0)
    return [float(np.quantile(tv_N, q)) for q in (0.5, 0.9, 0.99)]


def _sigmoid(x_N: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x_N))


def _document(rows: list[dict[str, Any]], old: list[dict[str, Any]], seed: int, seconds: float) -> str:
    before = {(row["law"], row["prompts"]): row for row in old}
    audits = rows[0]["audits"]
    lines = []
    for expression in GATES:
        lines += [f"\n## `{expression}`\n", "| law | prompts | " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * 8]
        for row in rows:
            cells = []
            for half, verdict in (("same", "fail"), ("larger", "fail"), ("same", "pass")):
                for one in (row, before.get((row["law"], row["prompts"]))):
                    cells.append("–" if one is None else f"{one['gates'][half][expression][verdict]:.3f}")
            lines.append("| " + " | ".join([row["law"], str(row["prompts"]), *cells]) + " |")
    coverage = ["| law | prompts | p50 | p90 | p99 |", "|" + " --- |" * 5]
    for row in rows:
        cells = ["–" if value is None else f"{value:.3f}" for value in row["coverage"].values()]
        coverage.append("| " + " | ".join([row["law"], str(row["prompts"]), *cells]) + " |")
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy_version}"
    return f"""# Calibration of gates against a baseline

Made by `python benchmarks/calibration_gates.py` on {date.today()}: {audits} pairs of simulated audits a row,
{SAMPLES} responses a prompt, seed {seed}, {seconds:.0f} s of one core; {versions}. Two binomial standard errors at
0.05 are {2 * math.sqrt(0.05 * 0.95 / audits):.3f}.

Two audits of the same prompts. *False fail*: both of one law, and the gate fails. *Found*: the mismatch of the
second is {LARGER - 1:.0%} larger, and the gate fails. *Passes*: of one law, and the gate passes; what is neither is
inconclusive. *Before*: the build that decided what has no interval on the point, and did not pair prompts.
{chr(10).join(lines)}

## How often the limits of a quantile of TV hold the true one, nominal 0.95

{chr(10).join(coverage)}
"""


_COLUMNS = ("false fail", "before", "found", "before", "passes", "before")


def _of_checkout(worktree: Path, audits: int, seed: int) -> list[dict[str, Any]]:
    """The rows that this script gives with another checkout's package."""
    command = [sys.executable, __file__, "--audits", str(audits), "--seed", str(seed), "--print-rows"]
    environment = os.environ | {"PYTHONPATH": str(worktree)}
    done = subprocess.run(command, env=environment, cwd=worktree, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how often gates against a baseline decide rightly.")
    parser.add_argument("--audits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--old", type=Path, help="checkout of another build to run beside")
    parser.add_argument("--print-rows", action="store_true", help="print the rows as JSON and write nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()

    start = time.process_time()
    rows = [calibrate(law, prompts, arguments.audits, arguments.seed) for law in LAWS for prompts in PROMPTS]
    seconds = time.process_time() - start
    if arguments.print_rows:
        print(json.dumps(rows))
        return
    old = [] if arguments.old is None else _of_checkout(arguments.old.resolve(), arguments.audits, arguments.seed)
    document = _document(rows, old, arguments.seed, seconds)
    print(document)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "calibration_gates.md").write_text(document)
    record = {"seed": arguments.seed, "rows": rows, "before": old}
    (arguments.output / "calibration_gates.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
