"""Rows of a log -> blocks: lists become arrays, and what no policy can have is left out and counted.

Shapes: S responses, R their recorded tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..logs.columns import BY_ROW, BY_TOKEN, LOGPROBS
from ..logs.source import LogBatch
from ..measures.distance_histogram import DistanceHistogram, scored_distances
from ..measures.sampled import LOG_TOLERANCE
from .block import UNKNOWN, LogBlock

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_TOKENS = 2**19
NO_TOKEN_COUNTS = "no token counts"
FILE_BITS = 40
"""Of a response's id those within its file: 10¹² responses."""
_REQUIRED = (LOGPROBS["behavior"], LOGPROBS["reference"])
_VERSIONS = {"policy_version", "trainer_version", "versions"}
"""Negative where trainers know of none."""
_FILLERS: dict[str, object] = {"int": UNKNOWN, "float": np.nan, "double": np.nan, "bool": True}


@dataclass
class Rejected:
    """What is in no figure, by reason: whole responses, and tokens of others. `masked` tokens are no loss."""

    responses: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    probabilities: int = 0
    """Tokens with a value above 0 and up to 1, as probabilities have that somebody took for log-probs."""
    masked: int = 0
    dropped: DistanceHistogram = field(default_factory=DistanceHistogram)
    """Mean |Δ log p| of each response whose mask is false throughout, where both policies scored it."""

    @property
    def lost_responses(self) -> int:
        """Without those that are masked throughout, which are no loss."""
        return self.responses.total() - self.responses[NO_TOKEN_COUNTS]

    def merge(self, other: Rejected) -> None:
        self.responses.update(other.responses)
        self.tokens.update(other.tokens)
        self.probabilities += other.probabilities
        self.masked += other.masked
        self.dropped.merge(other.dropped)


def blocks_of(batch: LogBatch, rejected: Rejected, file: int = 0) -> Iterator[LogBlock]:
    """Blocks of at most `BLOCK_TOKENS` tokens, unless one response is longer; what is left out goes to `rejected`.

    `file` is the number of the file among those of the log: with the row's own id it makes an id that no other file
    has.
    """
    import pyarrow.compute as pc

    rejected.responses.update(batch.rejected)
    rows = _usable(batch.rows, rejected.responses)
    if not rows.num_rows:
        return
    length_S = pc.list_value_length(rows.column(_REQUIRED[0])).to_numpy(zero_copy_only=False).astype(np.int64)
    for start, stop in _slices(length_S):
        block = _block(rows.slice(start, stop - start), batch, length_S[start:stop], file, rejected)
        if block is not None:
            yield block


def _usable(rows: pa.RecordBatch, rejected: Counter[str]) -> pa.RecordBatch:
    """The rows that have tokens with the log-probs of both policies, and lists of one length."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = set(rows.schema.names)
    for name in _REQUIRED:
        if name not in names:
            rejected.update({f"no {name}": rows.num_rows} if rows.num_rows else {})
            return rows.slice(0, 0)
    length_S = pc.fill_null(pc.list_value_length(rows.column(_REQUIRED[0])), 0)
    reasons = {f"no {name}": pc.is_null(rows.column(name)) for name in _REQUIRED}
    reasons["no response tokens"] = pc.equal(length_S, pa.scalar(0, length_S.type))
    for name in BY_TOKEN:
        if name in names and name != _REQUIRED[0]:
            other_S = pc.list_value_length(rows.column(name))
            reasons[f"{name} has another length"] = pc.fill_null(pc.not_equal(other_S, length_S), False)
    usable_S = np.ones(rows.num_rows, dtype=bool)
    for reason, fails in reasons.items():
        fails_S = usable_S & fails.to_numpy(zero_copy_only=False)
        if fails_S.any():
            rejected[reason] += int(fails_S.sum())
            usable_S &= ~fails_S
    return rows if usable_S.all() else rows.filter(usable_S)


def _slices(length_S: np.ndarray) -> Iterator[tuple[int, int]]:
    end_S = np.cumsum(length_S)
    start = 0
    while start < len(length_S):
        before = int(end_S[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(end_S, before + BLOCK_TOKENS, side="right")))
        yield start, stop
        start = stop


def _block(
    rows: pa.RecordBatch, batch: LogBatch, length_S: np.ndarray, file: int, rejected: Rejected
) -> LogBlock | None:
    names = set(rows.schema.names)
    logp_R = {
        role: _by_token(rows.column(name), length_S, np.nan) for role, name in LOGPROBS.items() if name in names
    }
    mask_R = (
        _by_token(rows.column("mask"), length_S, True) if "mask" in names else np.ones(length_S.sum(), dtype=bool)
    )
    illegal = _illegal(logp_R)
    legal_R = ~np.logical_or.reduce(list(illegal.values()))
    for reason, bad_R in illegal.items():
        if bad_R.any() and (count := int((bad_R & mask_R).sum())):
            rejected.tokens[reason] += count
            if reason.endswith("above 0"):
                rejected.probabilities += _count_probabilities(logp_R, bad_R & mask_R)
    rejected.masked += len(mask_R) - int(np.count_nonzero(mask_R))
    counts_R = mask_R & legal_R
    start_S = np.cumsum(length_S) - length_S
    kept_S = np.logical_or.reduceat(counts_R, start_S)
    if not kept_S.all():
        rejected.responses[NO_TOKEN_COUNTS] += int((~kept_S).sum())
        _add_dropped(rejected.dropped, logp_R, mask_R, start_S)
        if not kept_S.any():
            return None
        kept_R = np.repeat(kept_S, length_S)
        rows = rows.filter(kept_S)
        logp_R = {role: value_R[kept_R] for role, value_R in logp_R.items()}
        mask_R, counts_R, length_S = mask_R[kept_R], counts_R[kept_R], length_S[kept_S]
        start_S = np.cumsum(length_S) - length_S
    by_row = {name: _by_row(rows.column(name), kind) for name, (kind, _) in BY_ROW.items() if name in names}
    by_token = {
        name: _by_token(rows.column(name), length_S, _FILLERS[kind.rstrip("0123456789")])
        for name, (kind, _) in BY_TOKEN.items()
        if name in names and name not in ("mask", *LOGPROBS.values())
    }
    for columns in (by_row, by_token):
        for name in _VERSIONS.intersection(columns):
            columns[name] = np.where(columns[name] < 0, UNKNOWN, columns[name])
    sequence_id_S = _identities(by_row.get("sequence_id"), len(length_S), file)
    return LogBlock(
        sequence_id_S=sequence_id_S,
        cluster_S=_clusters(by_row.get("prompt"), sequence_id_S),
        recorded_S=length_S,
        whole_S=np.logical_and.reduceat(counts_R | ~mask_R, start_S),
        counts_R=counts_R,
        mask_R=mask_R,
        token_id_R=by_token.pop("token_ids", np.full(len(mask_R), -1, dtype=np.int64)),
        logp_R=logp_R,
        by_row=by_row,
        by_token=by_token,
        batch=LogBatch(rows, batch.part, remarks=batch.remarks),
    )


def _add_dropped(
    dropped: DistanceHistogram, logp_R: dict[str, np.ndarray], mask_R: np.ndarray, start_S: np.ndarray
) -> None:
    distance_R, scored_R = scored_distances(logp_R["behavior"], logp_R["reference"])
    masked_S = ~np.logical_or.reduceat(mask_R, start_S)
    tokens_S = np.add.reduceat(scored_R.astype(np.int64), start_S)
    sum_S = np.add.reduceat(np.where(scored_R, distance_R, 0.0), start_S)
    masked_S &= tokens_S > 0
    dropped.add(sum_S[masked_S] / tokens_S[masked_S])


def _count_probabilities(logp_R: dict[str, np.ndarray], of_R: np.ndarray) -> int:
    """How many of these tokens have only values up to 1 above 0, on either side."""
    largest_R = np.fmax(logp_R["behavior"][of_R], logp_R["reference"][of_R])
    return int(np.count_nonzero(largest_R <= 1))


def _illegal(logp_R: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which tokens no policy can have, by reason; a token that only π_θ lacks keeps its place in the other pair."""
    found = {}
    for role, side in (("behavior", "μ"), ("reference", "π_old")):
        with np.errstate(invalid="ignore"):
            found[f"log-prob of {side} is not a number"] = np.isnan(logp_R[role])
            found[f"log-prob of {side} is above 0"] = logp_R[role] > LOG_TOLERANCE
    found["μ gives its own token no probability"] = np.isneginf(logp_R["behavior"])
    return found


def _by_token(column: pa.Array[Any], length_S: np.ndarray, filler: object) -> np.ndarray:
    """The values of a list column end to end, [R]; `filler` for rows without a list and where a value is null."""
    import pyarrow as pa
    import pyarrow.types as types

    values = cast("pa.ListArray[Any]", column).flatten()
    if types.is_boolean(values.type):
        flat = values.fill_null(True).to_numpy(zero_copy_only=False)
    elif types.is_integer(values.type):
        flat = values.cast(pa.int64()).fill_null(UNKNOWN).to_numpy(zero_copy_only=False)
    else:
        flat = values.cast(pa.float64()).to_numpy(zero_copy_only=False)  # null becomes NaN
    if len(flat) == length_S.sum():
        return flat
    present_R = np.repeat(column.is_valid().to_numpy(zero_copy_only=False), length_S)
    spread = np.full(len(present_R), filler, dtype=flat.dtype)
    spread[present_R] = flat
    return spread


def _by_row(column: pa.Array, kind: str) -> np.ndarray:
    import pyarrow as pa

    if kind == "string":
        return np.array([value or "" for value in column.to_pylist()], dtype=object)
    if kind == "double":
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if kind == "bool":
        return column.fill_null(False).to_numpy(zero_copy_only=False)
    return column.cast(pa.int64()).fill_null(UNKNOWN).to_numpy(zero_copy_only=False)


def _identities(recorded_S: np.ndarray | None, rows: int, file: int) -> np.ndarray:
    """Ids that no other file has; a log of one file keeps its own."""
    id_S = np.arange(rows, dtype=np.int64) if recorded_S is None else recorded_S
    return (np.int64(file) << np.int64(FILE_BITS)) + id_S


def _clusters(prompt_S: np.ndarray | None, sequence_id_S: np.ndarray) -> np.ndarray:
    """Labels of the prompts; a response whose prompt is unknown stands alone."""
    alone_S = ~sequence_id_S  # negative, so that no prompt's number is among them
    return alone_S if prompt_S is None else np.where(prompt_S == UNKNOWN, alone_S, prompt_S)
