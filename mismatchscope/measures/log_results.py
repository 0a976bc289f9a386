"""What the measures of a log say: frozen values that a report holds as they are."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from .results import Interval, result


@result
class ChangePoint:
    """Between two steps a figure took another level."""

    step: int
    """The first one at the new level."""
    before: float
    after: float
    p_value: float
    """Chance of a change as clear as this at some step of a run that has none."""


@result
class Trend:
    """One figure over the steps of a run. A step's value has an interval with the prompt as the unit."""

    steps: tuple[int, ...]
    values: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    slope: Interval
    """Change a step, by least squares; its interval allows for autocorrelation."""
    relative: Interval
    """Mean of the last steps over that of the first ones."""
    first_steps: tuple[int, int]
    last_steps: tuple[int, int]
    change_points: tuple[ChangePoint, ...] = ()
    tolerance: float | None = None
    passed_at: int | None = None
    """The first of a few steps in a row whose whole intervals are beyond the tolerance: as many as show in at most
    1 − confidence of runs that stay at it, two in up to 80 steps at 0.95. None where there are none."""
    at_responses: int | None = None
    """Of ESS / N where steps have different numbers of responses: it is that of groups of so many."""


@result
class TokenTrends:
    tv: Trend | None = None
    kl: Trend | None = None
    k1: Trend | None = None
    abs_logprob_diff: Trend | None = None
    ratio: Trend | None = None
    """Of the mean ratio, which is 1 − leak where the tokens are μ's own."""
    tv_of_impurity: Trend | None = None
    """Mean TV over the mean Gini impurity of the states: it stays where states become less certain and no more."""


@result
class SequenceTrends:
    ess_fraction: Trend | None = None
    log_ratio: Trend | None = None
    tv: Trend | None = None
    ratio: Trend | None = None


@result
class RunTrends:
    """What is not about the two policies, to be read beside them."""

    reward: Trend | None = None
    entropy: Trend | None = None
    response_length: Trend | None = None
    grad_norm: Trend | None = None
    lag: Trend | None = None


@result
class Trends:
    token: TokenTrends = TokenTrends()
    sequence: SequenceTrends = SequenceTrends()
    run: RunTrends = RunTrends()


@result
class GroupRow:
    """The responses, or tokens, of one label. Beyond 131,072 prompts by label `prompts` are groups of them."""

    label: str
    prompts: int
    sequences: int
    tokens: int
    tv: Interval
    kl: Interval
    abs_logprob_diff: Interval
    ratio: Interval
    observed_max: float
    log_ratio: Interval | None = None
    """Of whole responses; None where a label is of tokens."""
    ess_fraction: float | None = None
    differs: bool | None = None
    """Whether its mean TV is apart from the other rows' at like step, environment, lag, position, response length
    and certainty; None where that was not asked, or cannot be told. In at most 1 − confidence of the logs without
    such a row does any row of a table say so."""
    p_value: float | None = None
    """Adjusted for the number of rows."""


GroupKind = Literal[
    "step", "version", "lag", "worker", "environment", "turn", "length", "position", "logprob", "rank"
]


@result
class Groups:
    by: GroupKind
    rows: tuple[GroupRow, ...]
    omitted: int = 0
    """Rows beyond those shown: labels with the least tokens."""


@result
class Staleness:
    """How far tokens sampled by older weights differ from those at lag 0, where both policies have one version."""

    numerics: Interval
    """Mean TV at lag 0."""
    total: Interval
    excess: Interval
    """Mean TV over all tokens less that at lag 0, whatever else differs between them."""
    per_lag: Interval
    """Change of mean TV with one more version of lag, whatever else goes with it."""
    tolerance: float | None = None
    passed_at: int | None = None
    """From this lag on the whole interval of every lag is beyond the tolerance."""
    within_steps: Interval | None = None
    """Mean TV of tokens with a lag less what `alike` says tokens at lag 0 would have in their place."""
    remark: str | None = None
    """What else goes with lag, so that the excess may be its own."""
    alike: Interval | None = None
    """Mean TV of tokens with a lag over that of tokens at lag 0 alike in step, worker, environment, position and
    response length, per unit of Gini impurity; None where lag goes with these alone."""


@result
class StaleCache:
    """Early positions that are worse than later ones since a restart, as a prefix cache leaves them that kept the
    keys and values of older weights."""

    code: Literal["stale_cache", "stale_weights", "neither", "cannot_tell"]
    """`stale_weights` is no longer said: what all positions show, a log cannot tell from other causes."""
    sentence: str
    early: Interval | None = None
    """Mean TV per unit of Gini impurity at positions below 16 in the last steps, over that in the first ones."""
    late: Interval | None = None
    """The same at positions from 64 to 255."""
    since: int | None = None
    """The first step at the new level."""


@result
class PromptEffect:
    """Is it always the same prompts? Share of the variance of responses' mean TV that is between prompts."""

    intraclass: Interval
    prompts: int
    sequences: int


@result
class LengthScaling:
    """Spread of Σ d over a response against its length: exponent ½ is a random walk, 1 a mean of d by response."""

    exponent: Interval
    code: Literal["below", "random_walk", "between", "biased", "above", "cannot_tell"]
    """`below` ½: errors of a response cancel. `above` ½, and not shown to be a bias: later tokens may err more, or
    a few tokens by much."""
    sequences: int
    shared: Interval | None = None
    """Share of the variance of responses of like length that their early tokens have in common with their late
    ones: 0 where errors are independent, whatever their sizes."""


@result
class DistributionCheck:
    """One way in which two columns can fail to be log-probs of the same tokens under the same distribution."""

    code: str
    status: Literal["pass", "fail", "unknown"]
    sentence: str
    count: int | None = None
    of: int | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    fix: str | None = None


@result
class KeptSupport:
    """Of the tokens whose sampler's kept set was recorded: what the truncation does, and what is left on it."""

    truncation: Interval
    """Mean TV(π, π on the kept set) = 1 − π(kept set), exact at every token."""
    tv: Interval | None
    """Mean TV of μ and π renormalised on the kept set, from the sampled tokens."""
    kl: Interval | None
    ratio: Interval | None
    """Of π renormalised, which is 1 where the kept sets are those that μ drew from."""
    kept_ids: float | None
    """Mean size of the kept sets."""
    tokens: int
    unknown: int
    """Tokens that count and have no kept set."""


@result
class ColumnPolicy:
    """Which policy a column of log-probs is."""

    column: str
    source: str
    """What the log calls it."""
    policy: Literal["behavior", "reference", "target", "unknown"]
    settled: bool
    remark: str = ""


@result
class NativeMetric:
    """A figure that a trainer logs, recomputed by the trainer's own definition."""

    trainer: str
    name: str
    definition: str
    estimates: str
    """What quantity it is, or that it is none."""
    value: float | None
    steps: tuple[int, ...] = ()
    values: tuple[float | None, ...] = ()
    logged: tuple[float | None, ...] | None = None
    """What the trainer wrote at these steps; None where its metrics were not given."""
    reproduces: bool | None = None
    largest_difference: float | None = None
    step_offset: int = 0
    """How far the tracker's step numbers are ahead of the log's, where that makes the two agree."""


@result
class LoggedToken:
    token_id: int
    logprob_behavior: float | None
    logprob_reference: float | None
    counts: bool
    """Whether it is in the figures; else masked or rejected."""
    turn: int | None = None
    version: int | None = None
    text: str | None = None


@result
class LoggedSequence:
    """A response to look at: one of the worst, or one drawn at random."""

    sequence_id: int
    chosen: Literal["worst", "random"]
    step: int | None
    worker: str | None
    environment: str | None
    reward: float | None
    tokens: tuple[LoggedToken, ...]
    log_ratio: float
    mean_tv: float
    omitted: int = 0
    """Tokens at the end that are not listed."""


@result
class LogFacts:
    """What was read, and what the report takes it for."""

    format: str
    files: int
    rows: int
    columns: tuple[ColumnPolicy, ...]
    rejected: dict[str, int]
    """Rows that are in no figure, by reason."""
    steps: tuple[int, int] | None = None
    selection: str | None = None
    """What had been left out before the log was written; None where nothing is known of."""
    repairs: tuple[str, ...] = ()
    """What was changed because it was asked for."""
    remarks: tuple[str, ...] = ()
