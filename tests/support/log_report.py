"""A report of a log in which every part has something to say, none of it measured."""

from __future__ import annotations

import numpy as np
from full_report import full
from report_parts import HOSTILE

from mismatchscope.measures.correction_results import Correction, CorrectionAudit, CorrectionSeries, CorrectionSweep
from mismatchscope.measures.log_results import (
    ChangePoint,
    ColumnPolicy,
    DistributionCheck,
    GroupRow,
    Groups,
    KeptSupport,
    LengthScaling,
    LogFacts,
    LoggedSequence,
    LoggedToken,
    NativeMetric,
    PromptEffect,
    RunTrends,
    SequenceTrends,
    StaleCache,
    Staleness,
    TokenTrends,
    Trend,
    Trends,
)
from mismatchscope.measures.results import Interval
from mismatchscope.reports.document import Finding, Report


def interval(value: float, spread: float = 0.1) -> Interval:
    return Interval(
        value=value, low=value - spread * abs(value), high=value + spread * abs(value), n=1000, clusters=64
    )


def trend(first: float, last: float, *, steps: int = 20, change_at: int | None = None) -> Trend:
    """A straight line from one value to another."""
    values = tuple(first + (last - first) * step / (steps - 1) for step in range(steps))
    return Trend(
        steps=tuple(range(steps)),
        values=values,
        low=tuple(value * 0.9 for value in values),
        high=tuple(value * 1.1 for value in values),
        slope=interval((last - first) / (steps - 1)),
        relative=interval(last / first, 0.05),
        first_steps=(0, 3),
        last_steps=(steps - 4, steps - 1),
        change_points=() if change_at is None else (ChangePoint(change_at, first, last, 0.001),),
        tolerance=None if change_at is None else 0.01,
        passed_at=change_at,
    )


def group(label: str, tv: float, *, differs: bool | None = None) -> GroupRow:
    return GroupRow(
        label=label,
        prompts=32,
        sequences=64,
        tokens=4096,
        tv=interval(tv),
        kl=interval(tv**2),
        abs_logprob_diff=interval(2 * tv),
        ratio=interval(1.0, 0.001),
        observed_max=0.4,
        ess_fraction=0.9,
        differs=differs,
    )


def rule(name: str, threshold: float, kept: float) -> Correction:
    return Correction(
        name=name,
        parameters={"cap": float(threshold)},
        unit="token",
        kept_tokens=kept,
        kept_sequences=1.0,
        clipped_mass=0.004 / threshold,
        mean_weight=0.998,
        ess_fraction=0.9,
        tv_retained=0.012 * kept,
        kl_retained=0.001 * kept,
    )


def sequence(number: int, chosen: str, tokens: int) -> LoggedSequence:
    rng = np.random.default_rng(number)
    mu = -rng.exponential(0.5, tokens)
    pi = mu - rng.standard_t(2, tokens) * 0.05
    return LoggedSequence(
        sequence_id=number,
        chosen=chosen,
        step=12,
        worker=f"worker-3 {HOSTILE}",
        environment=HOSTILE,
        reward=0.0,
        tokens=tuple(
            LoggedToken(
                token_id=int(rng.integers(1000)),
                logprob_behavior=float(mu[at]),
                logprob_reference=None if at == 5 else float(min(pi[at], 0)),
                counts=at not in (4, 5),
                turn=at // (tokens // 2),
                version=3 + at // (tokens // 3),
                text=HOSTILE if at == 6 else None,
            )
            for at in range(tokens)
        ),
        log_ratio=-0.81,
        mean_tv=0.082,
        omitted=40,
    )


def log_report() -> Report:
    checks = [
        DistributionCheck(
            "shift",
            "fail",
            "14 of 64 responses fit better at shift +1.",
            14,
            64,
            fix="--shift 1, where all of them do",
        ),
        DistributionCheck("temperature", "pass", "The best-fit temperature is 1.0003 [0.9998, 1.0009]."),
        DistributionCheck("kept_mass", "unknown", "The log has no sampler's kept set."),
    ]
    facts = LogFacts(
        format="slime",
        files=12,
        rows=640,
        columns=(
            ColumnPolicy("behavior_logprobs", "rollout_log_probs", "behavior", True),
            ColumnPolicy(
                "reference_logprobs", "log_probs", "unknown", False, "π_θ with one optimizer step a rollout"
            ),
        ),
        rejected={"log-prob of μ is not a number": 3},
        steps=(0, 19),
        selection="loss_masks is 0 for responses that a filter removed",
        repairs=("the reference's log-probs were moved by 1",),
        remarks=(f"rollout_7.pt ends early {HOSTILE}",),
    )
    metrics = [
        NativeMetric(
            trainer="slime",
            name="train/train_rollout_logprob_abs_diff",
            definition="mean over responses of their mean |log π − log μ|",
            estimates="no divergence: E|log ρ|",
            value=0.021,
            steps=(0, 1),
            values=(0.02, 0.022),
            logged=(0.02, 0.031),
            reproduces=False,
            largest_difference=0.009,
        ),
        NativeMetric("slime", "train/tis", "mean ρ", "E ρ, each response weighing the same", 1.0003),
    ]
    return full().model_copy(
        update={
            "finding": Finding(code="log_in_doubt", sentence="The figures are in doubt."),
            "log": facts,
            "distribution": checks,
            "trend": Trends(
                token=TokenTrends(tv=trend(0.004, 0.02, change_at=11), kl=trend(1e-4, 4e-4)),
                sequence=SequenceTrends(ess_fraction=trend(0.9, 0.43)),
                run=RunTrends(reward=trend(0.3, 0.5)),
            ),
            "groups": [
                Groups("worker", (group("w0", 0.01, differs=False), group(f"w1{HOSTILE}", 0.03, differs=True))),
                Groups("lag", (group("0", 0.01), group("1", 0.02), group("2", 0.03)), omitted=2),
            ],
            "staleness": Staleness(
                interval(0.01),
                interval(0.02),
                interval(0.01),
                interval(0.01),
                0.015,
                1,
                remark="Lag goes with step (21 %): the excess over all tokens may be theirs.",
                alike=interval(1.6),
            ),
            "stale_cache": StaleCache("neither", "Mean TV at like certainty rose neither early nor late."),
            "prompt_effect": PromptEffect(interval(0.31), 64, 128),
            "length_scaling": LengthScaling(interval(0.52, 0.05), "random_walk", 128),
            "native_metrics": metrics,
            "kept_support": KeptSupport(interval(0.02), interval(0.01), None, None, 14.2, 20000, 4576),
            "correction_sweeps": [
                CorrectionSweep("token_tis", "cap", tuple(rule("token_tis", c, 1 - 0.01 / c) for c in (1, 2, 5))),
                CorrectionSweep("icepop", "high", tuple(rule("icepop", c, 1 - 0.1 / c) for c in (2, 5, 10))),
            ],
            "correction_series": [
                CorrectionSeries(
                    "icepop", {"low": 0.5}, "step", (0, 1), (1.0, 0.9), (1.0, 1.0), (0.0, 0.1), (1, 0.9), (1.0, 0.9)
                )
            ],
            "sequences": [sequence(7, "worst", 12), sequence(11, "random", 8)],
            "correction_audit": [
                CorrectionAudit("weights", "token_tis", "pass", "The weights are those of token_tis at cap 2."),
            ],
        }
    )
