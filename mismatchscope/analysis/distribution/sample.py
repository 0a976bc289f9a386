"""Some responses of a log, chosen by a hash of their ids, with what the checks of single responses need of them.

Which ones they are depends on the ids alone, so every split and order of a log chooses the same. A log of no more
than `RESPONSES` is examined whole, the first `WINDOW` tokens of each response.

Shapes: S responses of a block, C chosen ones, W tokens of a window, H tokens of a head, K shifts.
"""

from __future__ import annotations

import numpy as np

from ...measures.prompt_hash import labels_of_ids
from ...measures.shift_votes import SHIFTS, ShiftVotes, shift_votes
from ..block import UNKNOWN, LogBlock

RESPONSES = 2048
WINDOW = 128
HEAD = 48
FIRST = 4
"""How many tokens the start of a response is."""

_VOTES = (len(SHIFTS), 2)
ROW = np.dtype(
    [
        ("key", np.uint64),
        ("sequence_id", np.int64),
        ("cluster", np.int64),
        ("step", np.int64),
        ("length", np.int64),  # tokens that count, of the whole response
        ("tokens", np.int32),  # of them in the window
        ("better", np.int16, _VOTES),
        ("worse", np.int16, _VOTES),
        ("at_zero", np.float64, _VOTES),
        ("at_shift", np.float64, _VOTES),
        ("correlation", np.float64),
        ("distance", np.float64),  # mean |Δ log p| in the window
        ("surprise", np.float64),  # mean −log μ there
        ("agreeing", np.float64),  # share of the tokens uncertain to either whose smaller −log p is half the larger
        ("first", np.float64),  # mean |Δ log p| of the first tokens
        ("rest", np.float64),  # and of the others in the window
        ("last", np.float64),  # |Δ log p| of the very last token
        ("uncertain", np.int32),  # tokens of the window with log π < −0.01
        ("equal", np.int32),  # of these with bit-identical log-probs
        ("mu", np.float32, HEAD),
        ("pi", np.float32, HEAD),
    ]
)
_UNCERTAIN = -0.01
_CLEARLY_UNCERTAIN = 0.1


class ResponseSample:
    """Keeps to `LogStatistic`; `rows` has the chosen responses in rising order of their keys."""

    def __init__(self) -> None:
        self.responses = 0
        """How many the log has."""
        self._rows = np.zeros(0, dtype=ROW)

    @property
    def rows(self) -> np.ndarray:
        return self._rows

    @property
    def examined_all(self) -> bool:
        return self.responses == len(self._rows)

    def add(self, block: LogBlock) -> None:
        self.responses += len(block.sequence_id_S)
        key_S = labels_of_ids(block.sequence_id_S).view(np.uint64)
        if len(self._rows) == RESPONSES:
            chosen_C = np.flatnonzero(key_S < self._rows["key"][-1])
        else:
            chosen_C = np.arange(len(key_S))
        if len(chosen_C) > RESPONSES:
            chosen_C = chosen_C[np.argpartition(key_S[chosen_C], RESPONSES)[:RESPONSES]]
        if len(chosen_C):
            rows_C = _described(block, chosen_C)
            rows_C["key"] = key_S[chosen_C]
            self._take(rows_C)

    def merge(self, other: ResponseSample) -> None:
        self.responses += other.responses
        self._take(other._rows)

    def _take(self, rows: np.ndarray) -> None:
        joined = np.concatenate([self._rows, rows])
        self._rows = joined[np.argsort(joined["key"], kind="stable")[:RESPONSES]]

    @property
    def votes(self) -> ShiftVotes:
        rows = self._rows
        return ShiftVotes(rows["better"], rows["worse"], rows["at_zero"], rows["at_shift"])


def _described(block: LogBlock, chosen_C: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(chosen_C), dtype=ROW)
    mu_CW, pi_CW, last_C = _windows(block, chosen_C)
    distance_CW = np.abs(pi_CW - mu_CW)
    known_CW = np.isfinite(distance_CW)
    tokens_C = np.count_nonzero(known_CW, axis=1)
    votes = shift_votes(mu_CW, pi_CW)
    rows["sequence_id"], rows["cluster"] = block.sequence_id_S[chosen_C], block.cluster_S[chosen_C]
    rows["step"] = block.by_row["step"][chosen_C] if "step" in block.by_row else UNKNOWN
    rows["length"], rows["tokens"] = block.length_S[chosen_C], tokens_C
    rows["better"], rows["worse"] = votes.better_SKV, votes.worse_SKV
    rows["at_zero"], rows["at_shift"] = votes.at_zero_SKV, votes.at_shift_SKV
    rows["correlation"] = _correlation(mu_CW, pi_CW, known_CW)
    first_CW = known_CW & (np.cumsum(known_CW, axis=1) <= FIRST)
    rows["distance"] = _mean(distance_CW, known_CW)
    rows["surprise"] = -_mean(mu_CW, known_CW)
    rows["first"], rows["rest"] = _mean(distance_CW, first_CW), _mean(distance_CW, known_CW & ~first_CW)
    larger_CW = np.maximum(-mu_CW, -pi_CW)
    rows["agreeing"] = _mean(
        (distance_CW < larger_CW / 2).astype(np.float64), known_CW & (larger_CW > _CLEARLY_UNCERTAIN)
    )
    rows["last"] = last_C
    uncertain_CW = known_CW & (pi_CW < _UNCERTAIN)
    rows["uncertain"] = np.count_nonzero(uncertain_CW, axis=1)
    rows["equal"] = np.count_nonzero(uncertain_CW & (distance_CW == 0), axis=1)
    for name, logp_CW in (("mu", mu_CW), ("pi", pi_CW)):
        rows[name] = np.nan
        rows[name][:, : logp_CW.shape[1]] = logp_CW[:, :HEAD]
    return rows


def _windows(block: LogBlock, chosen_C: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both columns from the first token that counts on [C, W], NaN at tokens that do not count, are impossible
    or are not there; and |Δ log p| of the last token that counts [C]."""
    end_C = np.cumsum(block.recorded_S)[chosen_C]
    first_C, last_C = block.start_S[chosen_C], block.offsets_S1[1:][chosen_C] - 1
    if not block.all_count:
        counted_N = np.flatnonzero(block.counts_R)
        first_C, last_C = counted_N[first_C], counted_N[last_C]
    width = int(min(WINDOW, (end_C - first_C).max()))
    at_CW = first_C[:, None] + np.arange(width)
    there_CW = at_CW < end_C[:, None]
    at_CW = np.where(there_CW, at_CW, 0)
    if not block.all_count:
        there_CW &= block.counts_R[at_CW]
    mu_R, pi_R = block.logp_R["behavior"], block.logp_R["reference"]
    there_CW &= np.isfinite(pi_R[at_CW])
    mu_CW, pi_CW = (np.where(there_CW, logp_R[at_CW], np.nan) for logp_R in (mu_R, pi_R))
    return mu_CW, pi_CW, np.abs(pi_R[last_C] - mu_R[last_C])


def _mean(value_CW: np.ndarray, of_CW: np.ndarray) -> np.ndarray:
    """The mean of some values of each row, NaN where it has none."""
    count_C = np.count_nonzero(of_CW, axis=1)
    sum_C = np.where(of_CW, value_CW, 0.0).sum(axis=1)
    return np.where(count_C > 0, sum_C / np.maximum(count_C, 1), np.nan)


def _correlation(mu_CW: np.ndarray, pi_CW: np.ndarray, known_CW: np.ndarray) -> np.ndarray:
    """Pearson's of each row; NaN where a column is constant."""
    mu_CW = np.where(known_CW, mu_CW - _mean(mu_CW, known_CW)[:, None], 0.0)
    pi_CW = np.where(known_CW, pi_CW - _mean(pi_CW, known_CW)[:, None], 0.0)
    scale_C = np.sqrt((mu_CW**2).sum(axis=1) * (pi_CW**2).sum(axis=1))
    return np.where(scale_C > 0, (mu_CW * pi_CW).sum(axis=1) / np.where(scale_C > 0, scale_C, 1.0), np.nan)
