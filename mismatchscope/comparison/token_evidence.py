"""Two traces -> what a diagnosis is made from: a sample of whole sequences, as they were recorded.

Nothing is left out for being illegal: a NaN in a column is evidence.

Shapes: N tokens, S sequences, K listed ids, M tokens whose whole distributions are read, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..alignment.full_states import FullStates
from ..diagnosis.evidence import Floor, FullRows, OwnGap, TokenEvidence, TopK
from ..diagnosis.sample import WIDEST
from ..measures.label_sums import cluster_hash
from ..reports.difference_fields import Difference
from ..traces.columns import flat, pad
from ..traces.reader import Trace
from ..traces.schema import MASK
from .floors import MeasuredFloors
from .pair import Pair
from .rounding_size import usual_of_rounding

if TYPE_CHECKING:
    import pyarrow as pa

MOST_TOKENS = 100_000
_MOST_ENTRIES = 4_000_000
"""Of lists of ids: 100 MB of both sides."""
_MOST_BYTES = 64 * 2**20
"""Of whole distributions, both sides."""
_MOST_ROWS = 1024
"""Some statistics of them grow with the square of their number: it keeps an audit's diagnosis below 2 s."""
_BY_SEQUENCE = ("policy_version", "worker", "batch", "group")


def evidence_of(pair: Pair, noise: MeasuredFloors, differences: list[Difference]) -> TokenEvidence:
    """Whole sequences that both traces have, with all tokens that a loss mask does not leave out."""
    mu, pi = pair.mu, pair.pi
    listed = all("topk_ids" in trace.token_columns for trace in (mu, pi))
    k = max(trace.evidence.k for trace in (mu, pi)) if listed else 0
    budget = min(MOST_TOKENS, _MOST_ENTRIES // k) if k else MOST_TOKENS
    table, seen = _sequences(mu, pi, budget)
    ids_S = table["sequence_id"].to_numpy()
    columns = ["sequence_id", "position", "logprob", *(["topk_ids", "topk_logprobs"] if listed else [])]
    sides = [_Tokens(trace, ids_S, columns, pair.context.mask) for trace in (mu, pi)]
    at_mu_N, at_pi_N = _shared(sides[0].key_N, sides[1].key_N)
    sequence_N = np.searchsorted(ids_S, sides[0].sequence_N[at_mu_N])
    position_N = sides[0].position_N[at_mu_N]
    token_N, previous_N, prompt_length_S = _ids(table, sequence_N, position_N)
    metadata = {name: _values(table[name]) for name in _BY_SEQUENCE if name in table.column_names}
    _, prompt_S = np.unique(table["prompt_id"].to_numpy(), return_inverse=True)
    return TokenEvidence(
        logp_mu_N=sides[0].of("logprob")[at_mu_N],
        logp_pi_N=sides[1].of("logprob")[at_pi_N],
        sequence_N=sequence_N,
        position_N=position_N,
        prompt_S=prompt_S,
        token_N=token_N,
        previous_N=previous_N,
        prompt_length_S=prompt_length_S,
        metadata={name: value_S for name, value_S in metadata.items() if value_S is not None},
        top=_top(sides, at_mu_N, at_pi_N) if listed else None,
        full=_full(mu, pi, sides, at_mu_N, at_pi_N),
        floor=floor_of(pair, noise),
        own_gap=own_gap_of(pair, noise),
        settings={each.key: (str(each.behavior), str(each.reference)) for each in differences if each.rank},
        name_S=ids_S.astype(str),
        tokens_seen=seen,
    )


def floor_of(pair: Pair, noise: MeasuredFloors) -> Floor:
    """The larger of what this pair's repeats show and what rounding usually makes of these dtypes: a side that
    repeats itself to the bit says nothing of the other one, and one that is farther from itself than rounding makes
    it is no floor."""
    usual, own = _usual(pair), _own(noise)
    return Floor(own, "repeat") if usual < own <= WIDEST * usual else Floor(usual, "prior")


def own_gap_of(pair: Pair, noise: MeasuredFloors) -> OwnGap | None:
    """The side that is farther from itself than rounding makes it; None where neither is."""
    own, most = _own(noise), WIDEST * _usual(pair)
    side: Literal["behavior", "reference"] = "behavior" if noise.largest is noise.behavior else "reference"
    return OwnGap(side, own, most) if own > most else None


def _usual(pair: Pair) -> float:
    return max(usual_of_rounding(side.manifest) for side in (pair.mu, pair.pi))


def _own(noise: MeasuredFloors) -> float:
    """Root mean square of z of the larger repeat, 0 where none was measured."""
    repeat = noise.largest
    squares = None if repeat is None else repeat.statistics.sums["scaled"]
    return math.sqrt(squares.mean) if squares is not None and squares.n else 0.0


class _Tokens:
    """Some columns of tokens.parquet, of the rows of these sequences that count, in the order of `key_N`."""

    def __init__(self, trace: Trace, ids_S: np.ndarray, columns: list[str], mask: Trace | None) -> None:
        import pyarrow as pa

        masked = mask is not None and mask.path == trace.path and MASK in trace.token_columns
        kept: list[pa.RecordBatch] = []
        rows: list[np.ndarray] = []
        first = 0
        for batch in trace.iter_tokens([*columns, *([MASK] if masked else [])]):
            chosen_F = np.isin(batch["sequence_id"].to_numpy(), ids_S)
            if masked:
                chosen_F &= batch[MASK].to_numpy(zero_copy_only=False).astype(bool)
            if chosen_F.any():
                kept.append(batch.filter(pa.array(chosen_F)))
                rows.append(first + np.flatnonzero(chosen_F))
            first += batch.num_rows
        schema = trace.token_schema([*columns, *([MASK] if masked else [])])
        self._table = pa.Table.from_batches(kept, schema)
        self.row_N = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        """In tokens.parquet."""
        self.sequence_N = self.of("sequence_id").astype(np.int64)
        self.position_N = self.of("position").astype(np.int64)
        self.key_N = np.searchsorted(ids_S, self.sequence_N) << 32 | self.position_N

    def of(self, name: str) -> np.ndarray:
        return self._table[name].to_numpy()

    def lists(self, name: str) -> pa.Array[Any]:
        return _whole(self._table[name])


def _sequences(mu: Trace, pi: Trace, budget: int) -> tuple[pa.Table, int]:
    """Rows of μ's sequences that π has too, by rising id, and how many tokens all of them have."""
    import pyarrow.compute as pc

    names = ["sequence_id", "prompt_id", "prompt_token_ids", "response_token_ids"]
    names += [name for name in _BY_SEQUENCE if name in mu.sequence_columns]
    table = mu.read_sequences(names).sort_by("sequence_id")
    theirs = pi.read_sequences(["sequence_id"])["sequence_id"]
    table = table.filter(pc.is_in(table["sequence_id"], theirs.combine_chunks()))
    length_S = pc.list_value_length(table["response_token_ids"]).to_numpy()
    seen = int(length_S.sum())
    if seen > budget:
        # Those of the smallest hash: every n-th one could be of one worker.
        order_S = np.argsort(cluster_hash(table["sequence_id"].to_numpy()), kind="stable")
        kept = max(1, int(np.searchsorted(np.cumsum(length_S[order_S]), budget, side="right")))
        table = table.take(np.sort(order_S[:kept]))
    return table, seen


def _shared(key_mu_N: np.ndarray, key_pi_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the rows that both sides have are in either, in the order of their keys."""
    _, at_mu_N, at_pi_N = np.intersect1d(key_mu_N, key_pi_N, assume_unique=True, return_indices=True)
    return at_mu_N, at_pi_N


def _ids(
    table: pa.Table, sequence_N: np.ndarray, position_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The token at each place, the one before it (−1 where there is none), and the prompts' lengths."""
    prompt_F, prompt_length_S = flat(_whole(table["prompt_token_ids"]))
    response_F, length_S = flat(_whole(table["response_token_ids"]))
    start_S = np.cumsum(length_S) - length_S
    token_N = response_F[start_S[sequence_N] + position_N].astype(np.int64)
    end_S = np.cumsum(prompt_length_S)
    last_S = np.where(prompt_length_S > 0, prompt_F[np.maximum(end_S - 1, 0)] if len(prompt_F) else -1, -1)
    before_N = response_F[np.maximum(start_S[sequence_N] + position_N - 1, 0)]
    previous_N = np.where(position_N > 0, before_N, last_S[sequence_N]).astype(np.int64)
    return token_N, previous_N, prompt_length_S


def _whole(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    import pyarrow as pa

    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _values(column: pa.ChunkedArray[Any]) -> np.ndarray | None:
    """Numbers with NaN, or texts with "", where there is none; None where there is none at all."""
    import pyarrow.types as types

    if column.null_count == len(column):
        return None
    if types.is_integer(column.type):
        return np.array([np.nan if value is None else float(value) for value in column.to_pylist()])
    return np.array([value or "" for value in column.to_pylist()])


def _top(sides: list[_Tokens], at_mu_N: np.ndarray, at_pi_N: np.ndarray) -> TopK:
    arrays = []
    for side, at_N in zip(sides, (at_mu_N, at_pi_N), strict=True):
        id_F, k_N = flat(side.lists("topk_ids"))
        logp_F, _ = flat(side.lists("topk_logprobs"))
        arrays += [pad(id_F, k_N, fill=-1)[at_N], pad(logp_F, k_N, fill=np.nan)[at_N].astype(np.float32)]
    return TopK(*arrays)


def _full(mu: Trace, pi: Trace, sides: list[_Tokens], at_mu_N: np.ndarray, at_pi_N: np.ndarray) -> FullRows | None:
    """Whole distributions of some tokens, evenly among those that have them and a legal log-prob on both sides."""
    states = FullStates.of(mu, pi)
    if states is None or states.mu is None:
        return None
    row_mu_N, row_pi_N = sides[0].row_N[at_mu_N], sides[1].row_N[at_pi_N]
    legal_N = np.maximum(sides[0].of("logprob")[at_mu_N], sides[1].of("logprob")[at_pi_N]) < np.inf  # NaN is not
    both_M = np.flatnonzero(legal_N & (states.mu.find(row_mu_N) >= 0) & (states.pi.find(row_pi_N) >= 0))
    most = max(1, min(_MOST_ROWS, _MOST_BYTES // (8 * states.width)))
    chosen_M = both_M[:: max(1, math.ceil(len(both_M) / most))]
    pieces = list(states.pieces(row_mu_N[chosen_M], row_pi_N[chosen_M], _MOST_BYTES))
    if not pieces:
        return None
    return FullRows(
        chosen_M[np.concatenate([index for index, _, _ in pieces])],
        np.concatenate([logp_MV for _, logp_MV, _ in pieces]),
        np.concatenate([logp_MV for _, _, logp_MV in pieces]),
    )
