"""What is told of one tensor that should be the same in two places: two checkpoints, or one and what was loaded."""

from __future__ import annotations

from typing import Literal

from .results import result

Status = Literal["same", "differs", "missing", "extra", "not_compared"]
Kind = Literal[
    "reordered",
    "stale",
    "rounded",
    "eight_bits",
    "scaled",
    "transposed",
    "low_rank",
    "shape",
    "tied",
    "values",
]


@result
class TensorRecord:
    """One tensor, as it is and as it should be. Figures are over elements; None where there are none to say.

    `status` "same": equal once either is cast to the other's dtype. `kind` is the most that can be told of a
    difference, or of two that are "same" in another order; "stale": as it was before an update.
    """

    name: str
    status: Status
    shape: tuple[int, ...] = ()
    dtype: str | None = None
    """As it should be: of the checkpoint."""
    dtype_found: str | None = None
    kind: Kind | None = None
    reason: str | None = None
    """Why it was not compared, or what `kind` alone does not say."""
    ratio: float | None = None
    """What it is scaled by."""
    rank: int | None = None
    """Of the matrix that was added."""
    differing: float | None = None
    """Share of the elements."""
    differing_rows: float | None = None
    """Share of the rows, slices along the first axis, in which an element differs."""
    relative: float | None = None
    """‖found − expected‖ / ‖expected‖."""
    largest: float | None = None
    """Largest |found − expected|."""
    sha256: str | None = None
    """Of the values found, in float32, where they are other ones: equal on two sides where both have the same."""
