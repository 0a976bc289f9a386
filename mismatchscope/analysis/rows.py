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
BLOCK_RESPONSES = 2**12
"""Tables by response and bin are larger than the tokens of short responses."""
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
    """Blocks of at most `BLOCK_TOKENS` tokens, unless one response is longer, and at most `BLOCK_RESPONSES`
    responses; what is left out goes to `rejected`.

    `file` is the number of the file among those of the log: with the row's own id it makes an id that no other file
    has.
    """
    rejected.responses.update(batch.rejected)
    rows = _usable(batch.rows, rejected.responses)
    if not rows.num_rows:
        return
    length_S = _lengths(rows.column(_REQUIRED[0]))
    for start, stop in _slices(length_S):
        block = _block(rows.slice(start, stop - start), batch, length_S[start:stop], file, rejected)
        if block is not None:
            yield block


def _usable(rows: pa.RecordBatch, rejected: Counter[str]) -> pa.RecordBatch:
    """The rows that have tokens with the log-probs of both policies, and lists of one length."""
    names = set(rows.schema.names)
    for name in _REQUIRED:
        if name not in names:
            rejected.update({f"no {name}": rows.num_rows} if rows.num_rows else {})
            return rows.slice(0, 0)
    length_S = _lengths(rows.column(_REQUIRED[0]))
    reasons = {f"no {name}": ~_present(rows.column(name)) for name in _REQUIRED}
    reasons["no response tokens"] = length_S == 0
    for name in BY_TOKEN:
        if name in names and name != _REQUIRED[0]:
            other_S = _lengths(rows.column(name))
            reasons[f"{name} has another length"] = _present(rows.column(name)) & (other_S != length_S)
    usable_S = np.ones(rows.num_rows, dtype=bool)
    for reason, fails_S in reasons.items():
        fails_S = usable_S & fails_S
        if fails_S.any():
            rejected[reason] += int(fails_S.sum())
            usable_S &= ~fails_S
    return rows if usable_S.all() else rows.filter(usable_S)


def _lengths(lists: pa.Array[Any]) -> np.ndarray:
    """Of each list, 0 of one that is null, int64 [S]."""
    import pyarrow.compute as pc

    length_S = pc.list_value_length(lists)
    if length_S.null_count:
        length_S = length_S.fill_null(0)
    return length_S.to_numpy().astype(np.int64)


def _present(column: pa.Array[Any]) -> np.ndarray:
    """Whether each row has a value, bool [S]."""
    if not column.null_count:
        return np.ones(len(column), dtype=bool)
    return column.is_valid().to_numpy(zero_copy_only=False)


def _slices(length_S: np.ndarray) -> Iterator[tuple[int, int]]:
    end_S = np.cumsum(length_S)
    start = 0
    while start < len(length_S):
        before = int(end_S[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(end_S, before + BLOCK_TOKENS, side="right")))
        stop = min(stop, start + BLOCK_RESPONSES)
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
    legal_R = _legal(logp_R, mask_R, rejected)
    counts_R = mask_R if legal_R is None else mask_R & legal_R
    rejected.masked += len(mask_R) - int(np.count_nonzero(mask_R))
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
            version = columns[name].astype(np.int64)
            columns[name] = np.where(version < 0, UNKNOWN, version)
    sequence_id_S = _identities(by_row.get("sequence_id"), len(length_S), file)
    return LogBlock(
        sequence_id_S=sequence_id_S,
        cluster_S=_clusters(by_row.get("prompt"), sequence_id_S),
        recorded_S=length_S,
        whole_S=~np.logical_or.reduceat(counts_R != mask_R, start_S),
        counts_R=counts_R,
        mask_R=mask_R,
        token_id_R=by_token.pop("token_ids") if "token_ids" in by_token else np.full(len(mask_R), -1),
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


def _legal(logp_R: dict[str, np.ndarray], mask_R: np.ndarray, rejected: Rejected) -> np.ndarray | None:
    """Which tokens policies can have; None where all are. Others that the mask keeps are counted by reason.

    A token that only π_θ lacks keeps its place in the other pair.
    """
    mu_R, pi_R = logp_R["behavior"], logp_R["reference"]
    if mu_R.max() <= LOG_TOLERANCE and pi_R.max() <= LOG_TOLERANCE and mu_R.min() > -np.inf:  # NaN is neither
        return None
    illegal = {}
    for value_R, side in ((mu_R, "μ"), (pi_R, "π_old")):
        with np.errstate(invalid="ignore"):
            illegal[f"log-prob of {side} is not a number"] = np.isnan(value_R)
            illegal[f"log-prob of {side} is above 0"] = value_R > LOG_TOLERANCE
    illegal["μ gives its own token no probability"] = np.isneginf(mu_R)
    for reason, bad_R in illegal.items():
        if count := int(np.count_nonzero(bad_R & mask_R)):
            rejected.tokens[reason] += count
            if reason.endswith("above 0"):
                rejected.probabilities += _count_probabilities(logp_R, bad_R & mask_R)
    return ~np.logical_or.reduce(list(illegal.values()))


def _by_token(column: pa.Array[Any], length_S: np.ndarray, filler: object) -> np.ndarray:
    """The values of a list column end to end, [R]; `filler` for rows without a list and where a value is null."""
    import pyarrow.types as types

    values = cast("pa.ListArray[Any]", column).flatten()
    if types.is_floating(values.type):
        flat = values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)  # null becomes NaN
    elif values.null_count or column.null_count:
        flat = _filled(values, filler)
    else:
        flat = values.to_numpy(zero_copy_only=False)
    if len(flat) == length_S.sum():
        return flat
    spread = np.full(int(length_S.sum()), filler, dtype=flat.dtype)
    spread[np.repeat(_present(column), length_S)] = flat
    return spread


def _by_row(column: pa.Array[Any], kind: str) -> np.ndarray:
    if kind == "string":
        return np.array([value or "" for value in column.to_pylist()], dtype=object)
    if kind == "double":
        return column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return _filled(column, False if kind == "bool" else UNKNOWN)


def _filled(values: pa.Array[Any], filler: object) -> np.ndarray:
    """Booleans, or integers as int64, with `filler` where there is none."""
    import pyarrow as pa
    import pyarrow.types as types

    if not types.is_boolean(values.type):
        values = values.cast(pa.int64())
    if values.null_count:
        values = values.fill_null(filler)
    return values.to_numpy(zero_copy_only=False)


def _identities(recorded_S: np.ndarray | None, rows: int, file: int) -> np.ndarray:
    """Ids that no other file has; a log of one file keeps its own."""
    id_S = np.arange(rows, dtype=np.int64) if recorded_S is None else recorded_S
    return (np.int64(file) << np.int64(FILE_BITS)) + id_S


def _clusters(prompt_S: np.ndarray | None, sequence_id_S: np.ndarray) -> np.ndarray:
    """Labels of the prompts; a response whose prompt is unknown stands alone."""
    alone_S = ~sequence_id_S  # negative, so that no prompt's number is among them
    return alone_S if prompt_S is None else np.where(prompt_S == UNKNOWN, alone_S, prompt_S)
