"""Some responses of a log, chosen by a hash of their ids, for the checks that look at single responses.

Which ones they are depends on the ids alone, so every split and order of a log chooses the same. A log of no more
than `RESPONSES` is examined whole, the first `WINDOW` tokens of each response.

Shapes: S responses of a block, C chosen ones, W tokens of a window.
"""

from __future__ import annotations

import numpy as np

from ...measures.padding import padding_tokens
from ...measures.prompt_hash import labels_of_ids
from ...measures.sampled import LOG_TOLERANCE
from ..block import UNKNOWN, LogBlock
from .examined import COUNTS, MASKED, SAME, ExaminedResponses

RESPONSES = 2048
WINDOW = 128

_ROW = np.dtype(
    [
        ("key", np.uint64),
        ("sequence_id", np.int64),
        ("cluster", np.int64),
        ("step", np.int64),
        ("length", np.int64),
        ("last", np.float64),
        ("padding", np.int64),
        ("mu", np.float32, WINDOW),
        ("pi", np.float32, WINDOW),
        ("entropy", np.float32, WINDOW),
        ("flags", np.uint8, WINDOW),
    ]
)


class ResponseSample:
    """Keeps to `LogStatistic`."""

    def __init__(self) -> None:
        self.responses = 0
        """How many the log has."""
        self._pending: list[np.ndarray] = []
        self._limit: np.uint64 | None = None
        """No response with a larger key is among the chosen ones."""

    def add(self, block: LogBlock) -> None:
        self.responses += len(block.sequence_id_S)
        key_S = labels_of_ids(block.sequence_id_S).view(np.uint64)
        chosen_C = np.arange(len(key_S)) if self._limit is None else np.flatnonzero(key_S < self._limit)
        if len(chosen_C) > RESPONSES:
            chosen_C = chosen_C[np.argpartition(key_S[chosen_C], RESPONSES)[:RESPONSES]]
        if len(chosen_C):
            rows_C = _windows(block, chosen_C)
            rows_C["key"] = key_S[chosen_C]
            self._take(rows_C)

    def merge(self, other: ResponseSample) -> None:
        self.responses += other.responses
        for rows in other._pending:
            self._take(rows)

    def __getstate__(self) -> dict[str, object]:
        self._compact()
        return self.__dict__

    def examined(self) -> ExaminedResponses:
        """The chosen responses, in rising order of their keys."""
        self._compact()
        rows = self._pending[0] if self._pending else np.zeros(0, dtype=_ROW)
        return ExaminedResponses(
            of=self.responses,
            sequence_id_C=rows["sequence_id"],
            cluster_C=rows["cluster"],
            step_C=rows["step"],
            length_C=rows["length"],
            last_C=rows["last"],
            padding_C=rows["padding"],
            scored_mu_CW=rows["mu"].astype(np.float64),
            scored_pi_CW=rows["pi"].astype(np.float64),
            entropy_CW=rows["entropy"],
            flags_CW=rows["flags"],
        )

    def _take(self, rows: np.ndarray) -> None:
        self._pending.append(rows)
        if sum(map(len, self._pending)) > 2 * RESPONSES:  # not at every block: it copies all windows
            self._compact()

    def _compact(self) -> None:
        if not self._pending:
            return
        key = np.concatenate([rows["key"] for rows in self._pending])
        order = np.argsort(key, kind="stable")[:RESPONSES]
        if len(self._pending) > 1 or len(order) < len(key) or (np.diff(order) < 0).any():
            self._pending = [np.concatenate(self._pending)[order]]
        if len(order) == RESPONSES:
            self._limit = key[order[-1]]


def _windows(block: LogBlock, chosen_C: np.ndarray) -> np.ndarray:
    """The responses from their first token that counts on."""
    rows = np.zeros(len(chosen_C), dtype=_ROW)
    mu_R, pi_R = block.logp_R["behavior"], block.logp_R["reference"]
    end_C = np.cumsum(block.recorded_S)[chosen_C]
    first_C, last_C = block.start_S[chosen_C], block.offsets_S1[1:][chosen_C] - 1
    if not block.all_count:
        counted_N = np.flatnonzero(block.counts_R)
        first_C, last_C = counted_N[first_C], counted_N[last_C]
    width = int(min(WINDOW, (end_C - first_C).max()))
    at_CW = first_C[:, None] + np.arange(width)
    there_CW = at_CW < end_C[:, None]
    np.minimum(at_CW, len(mu_R) - 1, out=at_CW)
    mu_CW, pi_CW = mu_R[at_CW], pi_R[at_CW]
    with np.errstate(invalid="ignore"):
        legal_CW = there_CW & (mu_CW <= LOG_TOLERANCE) & (pi_CW <= LOG_TOLERANCE)
    legal_CW &= np.isfinite(mu_CW) & np.isfinite(pi_CW)
    flags_CW = rows["flags"][:, :width]
    if block.all_count:
        flags_CW[legal_CW] = COUNTS
    else:
        flags_CW[legal_CW & block.counts_R[at_CW]] = COUNTS
        flags_CW[legal_CW & ~block.mask_R[at_CW]] = MASKED
    flags_CW[legal_CW & (mu_CW == pi_CW)] |= SAME
    rows["mu"][:, :width], rows["pi"][:, :width] = (np.where(legal_CW, logp_CW, 0.0) for logp_CW in (mu_CW, pi_CW))
    rows["entropy"] = np.nan
    if "entropy" in block.by_token:
        rows["entropy"][:, :width] = block.by_token["entropy"][at_CW]
    rows["cluster"] = block.cluster_S[chosen_C]
    rows["sequence_id"], rows["length"] = block.sequence_id_S[chosen_C], block.length_S[chosen_C]
    rows["step"] = block.by_row["step"][chosen_C] if "step" in block.by_row else UNKNOWN
    rows["last"] = np.abs(pi_R[last_C] - mu_R[last_C])
    rows["padding"] = _padding(block, chosen_C)
    return rows


def _padding(block: LogBlock, chosen_C: np.ndarray) -> np.ndarray:
    """How many tokens at the ends of each chosen response look like padding; 0 for a log without token ids."""
    token_id_N, start_C = block.token_id_N, block.start_S[chosen_C]
    if len(token_id_N) and token_id_N.max() < 0:
        return np.zeros(len(chosen_C), dtype=np.int64)
    end_C = start_C + block.length_S[chosen_C]
    return padding_tokens(block.logp_mu_N, block.logp_pi_N, token_id_N, start_C, end_C)
