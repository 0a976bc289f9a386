"""The finished answer as one frozen document. Renderers and the gate read it and see nothing else.

`report.json` is its dump. A field that was not or cannot be measured is None, never 0. Infinities are legal
(KL under a support leak) and are written as the strings "Infinity" and "-Infinity", so that the file stays JSON.
Definitions of every figure: docs/measures.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import TraceError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1

Verdict = Literal["pass", "fail", "inconclusive", "none"]
EvidenceLevel = Literal["sampled", "topk", "full"]
Policy = Literal["raw", "processed", "support"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Mean(Frozen):
    """A mean with its cluster-robust interval; the prompt is the cluster."""

    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    n: int = 0
    clusters: int = 0
    method: str | None = Field(None, description="how the interval was made, or why it has no ends")


class Statistic(Frozen):
    """The distribution of one figure over tokens (or sequences). Quantiles that n cannot resolve are None."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None
    n: int = 0
    clusters: int = 0
    method: str | None = Field(None, description="how the mean's interval was made, or why it has no ends")
    estimator: str = Field(description="what the figure is and from which evidence it was computed")


class Bounds(Frozen):
    """What the mismatch can cost the surrogate objective, for rewards in [0, 1]: structural, no certificates.

    Each limits the error of the objective's first-order surrogate at μ. The two max-free ones are means over
    responses and so have intervals; all others put the largest TV and KL of the visited states in the place of
    maxima over all states. The slacks, α₀ + α₁ − β, belong to three policies.
    """

    horizon: int | None = Field(None, description="T, tokens of the longest response")
    classical_tv: float | None = None
    classical_kl: float | None = None
    pinsker_marginal_tv: float | None = None
    pinsker_marginal_kl: float | None = None
    mixed_tv: float | None = None
    mixed_kl: float | None = None
    coupling: float | None = None
    adaptive: float | None = None
    max_free_linear: Mean | None = None
    max_free_quadratic: Mean | None = None
    slack_observed_max: float | None = None
    slack_mean: float | None = None


class Counts(Frozen):
    prompts: int
    sequences: int
    tokens: int
    full_states: int = 0
    unmatched_behavior: int = 0
    unmatched_reference: int = 0
    rejected: int = 0


class Tolerance(Frozen):
    """With `confidence`, at least a fraction `quantile` of prompts has max_t TV <= `value` (None: n too small)."""

    quantile: float
    confidence: float
    value: float | None
    n: int
    n_needed: int


class Exceedance(Frozen):
    """Shares above `tau`: of states, P(TV(s) > tau), and of prompts, P(max_t TV > tau), with upper limits."""

    tau: float
    tokens: float
    tokens_upper: float | None = None
    prompts: float
    prompts_upper: float


class TailExtrapolation(Frozen):
    """A generalised Pareto fit over a threshold: model-based, made only on request."""

    threshold: float
    exceedances: int
    shape: float
    scale: float
    quantile: float
    value: float
    low: float | None = None
    high: float | None = None


class Alpha(Frozen):
    """α = max_s TV as far as a sample can tell: a certified lower bound, tolerance bounds, exceedance, the mean.

    `observed_upper` (top-k and full evidence) bounds the maximum over the *visited* states from above.
    `certified_mean_high` is the empirical-Bernstein upper limit of the mean over prompts.
    """

    observed_max: float | None
    observed_upper: float | None = None
    mean: Mean
    certified_mean_high: float | None = None
    tolerance: list[Tolerance] = []
    exceedance: list[Exceedance] = []
    tail: TailExtrapolation | None = None


class TokenMeasures(Frozen):
    """Per-state figures (docs/measures.md, "Token measures"). `tv_lower` and `tv_upper` are the certified ends."""

    tv: Statistic | None = None
    tv_lower: Statistic | None = None
    tv_upper: Statistic | None = None
    kl: Statistic | None = None
    reverse_kl: Statistic | None = None
    chi2: Statistic | None = None
    js: Statistic | None = None
    leak: Statistic | None = None
    max_abs_dlogp: Statistic | None = None
    top1_agreement: Statistic | None = None
    entropy_behavior: Statistic | None = None
    entropy_reference: Statistic | None = None
    k1: Statistic | None = None
    k2: Statistic | None = None
    k3: Statistic | None = None
    ratio: Statistic | None = None
    shortfall: Statistic | None = None
    binary_tv: Statistic | None = None
    abs_logprob_diff: Statistic | None = None
    prob_diff: Statistic | None = None
    exp_abs_diff: Statistic | None = None
    prob_correlation: float | None = None
    ratio_outside_band: float | None = None


class LengthBin(Frozen):
    """The sequence figures of the responses with low <= length <= high tokens."""

    low: int
    high: int
    sequences: int
    tv: Mean | None = None
    kl: Mean | None = None
    log_ratio: Mean | None = None
    ess_fraction: float | None = None


class SequenceMeasures(Frozen):
    tv: Statistic | None = None
    tv_bound: Statistic | None = Field(None, description="E Σ_t TV(s_t), an upper bound of the sequence TV")
    kl: Statistic | None = None
    log_ratio: Statistic | None = None
    ratio: Statistic | None = None
    geometric_ratio: Statistic | None = None
    max_tv: Statistic | None = None
    ess_fraction: float | None = None
    chi2: float | None = None
    pareto_k: float | None = None
    by_length: list[LengthBin] = []


class Floor(Frozen):
    """Repeat noise: one side measured against itself. `composition` says what was changed between the two runs."""

    observed_max: float | None
    mean: Mean
    kl: float | None = None
    identical: bool = Field(description="every log-prob of the two runs has the same bits")
    composition: Literal["same", "reshuffled"] = "reshuffled"


class Floors(Frozen):
    """`excess` is the prompt-paired difference of the mean TV and the larger floor; None where no floor was run."""

    behavior: Floor | None = None
    reference: Floor | None = None
    excess: Mean | None = None


class Correction(Frozen):
    name: str
    parameters: dict[str, float]
    kept_tokens: float
    kept_sequences: float
    clipped_mass: float | None = None
    ess_fraction: float | None = None
    tv_retained: float | None = None
    kl_retained: float | None = None


class Alarm(Frozen):
    """Something that makes the figures mean less, or something else, than they seem to; with what to do."""

    code: str
    message: str
    evidence: dict[str, Any] = {}
    remedy: str | None = None
    severity: Literal["warning", "error"] = "warning"


class GateResult(Frozen):
    expression: str
    value: float | None
    low: float | None = None
    high: float | None = None
    verdict: Literal["pass", "fail", "inconclusive"]
    reason: str | None = None


class ContextToken(Frozen):
    text: str
    tv: float | None = None


class WorstToken(Frozen):
    sequence_id: int
    prompt_id: int
    position: int
    token_id: int
    tv: float
    ratio: float
    logprob_behavior: float
    logprob_reference: float
    context: list[ContextToken] = Field([], description="the tokens around it; the worst one is at `focus`")
    focus: int = 0


class Histogram(Frozen):
    edges: list[float]
    counts: list[int]
    floor_counts: list[int] | None = None


class Scatter(Frozen):
    """A random sample of points, small enough to draw; `n_total` is how many there were."""

    x: list[float]
    y: list[float]
    n_total: int
    floor_y: list[float] | None = None


class PositionBin(Frozen):
    low: int
    high: int
    n: int
    mean: float
    p99: float | None = None
    max: float
    floor_mean: float | None = None


class Figures(Frozen):
    """What the charts draw. `floor_*` is the larger repeat floor, on the same axes."""

    ratio_histogram: Histogram | None = None
    probability_scatter: Scatter | None = None
    tv_by_position: list[PositionBin] = []
    log_ratio_by_length: Scatter | None = None
    floor_exceedance: list[Exceedance] = []


class Finding(Frozen):
    """What was found, gate or no gate. `sentence` is the line a person reads first."""

    code: Literal["identical", "within_floor", "above_floor", "unresolved", "no_floor"]
    sentence: str


class Difference(Frozen):
    """One provenance key on which the two sides differ."""

    key: str
    behavior: Any = None
    reference: Any = None
    rank: int = Field(0, description="1 is the likeliest cause of a mismatch; 0 is not a known cause")
    why: str | None = None


class PairSummary(Frozen):
    """One pair of policies on the same tokens, in short. `identical`: no recorded log-prob differs in a bit."""

    alpha: Alpha
    tv: Statistic | None = None
    kl: Statistic | None = None
    abs_logprob_diff: Statistic | None = None
    identical: bool


class BaselineComparison(Frozen):
    """The engine under audit (new) against another one (old), both held against the same trainer.

    The differences are new less old, paired by state, so that what both have in common cancels: negative is closer
    to the trainer. `difference` lists what the provenance of the two engines has apart.
    """

    verdict: Literal["unchanged", "changed", "better", "worse", "inconclusive"]
    sentence: str
    old_reference: PairSummary
    new_old: PairSummary
    tv_difference: Mean | None = None
    kl_difference: Mean | None = None
    abs_logprob_difference: Mean
    provenance: dict[str, Any]
    difference: list[Difference] = []


class Provenance(Frozen):
    behavior: dict[str, Any]
    reference: dict[str, Any]
    target: dict[str, Any] | None = None
    difference: list[Difference] = []
    machine: dict[str, Any] = Field({}, description="where the comparison ran: the facts that `doctor` prints")
    command: str
    duration_s: float | None = None
    created: str | None = None
    tool_version: str | None = None


class Report(Frozen):
    schema_version: int = SCHEMA_VERSION
    verdict: Verdict = "none"
    finding: Finding
    evidence: EvidenceLevel
    policy: Policy
    counts: Counts
    alpha1: Alpha
    alpha0: Alpha | None = None
    beta: Alpha | None = None
    token: TokenMeasures
    sequence: SequenceMeasures
    floor: Floors = Floors()
    baseline: BaselineComparison | None = None
    truncation_floor: float | None = Field(
        None, description="1 − kept mass of top-p/top-k: the mean TV that perfect numerics would still show"
    )
    rounding_floor: float | None = Field(
        None, description="TV that rounding of the logits to their dtype can cause"
    )
    corrections: list[Correction] = []
    bounds: Bounds | None = None
    alarms: list[Alarm] = []
    gates: list[GateResult] = []
    worst: list[WorstToken] = []
    figures: Figures = Figures()
    provenance: Provenance

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"

    def to_frame(self) -> pd.DataFrame:
        """Every figure in a pandas frame, one a row, with its interval."""
        from .frames import report_frame

        return report_frame(self)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read report.json (or a directory that holds one). Raises `TraceError` when it is none."""
        file = path / "report.json" if path.is_dir() else path
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise TraceError(
                f"{file} does not exist.", hint="mismatchscope compare TRACE_MU TRACE_PI -o DIR writes one"
            ) from None
        except (OSError, ValidationError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
            raise TraceError(
                f"{file} is not a report of schema version {SCHEMA_VERSION}: {why}",
                hint="write it again with this version: mismatchscope compare TRACE_MU TRACE_PI -o DIR",
            ) from None
