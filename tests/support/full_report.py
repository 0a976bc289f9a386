"""An example report of everything that can be known: whole distributions, both floors, every chart."""

from __future__ import annotations

from report_parts import HOSTILE, context, curve, figures, mean, statistic

from mismatchscope.measures.correction_results import Correction
from mismatchscope.measures.results import (
    Alpha,
    Bounds,
    Interval,
    LengthBin,
    SequenceMeasures,
    TokenMeasures,
    Tolerance,
)
from mismatchscope.reports.document import (
    Counts,
    Difference,
    Finding,
    Floor,
    Floors,
    Provenance,
    Report,
    WorstToken,
)
from mismatchscope.reports.reading_fields import (
    EvidenceChoice,
    NextStep,
    PerResponse,
    Place,
    PublicFigure,
    Reading,
)


def full() -> Report:
    exact_tv = statistic("exact", 0.002131, 0.001882, 0.002394, 0.000412, 0.00518, 0.0247, 0.0913, 0.1842)
    return Report(
        finding=Finding(
            code="above_floor",
            sentence="Above the repeat floor of 0.000209, 10.2× as much: mean TV 0.00213 [0.00188, 0.00239], "
            "α₁ ≥ 0.184 (n = 24576 tokens of 128 prompts).",
        ),
        reading=Reading(
            place=Place(
                dtypes="bfloat16 and bfloat16, dense",
                figure="abs_logprob_diff",
                value=0.00361,
                position="below",
                public=(
                    PublicFigure(
                        low=0.011, high=0.036, setup="a 4B model in another pair of engines", source=HOSTILE
                    ),
                    PublicFigure(low=0.014, high=0.014, setup="a 1.7B model", source="a public report"),
                ),
            ),
            outside_band=0.00012,
            per_response=PerResponse(
                responses=512, mean_length=48.0, ratio_low=0.871, ratio_high=1.139, sum_tv=0.1023
            ),
            next_step=NextStep(
                command="mismatchscope audit --behavior vllm:dtype=float32",
                why="in float32 rounding is far smaller",
            ),
        ),
        evidence="full",
        evidence_choice=EvidenceChoice(
            requested="auto", why="auto: whole distributions fit, up to 0.31 GiB of 1GiB"
        ),
        policy="processed",
        counts=Counts(prompts=128, sequences=512, tokens=24576, full_states=24576),
        alpha1=Alpha(
            observed_max=0.1842,
            observed_upper=0.1842,
            mean=mean(0.002131, 0.001882, 0.002394),
            prompt_mean=Interval(value=0.00208, low=0.0, high=0.0722, n=128, clusters=128),
            unseen_share=0.0231,
            tolerance=(
                Tolerance(quantile=0.9, confidence=0.95, value=0.0812, n=128, n_needed=29),
                Tolerance(quantile=0.95, confidence=0.95, value=0.131, n=128, n_needed=59),
                Tolerance(quantile=0.99, confidence=0.95, value=None, n=128, n_needed=299),
                Tolerance(quantile=0.999, confidence=0.95, value=None, n=128, n_needed=2995),
            ),
            exceedance=curve(0.0008, 1.6),
        ),
        token=TokenMeasures(
            tv=exact_tv,
            tv_lower=exact_tv,
            tv_upper=exact_tv,
            kl=statistic("exact", 8.12e-5, 6.02e-5, 1.05e-4, 1.1e-7, 9.8e-5, 0.00121, 0.0188, 0.0841),
            reverse_kl=statistic("exact", 8.2e-5, 6.1e-5, 1.06e-4, 1.1e-7, 9.9e-5, 0.00122, 0.0191, 0.0862),
            js=statistic("exact", 2.0e-5, 1.5e-5, 2.6e-5, 2.7e-8, 2.4e-5, 0.0003, 0.0046, 0.0208),
            leak=statistic("exact", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            top1_agreement=statistic("exact", 0.99874, 0.99821, 0.99919, 1.0, 1.0, 1.0, 1.0, 1.0),
            entropy_behavior=statistic("exact", 0.71, 0.66, 0.76, 0.31, 2.1, 3.4, 4.1, 4.9),
            k1=statistic("-log rho", 7.1e-5, -1.1e-5, 1.6e-4, -1.2e-6, 0.0051, 0.031, 0.11, 0.38),
            k3=statistic("rho - 1 - log rho", 8.4e-5, 6.0e-5, 1.1e-4, 9.8e-8, 1.0e-4, 0.0012, 0.019, 0.21),
            ratio=statistic("sampled", 1.000021, 0.999907, 1.000134, 1.0000012, 1.0051, 1.0329, 1.121, 1.461),
            shortfall=statistic("sampled", 0.002118, 0.001861, 0.002383, 0.0, 0.0052, 0.025, 0.092, 0.34),
            abs_logprob_diff=statistic("sampled", 0.00361, 0.00322, 0.00404, 0.00041, 0.0081, 0.0392, 0.151, 0.42),
            prob_correlation=0.999731,
            ratio_outside_band=0.00012,
        ),
        sequence=SequenceMeasures(
            tv=statistic("sampled", 0.0271, 0.0244, 0.0301, 0.0, 0.081, 0.19, None, 0.31),
            tv_bound=statistic("exact", 0.1023, 0.0911, 0.1142, 0.088, 0.21, 0.38, None, 0.61),
            kl=statistic("exact", 0.0039, 0.0031, 0.0048, 0.0022, 0.0091, 0.031, None, 0.088),
            log_ratio=statistic("sampled", -0.0034, -0.0121, 0.0052, -0.0021, 0.094, 0.21, None, 0.39),
            ratio=statistic("sampled", 1.0012, 0.9923, 1.0101, 0.998, 1.098, 1.23, None, 1.48),
            geometric_ratio=statistic("sampled", 0.99993, 0.99975, 1.0001, 0.99996, 1.0019, 1.0044, None, 1.0081),
            max_tv=statistic("exact", 0.0311, 0.0279, 0.0345, 0.024, 0.066, 0.13, None, 0.1842),
            ess_fraction=0.9917,
            ess_fraction_low=0.9893,
            ess_fraction_high=0.9936,
            chi2=0.0084,
            pareto_k=0.21,
            pareto_k_limit=0.6309,
            by_length=(
                LengthBin(
                    low=1,
                    high=31,
                    sequences=141,
                    tv=mean(0.0121, 0.0102, 0.0143),
                    kl=mean(0.0017, 0.0011, 0.0024),
                    log_ratio=mean(-0.0011, -0.0062, 0.0041),
                    ess_fraction=0.9971,
                ),
                LengthBin(
                    low=32,
                    high=96,
                    sequences=371,
                    tv=mean(0.0328, 0.0291, 0.0367),
                    kl=mean(0.0047, 0.0036, 0.0059),
                    log_ratio=mean(-0.0043, -0.0151, 0.0067),
                    ess_fraction=0.9896,
                ),
            ),
        ),
        floor=Floors(
            behavior=Floor(
                observed_max=0.0112,
                mean=mean(0.000209, 0.000171, 0.000248),
                kl=1.1e-6,
                identical=False,
                composition="reshuffled",
            ),
            reference=Floor(observed_max=0.0, mean=mean(0.0, 0.0, 0.0), identical=True, composition="same"),
            excess=mean(0.001922, 0.001681, 0.002174),
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
                mean_weight=1.00002,
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
                context=context(
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
                context=context(
                    ["Wait", ",", " let", " me", " check", HOSTILE, " once", " more"],
                    [0.041, 0.002, 0.00003, 0.0001, 0.008, 0.1519, 0.003, 0.0002],
                ),
                focus=5,
            ),
        ],
        figures=figures(),
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
