"""Do the figures of two traces contradict each other? Counted over every row that is compared, said at the end.

As the log-prob of each sampled token is what its state's list or distribution says, |μ(a) − π(a)| cannot exceed
the TV of the state.

Shapes: N rows that are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import NotComparableError
from ..traces.columns import flat
from ..traces.reader import Trace
from ..traces.schema import TOKENS
from .side_figures import Rows, SideFigures

if TYPE_CHECKING:
    import pyarrow as pa


class Contradictions:
    """Takes in the rows of two traces block by block."""

    def __init__(self, behavior: Trace, reference: Trace, *, lists_are_measured: bool) -> None:
        """`lists_are_measured`: the measures of top-k lists refuse a mass above one by themselves."""
        self._measured = lists_are_measured
        self._one_vocabulary = reference.vocabulary_size in (None, behavior.vocabulary_size)
        bounds = "tail_overlap" in reference.token_columns or reference.manifest.counts.full_states > 0
        manifest = behavior.manifest
        # Whatever scored the tokens of another run was asked for the ids of that run, not for its own top-k.
        chose_ids = (manifest.role, manifest.path, manifest.parent) == ("behavior", "rollout", None)
        k = behavior.evidence.k if chose_ids else None
        self._sides = (
            SideFigures(behavior, k=k, kth_bounds=bounds),
            SideFigures(reference, k=None, kth_bounds=False),
        )

    @property
    def found(self) -> bool:
        return any(side.found for side in self._sides)

    def add(self, rows: tuple[np.ndarray, np.ndarray], batches: tuple[pa.RecordBatch, pa.RecordBatch]) -> bool:
        """Rows that are compared: their numbers [N] in the tokens.parquet of either trace, and their columns.

        Returns whether both sides list the same ids at each of them.
        """
        (behavior, reference), same = self._sides, _same_ids(*batches)
        behavior.add(Rows(batches[0], rows[0]), known_ids=False, weigh=not self._measured)
        # Of the reference's own lists, what the behaviour's do not have is measured nowhere.
        weigh = not self._measured or not same
        reference.add(Rows(batches[1], rows[1]), known_ids=same and self._one_vocabulary, weigh=weigh)
        return same

    def check(self) -> None:
        """Raise `NotComparableError`: what contradicts what, in which file and column, at how many rows."""
        sentences = [sentence for side in self._sides for sentence in side.sentences()]
        if sentences:
            raise NotComparableError(
                f"The figures contradict each other. {' '.join(sentences)}",
                hint="write all columns of a row from the same log-probs: natural, normalised, of one policy",
            )
        behavior, reference = self._sides
        if behavior.is_certain and reference.is_certain:
            raise NotComparableError(
                f"Nothing was measured: every log-prob is 0, on both sides and at all {behavior.rows:,} rows "
                f"({TOKENS}, column logprob).",
                hint="a column that was never filled in looks like this: record the log-probs of both sides",
            )


def _same_ids(mu: pa.RecordBatch, pi: pa.RecordBatch) -> bool:
    """Whether both sides list the same ids at every row, so that what holds for one list holds for the other."""
    if not all("topk_ids" in batch.schema.names for batch in (mu, pi)):
        return False
    ours, theirs = (flat(batch["topk_ids"]) for batch in (mu, pi))
    return all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))
