"""Six finished reports, as unlike each other as reports get.

`full`: whole distributions, floors, no gates, every figure. `topk`: certified ends only, a failed, a passed and an
undecided gate, three policies. `sampled`: a log import with alarms and hardly any figure. `versions`: an engine
against an older version of itself, further from the trainer, and a gate on that. `probe`: settings
held together, some of which failed. `log`: the logs of a run.
"""

from __future__ import annotations

from dataclasses import replace

from full_report import full
from log_report import log_report as log
from report_parts import HOSTILE, curve, mean, statistic

from mismatchscope.measures.results import (
    Alpha,
    Interval,
    SequenceMeasures,
    Statistic,
    TailExtrapolation,
    TokenMeasures,
    Tolerance,
)
from mismatchscope.reports.chart_fields import ChartData, Histogram
from mismatchscope.reports.document import (
    Alarm,
    BaselineComparison,
    Counts,
    Difference,
    Finding,
    Floors,
    GateResult,
    Provenance,
    Report,
)
from mismatchscope.reports.pair_fields import (
    CellDifference,
    CellRatio,
    Completions,
    PairSummary,
    Probe,
    ProbeCell,
    ProbeConclusion,
)
from mismatchscope.reports.reading_fields import Reading

__all__ = ["HOSTILE", "full", "log", "probe", "sampled", "topk", "versions"]


def topk() -> Report:
    headline = {"n": 24576, "clusters": 128, "estimator": "partly Rao–Blackwellised"}
    tv = Statistic(mean=0.00203, low=0.0018, high=0.00227, **headline)
    kl = Statistic(mean=4.1e-5, low=3.2e-5, high=5.3e-5, **headline)
    kl_lower = statistic("lower bound", 3.7e-5, 3.0e-5, 4.6e-5, 1e-6, 9e-5, 4e-4, 0.0021, 0.013)
    lower = statistic("top-k lower", 0.00191, 0.00168, 0.00216, 0.0003, 0.0048, 0.022, 0.084, 0.171)
    upper = statistic("top-k upper", 0.0048, 0.0043, 0.0053, 0.0011, 0.0102, 0.051, 0.133, 0.232)
    ratio = statistic("sampled", 1.000021, 0.999907, 1.000134, 1.0000012, 1.0051, 1.0329, 1.121, 1.461)
    return Report(
        verdict="fail",
        finding=Finding(
            code="no_floor",
            sentence="No repeat floor was measured: mean TV 0.00203 [0.00180, 0.00227], α₁ ≥ 0.171 "
            "(n = 24576 tokens of 128 prompts).",
        ),
        evidence="topk",
        policy="raw",
        counts=Counts(prompts=128, sequences=512, tokens=24576),
        alpha1=Alpha(
            observed_max=0.171,
            observed_upper=0.232,
            mean=mean(0.00203, 0.0018, 0.00227),
            tolerance=(Tolerance(quantile=0.95, confidence=0.95, value=0.12, n=128, n_needed=59),),
            exceedance=curve(0.0007, 1.6),
            tail=TailExtrapolation(
                threshold=0.05,
                exceedances=61,
                shape=0.18,
                scale=0.021,
                quantile=0.9999,
                value=0.31,
                low=0.21,
                high=0.52,
            ),
        ),
        alpha0=Alpha(observed_max=0.082, observed_upper=0.11, mean=mean(0.0009, 0.0008, 0.001)),
        beta=Alpha(observed_max=0.21, observed_upper=0.29, mean=mean(0.0024, 0.0021, 0.0027)),
        token=TokenMeasures(tv=tv, tv_lower=lower, tv_upper=upper, kl=kl, kl_lower=kl_lower, ratio=ratio),
        sequence=SequenceMeasures(
            ess_fraction=0.93,
            pareto_k=0.81,
            pareto_k_limit=0.6309,
            weights_reason="Pareto k 0.81 of the weights is above 0.63",
        ),
        truncation_floor=0.05,
        gates=[
            GateResult(
                expression="alpha1.mean.high > 0.002", value=0.00216, low=0.00216, high=0.00216, verdict="fail"
            ),
            GateResult(expression="token.ratio.p999 > 1.5", value=1.121, verdict="pass"),
            GateResult(
                expression="token.tv.mean > 0.002",
                value=None,
                low=0.00168,
                high=0.0053,
                verdict="inconclusive",
                reason="the interval reaches across the threshold",
            ),
        ],
        figures=ChartData(ratio_histogram=Histogram(edges=[0.5, 0.9, 1.1, 2.0], counts=[3, 24561, 12])),
        provenance=Provenance(
            behavior={"engine": "sglang"},
            reference={"engine": "transformers"},
            target={"engine": "transformers", "step": 12},
            difference=[Difference(key="engine", behavior="sglang", reference="transformers")],
            command="mismatchscope compare mu pi --target theta -o out",
        ),
    )


def sampled() -> Report:
    return Report(
        finding=Finding(
            code="no_floor",
            sentence="No repeat floor was measured: mean TV 0.057 [0.036, 0.079], α₁ ≥ 0.41 "
            "(n = 411 tokens of 8 prompts).",
        ),
        evidence="sampled",
        policy="processed",
        counts=Counts(prompts=8, sequences=8, tokens=411, unmatched_behavior=3, rejected=1),
        alpha1=Alpha(
            observed_max=0.41,
            mean=Interval(value=0.057, low=0.036, high=0.079, n=411, clusters=8),
            tolerance=(Tolerance(0.95, 0.95, None, 8, 59, "not every visited state's TV is bounded from above"),),
        ),
        token=TokenMeasures(
            ratio=Statistic(mean=0.943, low=0.921, high=0.964, p50=1.0, n=411, clusters=8, estimator="sampled"),
            binary_tv=Statistic(mean=0.031, max=0.41, n=411, clusters=8, estimator="binary TV"),
            kl=Statistic(mean=float("inf"), max=float("inf"), n=411, clusters=8, estimator="k1"),
        ),
        sequence=SequenceMeasures(),
        alarms=[
            Alarm(
                code="mean_ratio",
                message="The mean ratio is 0.943 [0.921, 0.964], not 1: the two sides describe different policies.",
                evidence={"mean": 0.943, "low": 0.921, "high": 0.964},
                remedy="Score with the temperature and top-p that the sampler used, or compare --policy raw.",
                severity="error",
            ),
            Alarm(code="few_prompts", message="8 prompts are too few for any tolerance bound."),
        ],
        provenance=Provenance(
            behavior={"format": "verl"}, reference={"format": "verl"}, command="mismatchscope analyze step_12.jsonl"
        ),
    )


def versions() -> Report:
    whole = full()
    alpha = replace(whole.alpha1, exceedance=curve(0.0004, 1.6))
    old_reference = PairSummary(
        alpha=replace(alpha, observed_max=0.0911, mean=mean(0.001204, 0.001021, 0.001391)),
        tv=statistic("exact", 0.001204, 0.001021, 0.001391, 0.00021, 0.0029, 0.0131, 0.052, 0.0911),
        kl=statistic("exact", 3.12e-5, 2.41e-5, 3.95e-5, 5.1e-8, 4.1e-5, 0.0006, 0.0088, 0.031),
        abs_logprob_diff=statistic("sampled", 0.00204, 0.0018, 0.00229, 0.0002, 0.0046, 0.022, 0.08, 0.21),
        identical=False,
    )
    new_old = PairSummary(
        alpha=replace(alpha, observed_max=0.1322, mean=mean(0.001702, 0.001491, 0.001924)),
        kl=statistic("exact", 5.02e-5, 3.91e-5, 6.31e-5, 8.1e-8, 6.1e-5, 0.0008, 0.0101, 0.052),
        identical=False,
    )
    new = whole.provenance.behavior | {"engine_version": "0.32.0", "attention": "FLASH_ATTN"}
    return whole.model_copy(
        update={
            "verdict": "fail",
            "sequence": SequenceMeasures(),
            "corrections": [],
            "bounds": None,
            "worst": [],
            "figures": ChartData(),
            "baseline": BaselineComparison(
                verdict="worse",
                sentence="Further from the trainer than the baseline: mean TV to the trainer "
                "0.00093 [0.00077, 0.00108] against the baseline's (24,576 tokens of 128 prompts).",
                old_reference=old_reference,
                new_old=new_old,
                tv_difference=mean(0.000927, 0.000771, 0.001084),
                kl_difference=mean(5.0e-5, 3.4e-5, 6.7e-5),
                abs_logprob_difference=mean(0.00157, 0.00131, 0.00183),
                provenance=new | {"engine_version": "0.27.1", "attention": "XFORMERS"},
                difference=[
                    Difference(key="torch", behavior="2.13.0", reference="2.11.0"),
                    Difference(
                        key="engine_version",
                        behavior="0.32.0",
                        reference="0.27.1",
                        rank=2,
                        why="kernels change between versions",
                    ),
                    Difference(
                        key="effective.attention",
                        behavior="FLASH_ATTN",
                        reference="XFORMERS",
                        rank=1,
                        why="kernels sum in different orders",
                    ),
                ],
            ),
            "gates": [
                GateResult(
                    expression="baseline.tv_difference > 0",
                    value=0.000927,
                    low=0.000771,
                    high=0.001084,
                    verdict="fail",
                )
            ],
            "provenance": whole.provenance.model_copy(
                update={
                    "behavior": new,
                    "command": "mismatchscope audit --model Qwen/Qwen3-0.6B --behavior vllm==0.32.0 "
                    "--baseline vllm==0.27.1 --reference transformers --fail-on 'baseline.tv_difference > 0'",
                }
            ),
        }
    )


def probe() -> Report:
    """A probe of two paths, with a setting that was refused, one that was ignored and one of foreign text."""
    whole = full()

    def pair(value: float, low: float, high: float, most: float, same: int) -> PairSummary:
        alpha = replace(whole.alpha1, observed_max=most, mean=mean(value, low, high))
        return PairSummary(alpha=alpha, identical=not most, kl=whole.token.kl, same_tokens=same, tokens=24576)

    near, far = pair(0.00021, 0.00016, 0.00027, 0.0156, 17_800), pair(0.0021, 0.0018, 0.0024, 0.184, 9_000)
    spec = "transformers:dtype=bfloat16"
    cells = [
        ProbeCell("batch of 2", "alone", spec, "decode", {"batch_size": 2}, pair=pair(0.0, 0.0, 0.0, 0.0, 24576)),
        ProbeCell(
            "batch of 8",
            "alone",
            spec,
            "decode",
            {"batch_size": 8},
            pair=near,
            differences=(CellDifference("batch of 2 against alone", mean(0.00021, 0.00016, 0.00027)),),
            growth=mean(1.31, 1.08, 1.62),
        ),
        ProbeCell(
            "batch of 8",
            "alone",
            spec,
            "prefill",
            {"batch_size": 8},
            pair=far,
            ratio=CellRatio("batch of 2 against alone", "tv", mean(10.1, 7.2, 14.3)),
            times_rounding=2.13,
        ),
        ProbeCell("BOS missing", "alone", spec, "prefill", status="left_out", reason="no prompt begins with BOS"),
        ProbeCell(HOSTILE, "alone", spec, "prefill", status="failed", reason=f"no such layout: {HOSTILE}"),
        ProbeCell("2 threads", "alone", spec, "prefill", {"threads": 1}, "ignored", "asked for threads=2", near),
    ]
    conclusion = [
        ProbeConclusion("depends_on_batch", "transformers prefill depends on the batch: mean TV 0.0021."),
        ProbeConclusion(
            "several_completions", "6 greedy completions of each of 128 prompts: 3 with more than one."
        ),
    ]
    completions = [Completions(spec, ["alone", "batch of 2"], 128, 6, 3, 2, 13, 21.0)]
    shown = "batch of 8 against alone, transformers prefill"
    return whole.model_copy(
        update={
            "verdict": "inconclusive",
            "finding": Finding(code="probe", sentence=conclusion[0].sentence),
            "floor": Floors(),
            "reading": Reading(),
            "probe": Probe("batch", "the other sequences of a batch", cells, conclusion, shown, completions),
        }
    )
