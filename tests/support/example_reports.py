"""Four finished reports, as unlike each other as reports get.

`full`: whole distributions, floors, no gates, every figure. `topk`: certified ends only, a failed, a passed and an
undecided gate, three policies. `sampled`: a log import with alarms and hardly any figure. `versions`: an engine
against an older version of itself, further from the trainer, and a gate on that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mismatchscope.measures.results import (
    Alpha,
    Bounds,
    Correction,
    Exceedance,
    Interval,
    LengthBin,
    SequenceMeasures,
    Statistic,
    TailExtrapolation,
    TokenMeasures,
    Tolerance,
)
from mismatchscope.reports.document import (
    Alarm,
    BaselineComparison,
    ContextToken,
    Counts,
    Difference,
    Figures,
    Finding,
    Floor,
    Floors,
    GateResult,
    Histogram,
    PairSummary,
    PositionBin,
    Provenance,
    Report,
    Scatter,
    WorstToken,
)

HOSTILE = "<script>alert(1)</script> ]]> `|` \x1b[31m \u202e"


def _mean(value: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(value=value, low=low, high=high, n=24576, clusters=128)


def _statistic(estimator: str, *figures: float | None) -> Statistic:
    names = ("mean", "low", "high", "p50", "p90", "p99", "p999", "max")
    return Statistic(**dict(zip(names, figures, strict=True)), n=24576, clusters=128, estimator=estimator)


def _curve(scale: float, shape: float, n: int = 24576, prompts: int = 128) -> tuple[Exceedance, ...]:
    """Exceedance of a Lomax tail at three points a decade."""
    points = []
    for tau in [float(f"{step}e{exponent}") for exponent in range(-6, 0) for step in (1, 2, 5)]:
        tokens = round(n * (1 + tau / scale) ** -shape) / n
        of_prompts = round(prompts * (1 - (1 - tokens) ** (n / prompts))) / prompts
        points.append(
            Exceedance(
                tau=tau,
                tokens=tokens,
                tokens_upper=min(1.0, tokens * 1.15 + 3 / n),
                prompts=of_prompts,
                prompts_upper=min(1.0, of_prompts + 3 / prompts),
            )
        )
    return tuple(points)


def _figures() -> Figures:
    rng = np.random.default_rng(7)
    log_ratio = rng.standard_t(2.5, 20000) * 0.008
    edges = np.exp(np.linspace(-0.2, 0.2, 42))
    x = 1 / (1 + np.exp(-rng.normal(2.0, 2.5, 800)))
    noise = rng.standard_t(2.5, 800) * 0.03
    lengths = rng.integers(8, 96, 400)

    def logistic(shift: np.ndarray) -> list[float]:
        return (1 / (1 + (1 - x) / x * np.exp(-shift))).tolist()

    bins = []
    for low in range(0, 96, 8):
        mean = 0.0018 + 0.00001 * low + float(rng.normal(0, 0.0001))
        bins.append(
            PositionBin(
                low=low, high=low + 7, n=2048, mean=mean, p99=mean * 12, max=mean * 60, floor_mean=mean * 0.1
            )
        )
    return Figures(
        ratio_histogram=Histogram(
            edges=edges.tolist(),
            counts=np.histogram(np.exp(log_ratio), edges)[0].tolist(),
            floor_counts=np.histogram(np.exp(log_ratio * 0.1), edges)[0].tolist(),
        ),
        probability_scatter=Scatter(
            x=x.tolist(), y=logistic(noise * 3), n_total=24576, floor_y=logistic(noise * 0.3)
        ),
        tv_by_position=bins,
        log_ratio_by_length=Scatter(
            x=lengths.tolist(),
            y=(rng.normal(0, 1, 400) * 0.015 * np.sqrt(lengths)).tolist(),
            n_total=512,
            floor_y=(rng.normal(0, 1, 400) * 0.0015 * np.sqrt(lengths)).tolist(),
        ),
        floor_exceedance=_curve(0.00008, 1.4),
    )


def _context(words: list[str], values: list[float | None]) -> list[ContextToken]:
    return [ContextToken(text=text, tv=tv) for text, tv in zip(words, values, strict=True)]


def full() -> Report:
    exact_tv = _statistic("exact", 0.002131, 0.001882, 0.002394, 0.000412, 0.00518, 0.0247, 0.0913, 0.1842)
    return Report(
        finding=Finding(
            code="above_floor",
            sentence="Above the repeat floor of 0.000209, 10.2× as much: mean TV 0.00213 [0.00188, 0.00239], "
            "α₁ ≥ 0.184 (n = 24576 tokens of 128 prompts).",
        ),
        evidence="full",
        policy="processed",
        counts=Counts(prompts=128, sequences=512, tokens=24576, full_states=24576),
        alpha1=Alpha(
            observed_max=0.1842,
            observed_upper=0.1842,
            mean=_mean(0.002131, 0.001882, 0.002394),
            certified_mean_high=0.00412,
            tolerance=(
                Tolerance(quantile=0.9, confidence=0.95, value=0.0812, n=128, n_needed=29),
                Tolerance(quantile=0.95, confidence=0.95, value=0.131, n=128, n_needed=59),
                Tolerance(quantile=0.99, confidence=0.95, value=None, n=128, n_needed=299),
                Tolerance(quantile=0.999, confidence=0.95, value=None, n=128, n_needed=2995),
            ),
            exceedance=_curve(0.0008, 1.6),
        ),
        token=TokenMeasures(
            tv=exact_tv,
            tv_lower=exact_tv,
            tv_upper=exact_tv,
            kl=_statistic("exact", 8.12e-5, 6.02e-5, 1.05e-4, 1.1e-7, 9.8e-5, 0.00121, 0.0188, 0.0841),
            reverse_kl=_statistic("exact", 8.2e-5, 6.1e-5, 1.06e-4, 1.1e-7, 9.9e-5, 0.00122, 0.0191, 0.0862),
            js=_statistic("exact", 2.0e-5, 1.5e-5, 2.6e-5, 2.7e-8, 2.4e-5, 0.0003, 0.0046, 0.0208),
            leak=_statistic("exact", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            top1_agreement=_statistic("exact", 0.99874, 0.99821, 0.99919, 1.0, 1.0, 1.0, 1.0, 1.0),
            entropy_behavior=_statistic("exact", 0.71, 0.66, 0.76, 0.31, 2.1, 3.4, 4.1, 4.9),
            k1=_statistic("-log rho", 7.1e-5, -1.1e-5, 1.6e-4, -1.2e-6, 0.0051, 0.031, 0.11, 0.38),
            k3=_statistic("rho - 1 - log rho", 8.4e-5, 6.0e-5, 1.1e-4, 9.8e-8, 1.0e-4, 0.0012, 0.019, 0.21),
            ratio=_statistic("sampled", 1.000021, 0.999907, 1.000134, 1.0000012, 1.0051, 1.0329, 1.121, 1.461),
            shortfall=_statistic("sampled", 0.002118, 0.001861, 0.002383, 0.0, 0.0052, 0.025, 0.092, 0.34),
            abs_logprob_diff=_statistic("sampled", 0.00361, 0.00322, 0.00404, 0.00041, 0.0081, 0.0392, 0.151, 0.42),
            prob_correlation=0.999731,
            ratio_outside_band=0.00012,
        ),
        sequence=SequenceMeasures(
            tv=_statistic("sampled", 0.0271, 0.0244, 0.0301, 0.0, 0.081, 0.19, None, 0.31),
            tv_bound=_statistic("exact", 0.1023, 0.0911, 0.1142, 0.088, 0.21, 0.38, None, 0.61),
            kl=_statistic("exact", 0.0039, 0.0031, 0.0048, 0.0022, 0.0091, 0.031, None, 0.088),
            log_ratio=_statistic("sampled", -0.0034, -0.0121, 0.0052, -0.0021, 0.094, 0.21, None, 0.39),
            ratio=_statistic("sampled", 1.0012, 0.9923, 1.0101, 0.998, 1.098, 1.23, None, 1.48),
            geometric_ratio=_statistic("sampled", 0.99993, 0.99975, 1.0001, 0.99996, 1.0019, 1.0044, None, 1.0081),
            max_tv=_statistic("exact", 0.0311, 0.0279, 0.0345, 0.024, 0.066, 0.13, None, 0.1842),
            ess_fraction=0.9917,
            chi2=0.0084,
            pareto_k=0.21,
            by_length=(
                LengthBin(
                    low=1,
                    high=31,
                    sequences=141,
                    tv=_mean(0.0121, 0.0102, 0.0143),
                    kl=_mean(0.0017, 0.0011, 0.0024),
                    log_ratio=_mean(-0.0011, -0.0062, 0.0041),
                    ess_fraction=0.9971,
                ),
                LengthBin(
                    low=32,
                    high=96,
                    sequences=371,
                    tv=_mean(0.0328, 0.0291, 0.0367),
                    kl=_mean(0.0047, 0.0036, 0.0059),
                    log_ratio=_mean(-0.0043, -0.0151, 0.0067),
                    ess_fraction=0.9896,
                ),
            ),
        ),
        floor=Floors(
            behavior=Floor(
                observed_max=0.0112, mean=_mean(0.000209, 0.000171, 0.000248), kl=1.1e-6, identical=False
            ),
            reference=Floor(observed_max=0.0, mean=_mean(0.0, 0.0, 0.0), identical=True, composition="same"),
            excess=_mean(0.001922, 0.001681, 0.002174),
        ),
        rounding_floor=0.00391,
        corrections=[
            Correction(
                name="token TIS",
                unit="token",
                parameters={"C": 2.0},
                kept_tokens=1.0,
                kept_sequences=1.0,
                clipped_mass=0.0,
                ess_fraction=0.9917,
                tv_retained=0.002131,
                kl_retained=8.12e-5,
            ),
            Correction(
                name="geometric mask",
                unit="sequence",
                parameters={"low": 0.999, "high": 1.001},
                kept_tokens=0.41,
                kept_sequences=0.52,
                ess_fraction=0.9988,
                tv_retained=0.00121,
            ),
        ],
        bounds=Bounds(
            horizon=512,
            classical_tv=619.4,
            classical_kl=767.0,
            pinsker_marginal_kl=41.7,
            mixed_tv=1.9,
            max_free_linear=Interval(value=0.205, low=0.191, high=0.219, n=256, clusters=64),
            max_free_quadratic=Interval(value=0.081, low=0.07, high=0.092, n=256, clusters=64),
        ),
        worst=[
            WorstToken(
                sequence_id=41,
                prompt_id=10,
                position=17,
                token_id=284,
                tv=0.1842,
                ratio=0.762,
                logprob_behavior=-0.264,
                logprob_reference=-0.536,
                context=_context(
                    ["12", " +", " 7", " =", " 19", "\n", "So", " the", " answer", " is", " 19", "."],
                    [0.0004, 0.00002, 0.0011, None, 0.012, 0.0, 0.031, 0.00009, 0.0021, 0.0007, 0.1842, 0.0008],
                ),
                focus=10,
            ),
            WorstToken(
                sequence_id=203,
                prompt_id=50,
                position=63,
                token_id=11,
                tv=0.1519,
                ratio=1.461,
                logprob_behavior=-2.81,
                logprob_reference=-2.431,
                context=_context(
                    ["Wait", ",", " let", " me", " check", HOSTILE, " once", " more"],
                    [0.041, 0.002, 0.00003, 0.0001, 0.008, 0.1519, 0.003, 0.0002],
                ),
                focus=5,
            ),
        ],
        figures=_figures(),
        provenance=Provenance(
            behavior={
                "engine": "vllm",
                "version": "0.32.0",
                "settings": {"dtype": "bfloat16", "attention": "FLASH_ATTN", "enforce_eager": False},
                "model": {"name": "Qwen/Qwen3-0.6B", "weights_sha256": "6ce1a3b0f2d94e57", "vocabulary": 151936},
                "torch": "2.13.0",
            },
            reference={
                "engine": "transformers",
                "version": "5.3.0",
                "settings": {"dtype": "float32", "attention": "eager"},
                "model": {"name": "Qwen/Qwen3-0.6B", "weights_sha256": "6ce1a3b0f2d94e57", "vocabulary": 151936},
                "torch": "2.13.0",
            },
            difference=[
                Difference(key="engine", behavior="vllm", reference="transformers"),
                Difference(key="version", behavior="0.32.0", reference="5.3.0"),
                Difference(
                    key="settings.attention",
                    behavior="FLASH_ATTN",
                    reference="eager",
                    rank=2,
                    why="kernels sum in different orders",
                ),
                Difference(
                    key="settings.dtype",
                    behavior="bfloat16",
                    reference="float32",
                    rank=1,
                    why="bfloat16 keeps 8 bits of each logit",
                ),
            ],
            command="mismatchscope audit --model Qwen/Qwen3-0.6B --behavior vllm:dtype=bfloat16 "
            "--reference transformers:dtype=float32,attn=eager --samples 4 --seed 0 -o audit",
            duration_s=212.4,
            created="2026-01-15T10:20:30+00:00",
            tool_version="0.1.0",
        ),
    )


def topk() -> Report:
    tv = Statistic(mean=0.00203, low=0.0018, high=0.00227, n=24576, clusters=128, estimator="E(1−ρ)₊, sampled")
    lower = _statistic("top-k lower", 0.00191, 0.00168, 0.00216, 0.0003, 0.0048, 0.022, 0.084, 0.171)
    upper = _statistic("top-k upper", 0.0048, 0.0043, 0.0053, 0.0011, 0.0102, 0.051, 0.133, 0.232)
    ratio = _statistic("sampled", 1.000021, 0.999907, 1.000134, 1.0000012, 1.0051, 1.0329, 1.121, 1.461)
    return Report(
        verdict="fail",
        finding=Finding(
            code="no_floor",
            sentence="No repeat floor was measured: mean TV 0.00191 [0.00168, 0.00216], α₁ ≥ 0.171 "
            "(n = 24576 tokens of 128 prompts).",
        ),
        evidence="topk",
        policy="raw",
        counts=Counts(prompts=128, sequences=512, tokens=24576),
        alpha1=Alpha(
            observed_max=0.171,
            observed_upper=0.232,
            mean=_mean(0.00191, 0.00168, 0.00216),
            tolerance=(Tolerance(quantile=0.95, confidence=0.95, value=0.12, n=128, n_needed=59),),
            exceedance=_curve(0.0007, 1.6),
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
        alpha0=Alpha(observed_max=0.082, observed_upper=0.11, mean=_mean(0.0009, 0.0008, 0.001)),
        beta=Alpha(observed_max=0.21, observed_upper=0.29, mean=_mean(0.0024, 0.0021, 0.0027)),
        token=TokenMeasures(tv=tv, tv_lower=lower, tv_upper=upper, ratio=ratio),
        sequence=SequenceMeasures(ess_fraction=0.93, pareto_k=0.81),
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
        figures=Figures(ratio_histogram=Histogram(edges=[0.5, 0.9, 1.1, 2.0], counts=[3, 24561, 12])),
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
            tolerance=(Tolerance(quantile=0.95, confidence=0.95, value=None, n=8, n_needed=59),),
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
    alpha = replace(whole.alpha1, exceedance=_curve(0.0004, 1.6))
    old_reference = PairSummary(
        alpha=replace(alpha, observed_max=0.0911, mean=_mean(0.001204, 0.001021, 0.001391)),
        tv=_statistic("exact", 0.001204, 0.001021, 0.001391, 0.00021, 0.0029, 0.0131, 0.052, 0.0911),
        kl=_statistic("exact", 3.12e-5, 2.41e-5, 3.95e-5, 5.1e-8, 4.1e-5, 0.0006, 0.0088, 0.031),
        abs_logprob_diff=_statistic("sampled", 0.00204, 0.0018, 0.00229, 0.0002, 0.0046, 0.022, 0.08, 0.21),
        identical=False,
    )
    new_old = PairSummary(
        alpha=replace(alpha, observed_max=0.1322, mean=_mean(0.001702, 0.001491, 0.001924)),
        kl=_statistic("exact", 5.02e-5, 3.91e-5, 6.31e-5, 8.1e-8, 6.1e-5, 0.0008, 0.0101, 0.052),
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
            "figures": Figures(),
            "baseline": BaselineComparison(
                verdict="worse",
                sentence="Further from the trainer than the baseline: mean TV to the trainer "
                "0.00093 [0.00077, 0.00108] against the baseline's (24,576 tokens of 128 prompts).",
                old_reference=old_reference,
                new_old=new_old,
                tv_difference=_mean(0.000927, 0.000771, 0.001084),
                kl_difference=_mean(5.0e-5, 3.4e-5, 6.7e-5),
                abs_logprob_difference=_mean(0.00157, 0.00131, 0.00183),
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
