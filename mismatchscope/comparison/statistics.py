"""Everything a report says of one pair of policies, as sums: filled block by block, merged in any order.

Shapes: N states of a block, S its sequences.
"""

from __future__ import annotations

import numpy as np

from ..measures.accumulators import Clusters, ClusterSums, Covariance, paired_interval
from ..measures.alpha import TotalVariation
from ..measures.corrections import Corrections, RatioBlock
from ..measures.positions import PositionProfile, PositionSums
from ..measures.results import Interval
from ..measures.selected_states import AFTER, BEFORE, LargestStates, SampledPoints, State
from ..measures.sequence_sums import SequenceSums
from ..measures.sketches import QuantileSketch
from .fillers import Fillers
from .states import EXACT, LOWER_BOUNDS, States

# The band outside which the share of ratios is reported: one clipping step of PPO's usual ε.
RATIO_BAND = (0.8, 1.2)

_SAMPLED = (
    "k1",
    "k2",
    "k3",
    "ratio",
    "shortfall",
    "binary_tv",
    "abs_logprob_diff",
    "prob_diff",
    "exp_abs_diff",
)
# The log-odds of nearly certain tokens are all rounding.
_CERTAIN = -1e-3


class PairStatistics:
    """Accumulators of one pair; `truncated` says that μ's sampler cuts ids off, which tilts the log-odds of what is
    kept.

    Each block holds whole sequences, and no sequence is added twice.
    """

    def __init__(self, *, truncated: bool = False) -> None:
        self._truncated = truncated
        self._clusters = Clusters()
        self.sums = {name: ClusterSums() for name in (*_SAMPLED, *EXACT, *LOWER_BOUNDS)}
        self.sketches = {
            name: QuantileSketch()
            for name in ("log_ratio", "k3", "prob_diff", "tv_lower", "tv_upper", *EXACT, *LOWER_BOUNDS)
        }
        self.tv_lower, self.tv_upper = TotalVariation(), TotalVariation()
        self.corrections = Corrections()
        self.probabilities = Covariance()
        self.log_odds = Covariance()
        """Of μ and of π, of their difference: see `_add_log_odds`."""
        self.log_odds_difference = Covariance()
        self.best_tv = PositionProfile()
        self.estimated_tv_by_index, self.upper_tv_by_index = PositionSums(), PositionSums()
        self.largest = LargestStates()
        self.points = SampledPoints()
        self.fillers = Fillers()
        self._sequences: list[SequenceSums] = []
        self.tokens = self.outside_band = self.impossible = 0
        self.topk = False
        self.identical = True

    def add(self, states: States) -> None:
        """Take in the states of some whole sequences."""
        row_S, start_S, sampled = self._clusters.rows(states.cluster_S), states.start_S, states.sampled
        for name in _SAMPLED:
            self._add_sums(name, row_S, states, getattr(sampled, name))
        for name, values_N in (
            ("log_ratio", sampled.log_ratio),
            ("k3", sampled.k3),
            ("prob_diff", sampled.prob_diff),
            ("tv_lower", states.tv_lower_N),
        ):
            self.sketches[name].add(values_N)
        for name, values_N in states.columns.items():
            self._add_sums(name, row_S, states, values_N)
            self.sketches[name].add(values_N if states.all_exact else values_N[~np.isnan(values_N)])
        self.tv_lower.add(row_S, start_S, states.tv_lower_N)
        if states.tv_upper_N is not None:
            self._add_upper(row_S, states, states.tv_upper_N)
        p_mu_N, p_pi_N = np.exp(states.logp_mu_N), np.exp(states.logp_pi_N)
        self.probabilities.add(p_mu_N, p_pi_N)
        self.fillers.add(states)
        self.points.add(states.sequence_id_N, states.position_N, p_mu_N, p_pi_N)
        self._add_log_odds(states)
        tv_N = states.tv_known_N
        self.best_tv.add(states.position_N, tv_N)
        candidates = self.largest.candidates(tv_N, states.sequence_id_N, states.position_N)
        self.largest.add([_state(states, int(row), tv_N) for row in candidates])
        whole = states.only(states.whole_S)
        if len(whole.length_S):
            self._add_responses(whole)
        low, high = RATIO_BAND
        self.tokens += len(tv_N)
        self.outside_band += int(((sampled.ratio < low) | (sampled.ratio > high)).sum())
        self.impossible += int(np.isneginf(states.logp_pi_N).sum())
        self.topk = self.topk or states.topk
        self.identical = self.identical and states.identical

    def _add_responses(self, states: States) -> None:
        """What is said of responses: one that lost a token to rejection has no sum over it."""
        sampled = states.sampled
        self.corrections.add(
            RatioBlock(
                sampled.log_ratio,
                states.offsets_S1,
                tv_T=states.columns["tv"] if states.all_exact else None,
                kl_T=states.columns["kl"] if states.all_exact else None,
                sampled=sampled,
            )
        )
        self._sequences.append(
            SequenceSums.of(
                sampled.log_ratio,
                states.offsets_S1,
                sequence_id_S=states.sequence_id_S,
                prompt_id_S=states.cluster_S,
                kl_T=states.columns.get("kl"),
                tv_T=states.tv_upper_N,
                sampled=sampled,
            )
        )
        index_N = np.arange(len(states.position_N)) - np.repeat(states.start_S, states.length_S)
        self.estimated_tv_by_index.add(sampled.shortfall, index_N, len(states.length_S))
        if states.tv_upper_N is not None and states.all_bounded:
            self.upper_tv_by_index.add(states.tv_upper_N, index_N, len(states.length_S))

    def merge(self, other: PairStatistics) -> None:
        """Take in what another one has seen of other sequences of the same pair."""
        row_C = self._clusters.rows(other._clusters.labels)
        for name, sums in other.sums.items():
            self.sums[name].merge(sums, row_C)
        for name, sketch in other.sketches.items():
            self.sketches[name].merge(sketch)
        self.tv_lower.merge(other.tv_lower, row_C)
        self.tv_upper.merge(other.tv_upper, row_C)
        for name in (
            "corrections",
            "probabilities",
            "log_odds",
            "log_odds_difference",
            "best_tv",
            "estimated_tv_by_index",
            "upper_tv_by_index",
            "largest",
            "points",
            "fillers",
        ):
            getattr(self, name).merge(getattr(other, name))
        self._sequences += other._sequences
        self.tokens += other.tokens
        self.outside_band += other.outside_band
        self.impossible += other.impossible
        self.topk, self.identical = self.topk or other.topk, self.identical and other.identical

    def paired(self, other: PairStatistics, name: str, *, confidence: float) -> Interval:
        """Mean of a figure here less there, of two pairs on the same states."""
        theirs = ClusterSums()
        theirs.merge(other.sums[name], self._clusters.rows(other._clusters.labels))
        return paired_interval(self.sums[name], theirs, confidence=confidence)

    @property
    def sequences(self) -> SequenceSums:
        """Of the responses that are whole, in rising order of their ids."""
        self._sequences = [SequenceSums.joined(self._sequences)]
        return self._sequences[0]

    @property
    def exact_states(self) -> int:
        """How many states were seen whole on both sides."""
        return self.sums["tv"].n

    @property
    def all_exact(self) -> bool:
        return self.exact_states == self.tokens

    @property
    def bounded(self) -> bool:
        """Whether every state's TV is known from both sides."""
        return self.tv_upper.sums.n == self.tokens

    def _add_sums(self, name: str, row_S: np.ndarray, states: States, values_N: np.ndarray) -> None:
        """Sums by sequence; NaN is "not seen"."""
        start_S, count_S = states.start_S, states.length_S
        if np.isnan(values_N.min()):
            seen_N = ~np.isnan(values_N)
            count_S = np.add.reduceat(seen_N.astype(np.int64), start_S)
            sum_S = np.add.reduceat(np.where(seen_N, values_N, 0.0), start_S)
            self.sums[name].add(row_S, sum_S, count_S, values_N[seen_N])
        else:
            self.sums[name].add(row_S, np.add.reduceat(values_N, start_S), count_S, values_N)

    def _add_upper(self, row_S: np.ndarray, states: States, upper_N: np.ndarray) -> None:
        """Upper ends, of the states that have one."""
        length_S = states.length_S
        if not states.all_bounded:
            seen_N = ~np.isnan(upper_N)
            length_S = np.add.reduceat(seen_N.astype(np.int64), states.start_S)
            row_S, length_S, upper_N = row_S[length_S > 0], length_S[length_S > 0], upper_N[seen_N]
        if upper_N.size:
            self.tv_upper.add(row_S, np.cumsum(length_S) - length_S, upper_N)
            self.sketches["tv_upper"].add(upper_N)

    def _add_log_odds(self, states: States) -> None:
        """A temperature on one side only scales the log-odds, so their difference is a multiple of themselves."""
        logp_mu_N, logp_pi_N = states.logp_mu_N, states.logp_pi_N
        if self._truncated:
            if "leak" not in states.columns:
                return
            # Cutting ids off scales what is kept, which tilts the log-odds too: π is first put on μ's support.
            logp_pi_N = logp_pi_N - np.log1p(-states.columns["leak"])
        seen_N = np.isfinite(logp_pi_N) & (logp_mu_N < _CERTAIN) & (logp_pi_N < _CERTAIN)
        odds_mu_N, odds_pi_N = _log_odds(logp_mu_N[seen_N]), _log_odds(logp_pi_N[seen_N])
        self.log_odds.add(odds_mu_N, odds_pi_N)
        self.log_odds_difference.add(odds_mu_N, odds_pi_N - odds_mu_N)


def _log_odds(logp_N: np.ndarray) -> np.ndarray:
    return logp_N - np.log(-np.expm1(logp_N))


def _state(states: States, row: int, tv_N: np.ndarray) -> State:
    at = int(np.searchsorted(states.start_S, row, side="right")) - 1
    first, last = int(states.start_S[at]), int(states.offsets_S1[at + 1])
    position = int(states.position_N[row])
    around = range(max(first, row - BEFORE), min(last, row + AFTER + 1))
    return State(
        tv=float(tv_N[row]),
        sequence_id=int(states.sequence_id_S[at]),
        prompt_id=int(states.prompt_id_S[at]),
        position=position,
        token_id=int(states.token_id_N[row]),
        ratio=float(states.sampled.ratio[row]),
        logp_mu=float(states.logp_mu_N[row]),
        logp_pi=float(states.logp_pi_N[row]),
        tv_around={int(states.position_N[other]): float(tv_N[other]) for other in around},
    )
