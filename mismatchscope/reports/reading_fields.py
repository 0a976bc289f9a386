"""Fields of the report that say what its figures mean for a person, and why they are of this evidence."""

from __future__ import annotations

from typing import Literal

from ..measures.results import result


@result
class PublicFigure:
    """A figure that somebody published of another model: to place a number beside, not to judge it by."""

    low: float
    high: float
    setup: str
    source: str


@result
class Place:
    """Where a figure lies among public ones of the same pair of dtypes."""

    dtypes: str
    """Of μ and of π, as in 'bfloat16 and bfloat16, dense'."""
    figure: Literal["abs_logprob_diff", "rms_log_ratio", "k3"]
    value: float
    position: Literal["below", "among", "above"]
    public: tuple[PublicFigure, ...]


@result
class PerResponse:
    """What the tokens of a response add up to; the middle 90 % of the ratios, or all of fewer than 20 responses."""

    responses: int
    mean_length: float
    ratio_low: float
    ratio_high: float
    sum_tv: float | None = None
    """Mean of Σ_t TV(s_t): exact, or the unbiased estimate."""


@result
class NextStep:
    """The run that would say more, and why."""

    command: str
    why: str


@result
class Reading:
    """What the figures mean for a person. It places numbers; it never says that a run is safe."""

    place: Place | None = None
    """None where no public figure of this pair of dtypes is known."""
    outside_band: float | None = None
    """Share of tokens with ρ outside [0.8, 1.2]."""
    per_response: PerResponse | None = None
    next_step: NextStep | None = None


@result
class EvidenceChoice:
    """Why an audit recorded the evidence that it did."""

    requested: str
    """As `--evidence` said it."""
    why: str
    restore: str | None = None
    """The option that would record whole distributions at every state."""
