"""What the rows of one trace say twice or more, held against each other, and counted.

The log-prob of a sampled token is in `logprob`, and again in the top-k list and in the whole distribution of its
state. Total variation is of the latter, most other figures are of the first.

Shapes: N rows that are compared, M of them at which something can be said, K ids of the longest list, F all list
entries end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..measures.cells import MASS_TOLERANCE
from ..measures.rounding import storage_error
from ..measures.sampled import LOG_TOLERANCE
from ..traces.columns import flat, listed_at, pad, repeats
from ..traces.reader import Trace
from ..traces.schema import DISTRIBUTIONS, TOKENS
from .full_states import FullSide

if TYPE_CHECKING:
    import pyarrow as pa

_COMPUTED_APART = 1e-4
"""So far apart are two float32 log-softmaxes of the same logits at 150k ids, where one of them adds up one value
after another. Dividing the logits by a temperature below 1 magnifies it."""

_NO_MASS = -700.0
"""Below it a probability is as good as 0: engines mask with -inf, -9999 or the lowest number of a float type."""

_ZERO = 1e-9
"""No float32 log-softmax tells a log-prob that near to 0 from 0."""


@dataclass
class _Tally:
    """How many rows break one law, of how many that it holds for; the worst of them, in words."""

    rows: int = 0
    of_rows: int = 0
    size: float = -np.inf
    worst: str = ""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a tokens.parquet that are compared, and their numbers in it."""

    batch: pa.RecordBatch
    row_N: np.ndarray

    def __len__(self) -> int:
        return len(self.row_N)

    def column(self, name: str) -> np.ndarray:
        return self.batch[name].to_numpy(zero_copy_only=False)

    def place(self, at: int) -> str:
        sequence_id, position = self.batch["sequence_id"][at], self.batch["position"][at]
        return f"row {self.row_N[at]} (position {position} of sequence {sequence_id})"


@dataclass
class SideFigures:
    """The laws that the rows of `trace` must keep to, and how many rows do not.

    `k` is the length of the lists that the comparison relies on, None where it relies on those of the other side.
    `kth_bounds`: it also takes the k-th listed log-prob as a bound on every id that is not listed.
    """

    trace: Trace
    k: int | None
    kth_bounds: bool
    rows: int = 0
    _backed: int = 0  # rows whose log-prob was found once more
    _lowest: float = 0.0
    _tallies: dict[str, _Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._full = FullSide(self.trace) if self.trace.manifest.counts.full_states else None
        self._apart = _COMPUTED_APART / min(1.0, self.trace.manifest.temperature or 1.0)

    @property
    def found(self) -> bool:
        return any(tally.rows for tally in self._tallies.values())

    @property
    def is_certain(self) -> bool:
        """Whether every token has the log-prob 0, and nothing else in the trace says so.

        A sampler that may leave one id alone gives it 0.
        """
        sampling = None if self.trace.manifest.policy == "raw" else self.trace.manifest.sampling
        meant = sampling is not None and (sampling.truncates or sampling.temperature == 0)
        return self.rows > 0 and self._lowest >= -_ZERO and not self._backed and not meant

    def sentences(self) -> Iterator[str]:
        """One for each law that is broken: the file, the column, how many rows, the worst of them."""
        for law, tally in self._tallies.items():
            if tally.rows:
                of = f"{tally.rows:,} of {tally.of_rows:,} rows"
                yield f"{self.trace.path / TOKENS}, {law}, at {of}; worst at {tally.worst}."

    def add(self, rows: Rows, *, known_ids: bool, weigh: bool) -> None:
        """Take in some rows, and their lists where the batch has them: `known_ids` says that the ids of these have
        been looked at on the other side, `weigh` that nobody else adds up their mass."""
        logp_N, token_N = rows.column("logprob"), rows.column("token_id")
        self.rows += len(rows)
        self._lowest = min(self._lowest, float(logp_N.min()))
        if "topk_ids" in rows.batch.schema.names:
            self._add_lists(rows, known_ids, weigh)
        if "tail_overlap" in rows.batch.schema.names:
            self._add_overlaps(rows)
        if self._full is not None:
            at_N = self._full.find(rows.row_N)
            at_M = np.flatnonzero((at_N >= 0) & (token_N < self._full.width))
            entry_M = self._full.entries(at_N[at_M], token_N[at_M])
            self._compare(DISTRIBUTIONS, rows, logp_N, at_M, entry_M)

    def _add_lists(self, rows: Rows, known_ids: bool, weigh: bool) -> None:
        logp_N, token_N = rows.column("logprob"), rows.column("token_id")
        id_F, k_N = flat(rows.batch["topk_ids"])
        logp_F, _ = flat(rows.batch["topk_logprobs"])
        id_NK, logp_NK = pad(id_F, k_N, fill=-1), pad(logp_F, k_N, fill=np.nan)
        if not known_ids:
            self._add_ids(rows, id_F, id_NK, k_N)
        listed_N = listed_at(id_NK, token_N)
        at_M = np.flatnonzero(listed_N >= 0)
        self._compare("topk_logprobs", rows, logp_N, at_M, logp_NK[at_M, listed_N[at_M]])
        if self.k is not None:
            self._add_order(rows, logp_N, (id_NK, logp_NK), k_N, listed_N, self.k)
        if weigh:
            self._add_mass(rows, logp_F, k_N)

    def _add_ids(self, rows: Rows, id_F: np.ndarray, id_NK: np.ndarray, k_N: np.ndarray) -> None:
        empty_N, twice_N = k_N == 0, repeats(id_NK)
        self._tally("column topk_ids: the list is empty", rows, empty_N, empty_N, lambda at: "no id")
        words = lambda at: f"{id_NK[at].tolist()}"  # noqa: E731
        self._tally("column topk_ids: an id is listed twice", rows, twice_N, twice_N, words)
        size = self.trace.vocabulary_size
        end = 2**31 if size is None else size
        if not len(id_F) or (id_F.min() >= 0 and id_F.max() < end):
            return
        bad_F = (id_F < 0) | (id_F >= end)
        bad_N = np.bincount(np.repeat(np.arange(len(k_N)), k_N), weights=bad_F, minlength=len(k_N))
        end_N = np.cumsum(k_N)
        known = "" if size is None else f", of a vocabulary of {size}"
        law = f"column topk_ids: an id that no token has{known}"
        at_row = lambda at: slice(end_N[at] - k_N[at], end_N[at])  # noqa: E731
        self._tally(law, rows, bad_N > 0, bad_N, lambda at: f"{id_F[at_row(at)][bad_F[at_row(at)]][0]}")

    def _add_order(
        self,
        rows: Rows,
        logp_N: np.ndarray,
        lists: tuple[np.ndarray, np.ndarray],
        k_N: np.ndarray,
        listed_N: np.ndarray,
        k: int,
    ) -> None:
        """Lists have k ids at the most and the sampled token behind them, and no id that is likelier than they."""
        logp_NK = lists[1]
        long_N = (k_N > k + 1) | ((k_N == k + 1) & (listed_N != k))
        self._tally(
            f"column topk_ids: longer than the manifest's k of {k}", rows, long_N, k_N, lambda at: f"{k_N[at]} ids"
        )
        if not 0 < k <= logp_NK.shape[1]:
            return
        kth_N = logp_NK[:, k - 1]
        excess_N = np.where((listed_N < 0) | (listed_N >= k), logp_N - kth_N, -np.inf)
        excess_N -= self._apart + storage_error(logp_N) + storage_error(kth_N)
        self._tally(
            "column topk_ids: the sampled token is likelier than the last listed and not among them",
            rows,
            excess_N > 0,
            excess_N,
            lambda at: f"{logp_N[at]:.6g} and {kth_N[at]:.6g}",
        )
        if self.kth_bounds:
            lowest_N = np.fmin.reduce(logp_NK[:, :k], axis=1)
            self._tally(
                "column topk_logprobs: an id is less likely than one behind it",
                rows,
                kth_N > lowest_N,
                kth_N - lowest_N,
                lambda at: f"{lowest_N[at]:.6g} before {kth_N[at]:.6g}",
            )

    def _add_mass(self, rows: Rows, logp_F: np.ndarray, k_N: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            p_F = np.nan_to_num(np.exp(logp_F), nan=0.0)
        mass_N = np.bincount(np.repeat(np.arange(len(k_N)), k_N), weights=p_F, minlength=len(k_N))
        self._tally(
            "column topk_logprobs: the probabilities sum to more than one",
            rows,
            mass_N > 1 + MASS_TOLERANCE,
            mass_N,
            lambda at: f"{mass_N[at]:.6g}",
        )

    def _add_overlaps(self, rows: Rows) -> None:
        overlap_N = rows.column("tail_overlap")
        outside_N = np.maximum(-overlap_N, overlap_N - 1 - LOG_TOLERANCE)
        self._tally(
            "column tail_overlap: it is a probability, from 0 to 1",
            rows,
            outside_N > 0,
            outside_N,
            lambda at: f"{overlap_N[at]:.6g}",
        )

    def _compare(self, other: str, rows: Rows, logp_N: np.ndarray, at_M: np.ndarray, entry_M: np.ndarray) -> None:
        """The log-probs of these rows beside what `other` has of the same tokens; NaN is not known.

        What a column lost when it was stored in half precision is no contradiction.
        """
        logp_M = logp_N[at_M]
        self._backed += len(at_M)
        with np.errstate(invalid="ignore"):  # -inf on both sides
            apart_M = np.abs(logp_M - entry_M)
        allowed_M = self._apart + storage_error(logp_M) + storage_error(entry_M)
        differs_M = (apart_M > allowed_M) & ~((logp_M < _NO_MASS) & (entry_M < _NO_MASS))
        law = f"column logprob: it is not what {other} has of the token"
        self._tally(law, rows, differs_M, apart_M, lambda m: f"{logp_M[m]:.6g} and {entry_M[m]:.6g}", at_M)

    def _tally(
        self,
        law: str,
        rows: Rows,
        bad_M: np.ndarray,
        size_M: np.ndarray,
        words: Callable[[int], str],
        at_M: np.ndarray | None = None,
    ) -> None:
        """Add rows that keep a law or break it: all, or those numbered `at_M`; the largest size is the worst."""
        tally = self._tallies.setdefault(law, _Tally())
        tally.of_rows += len(bad_M)
        if not bad_M.any():
            return
        tally.rows += int(np.count_nonzero(bad_M))
        worst = int(np.where(bad_M, size_M, -np.inf).argmax())
        if size_M[worst] > tally.size or not tally.worst:
            tally.size = float(size_M[worst])
            tally.worst = f"{rows.place(worst if at_M is None else int(at_M[worst]))}: {words(worst)}"
