"""The rows that two traces share, read from both in lock-step, a chunk at a time.

Shapes: N rows (of a trace, or of a chunk), S sequences, M rows of a chunk with a full distribution, V vocabulary,
K observed ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TraceError
from ..traces.reader import Trace
from ..traces.schema import TOKENS
from .full_states import FullStates
from .observed_ids import observed_pair

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROWS = 65536
MAX_BYTES = 64 * 1024 * 1024
_COPIES = 4  # of a top-k list while it is read, matched and padded
_TOPK = ["topk_ids", "topk_logprobs"]


@dataclass(frozen=True)
class AlignmentCounts:
    """`tokens` are the rows that are compared; `rejected` had a NaN or +inf log-prob on a side and are not."""

    prompts: int
    sequences: int
    tokens: int
    full_states: int
    unmatched_behavior: int
    unmatched_reference: int
    rejected: int


@dataclass(frozen=True, eq=False)
class AlignedChunk:
    """Some rows that follow each other. A sequence may go on in the next chunk. What was not recorded is None.

    Top-k evidence: `logp_mu_NK` and `logp_pi_NK`, both policies at the union of μ's top-k and the sampled token,
    NaN where a row has fewer ids; `tail_overlap_N`, Σ over all other ids of min(π_a, μ_(K)), +inf where not known.
    Full evidence: `index_M`, the rows of the chunk that `logp_mu_MV` and `logp_pi_MV` (float32) belong to.
    """

    sequence_id_N: np.ndarray
    prompt_id_N: np.ndarray
    position_N: np.ndarray
    token_id_N: np.ndarray
    logp_mu_N: np.ndarray
    logp_pi_N: np.ndarray
    logp_mu_NK: np.ndarray | None = None
    logp_pi_NK: np.ndarray | None = None
    tail_overlap_N: np.ndarray | None = None
    index_M: np.ndarray | None = None
    logp_mu_MV: np.ndarray | None = None
    logp_pi_MV: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Alignment:
    """What `align` found two traces to share. `notes` are remarks for people, on what is no error."""

    behavior: Trace
    reference: Trace
    counts: AlignmentCounts
    notes: list[str]
    prompt_of: tuple[np.ndarray, np.ndarray]
    """`sequence_id_S`, rising, and the prompt of each."""
    kept: tuple[np.ndarray, np.ndarray]
    """Boolean [N]: the rows of each tokens.parquet that are aligned."""
    full: FullStates | None

    @property
    def topk(self) -> bool:
        """Whether π was observed at μ's top-k ids: listed there, or read from its whole distribution."""
        listed = "topk_ids" in self.reference.token_columns
        crossed = self.full is not None and self.full.mu is None
        return "topk_ids" in self.behavior.token_columns and (listed or crossed)

    def chunks(self, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> Iterator[AlignedChunk]:
        """All aligned rows in order.

        A chunk has at most `max_rows` rows, and the work on its top-k lists, or its distributions, of both sides
        together take at most `max_bytes` (or are those of one row). Distributions may be views of the files: let
        go of a chunk before the next. Raises `TraceError` when a file turns out to be broken.
        """
        columns_mu = ["sequence_id", "position", "token_id", "logprob"]
        columns_pi = ["logprob"]
        if self.topk:
            max_rows = min(max_rows, max(1, max_bytes // (_COPIES * 2 * 8 * (self.behavior.evidence.k + 1))))
            columns_mu += _TOPK
            columns_pi += [name for name in (*_TOPK, "tail_overlap") if name in self.reference.token_columns]
        start = 0
        for mu, pi in in_step(self.behavior, self.reference, self.kept, columns_mu, columns_pi, max_rows):
            stop = start + mu.num_rows
            cuts = self.full.cuts(start, stop, max_bytes) if self.full is not None else []
            for at, end in pairwise([start, *cuts, stop]):
                yield self._chunk(at, mu.slice(at - start, end - at), pi.slice(at - start, end - at))
            start = stop

    def _chunk(self, start: int, mu: pa.RecordBatch, pi: pa.RecordBatch) -> AlignedChunk:
        seen: dict[str, Any] = {}
        beside_topk = None
        if self.full is not None:
            index_M, logp_mu_MV, logp_pi_MV = self.full.read(start, start + mu.num_rows)
            if logp_mu_MV is None:
                beside_topk = (index_M, logp_pi_MV)
            else:
                seen = {"index_M": index_M, "logp_mu_MV": logp_mu_MV, "logp_pi_MV": logp_pi_MV}
        if self.topk:
            seen |= vars(observed_pair(mu, pi, beside_topk))
        known_S, prompt_id_S = self.prompt_of
        sequence_id_N = mu["sequence_id"].to_numpy()
        return AlignedChunk(
            sequence_id_N=sequence_id_N,
            prompt_id_N=prompt_id_S[np.searchsorted(known_S, sequence_id_N)],
            position_N=mu["position"].to_numpy().astype(np.int64),
            token_id_N=mu["token_id"].to_numpy(),
            logp_mu_N=mu["logprob"].to_numpy(),
            logp_pi_N=pi["logprob"].to_numpy(),
            **seen,
        )


def in_step(
    behavior: Trace,
    reference: Trace,
    kept: tuple[np.ndarray, np.ndarray],
    columns_mu: list[str],
    columns_pi: list[str],
    max_rows: int,
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """The kept rows of both tokens.parquet, as many of the one as of the other at a time."""
    left = _kept_batches(behavior, kept[0], columns_mu, max_rows)
    right = _kept_batches(reference, kept[1], columns_pi, max_rows)
    mu, pi = next(left, None), next(right, None)
    while mu is not None and pi is not None:
        rows = min(mu.num_rows, pi.num_rows)
        yield mu.slice(0, rows), pi.slice(0, rows)
        mu = mu.slice(rows) if rows < mu.num_rows else next(left, None)
        pi = pi.slice(rows) if rows < pi.num_rows else next(right, None)


def _kept_batches(trace: Trace, kept_N: np.ndarray, columns: list[str], max_rows: int) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    start = 0
    for batch in trace.iter_tokens(columns, max_rows):
        here_N = kept_N[start : start + batch.num_rows]
        start += batch.num_rows
        if here_N.all():
            yield batch
        elif here_N.any():
            yield batch.filter(pa.array(here_N))
    if start != len(kept_N):
        raise TraceError(f"{trace.path / TOKENS} ends after {start} rows of {len(kept_N)}.")
