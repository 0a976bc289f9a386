"""What `layer_difference` says of two models' insides: frozen values that a report holds as they are."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from .results import Interval, result


@result
class StageDifference:
    """One stage of a forward, `layers.3.mlp` say, on both sides at the same tokens.

    a is the reference's output [width] at a token, b the behaviour's, c the reference's on what the behaviour gave
    the stage to read: b − a is (b − c), *created* here, and (c − a), *carried* in.
    """

    stage: str
    dtype: str
    """Of the behaviour: the coarsest that holds all its values."""
    reference_dtype: str
    width: int
    error: Interval
    """Mean over tokens of ‖b − a‖ / ‖a‖."""
    cosine: float | None
    """Mean over tokens of the cosine between a and b; None where one of them is 0 at every token."""
    max_abs: float
    """Largest |b − a| of a value."""
    same: float
    """Share of values that are the same."""
    created: Interval | None = None
    """Mean of ‖b − c‖ / ‖b‖; None where no side was run on the other's values."""
    carried: Interval | None = None
    """Mean of ‖c − a‖ / ‖a‖."""
    created_first: float | None = None
    """`created` at the first token of each sequence, where attention has one key, and so a weight of 1."""
    amplification: float | None = None
    """`carried` over the error of what the stage reads."""
    growth: float | None = None
    """Of a layer's output: its error over that of the layer before."""
    rounded_to: str | None = None
    """The coarsest dtype that the stage reads or gives, on either side."""
    times_rounding: float | None = None
    """`created` in units of that dtype's rounding."""
    limit: float | None = None
    """How many such units no stage creates by rounding alone."""
    times_others: float | None = None
    """`created` over the largest that the same stage of another layer creates; None where there is no other."""
    stands_out: Literal["beyond_rounding", "other_dtype", "among_its_kind"] | None = None
    """Why this is more than ordinary rounding; None where it is not, and where it cannot be told."""
    not_finite: int = 0
    """Tokens at which a side has an infinity or no number: left out of all means."""


@result
class UnmatchedStage:
    """A stage that one side does not show, or that cannot be compared, and so nothing is said of."""

    stage: str
    reason: str


@result
class HeatRow:
    """The relative error of one layer's output by position; None where no sequence is so long."""

    stage: str
    errors: tuple[float | None, ...]


@result
class Internals:
    """How two sides come apart inside the model, stage by stage in the order of the computation."""

    stages: list[StageDifference]
    sequences: int
    tokens: int
    same_prefix: int
    """How many stages, from the first on, have the same values on both sides at all tokens: of one dtype, the same
    bits."""
    first_difference: str | None
    """The first stage that has not."""
    unmatched: list[UnmatchedStage] = field(default_factory=list)
    positions: tuple[int, ...] = ()
    """Where the columns of `heat` begin, in tokens from the start of a sequence."""
    heat: list[HeatRow] = field(default_factory=list)

    def stage(self, name: str) -> StageDifference:
        return next(each for each in self.stages if each.stage == name)
