"""Everything a report says of one pair of policies, as sums: filled block by block, merged in any order.

Shapes: N states of a block, S its sequences.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..measures.accumulators import Clusters, ClusterSums, Covariance
from ..measures.alpha import TotalVariation
from ..measures.corrections import Corrections, RatioBlock
from ..measures.full import EXACT
from ..measures.log_odds import COLUMNS
from ..measures.positions import PositionProfile, PositionSums
from ..measures.quantile_limits import ClusterShares
from ..measures.selected_states import AFTER, BEFORE, LargestStates, SampledPoints, State
from ..measures.sequence_sums import SequenceSums, order_sums
from ..measures.sketches import QuantileSketch
from .fillers import Fillers
from .log_odds import LogOddsFit, add_log_odds, fit_log_odds
from .states import ESTIMATES, LOWER_BOUNDS, States

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
# Of which the quantiles get limits: what a share beyond a threshold varies by from prompt to prompt.
_BY_SHARE = ("log_ratio", "k3", "tv", "tv_lower", "tv_upper", "kl")


class PairStatistics:
    """Accumulators of one pair; `truncated` says that μ's sampler cuts ids off, which tilts the log-odds of what is
    kept.

    Each block holds whole sequences, and no sequence is added twice.
    """

    def __init__(self, *, truncated: bool = False, corrections: bool = True) -> None:
        self._truncated = truncated
        self._clusters = Clusters()
        self.sums = {name: ClusterSums() for name in (*_SAMPLED, *COLUMNS, *EXACT, *LOWER_BOUNDS, *ESTIMATES)}
        self.sketches = {
            name: QuantileSketch()
            for name in ("log_ratio", "k3", "prob_diff", "tv_lower", "tv_upper", *EXACT, *LOWER_BOUNDS)
        }
        self.shares = {name: ClusterShares(signed=name == "log_ratio") for name in _BY_SHARE}
        self.tv_lower, self.tv_upper = TotalVariation(), TotalVariation()
        self.corrections = Corrections(None if corrections else ())
        self.probabilities = Covariance()
        self.best_tv = PositionProfile()
        self.estimated_tv_by_index, self.upper_tv_by_index = PositionSums(), PositionSums()
        self.largest = LargestStates()
        self.points = SampledPoints()
        self.fillers = Fillers()
        self._sequences: list[SequenceSums] = []
        self.outside_band = ClusterSums()
        """Of 1 where the ratio is outside `token_sums.RATIO_BAND`, else 0: its mean is a share."""
        self.tokens = self.impossible = 0
        self.topk = False
        self.identical = True

    def add(self, states: States) -> None:
        """Take in the states of some whole sequences."""
        row_S, start_S, figures = self._clusters.rows(states.cluster_S), states.start_S, states.figures
        self._add_sampled(row_S, states)
        tv_lower_N = states.tv_lower_N
        for name, values_N in (
            ("log_ratio", figures.log_ratio_N),
            ("k3", figures.k3_N),
            ("prob_diff", figures.prob_diff_N),
            ("tv_lower", tv_lower_N),
        ):
            self.sketches[name].add(values_N)
            self._add_shares(name, states, values_N)
        for name, values_N in states.columns.items():
            self._add_sums(name, row_S, states, values_N)
            if name in self.sketches:
                self.sketches[name].add(values_N if states.all_exact else values_N[~np.isnan(values_N)])
            self._add_shares(name, states, values_N)
        self.tv_lower.add(row_S, start_S, tv_lower_N)
        if states.tv_upper_N is not None:
            self._add_upper(row_S, states, states.tv_upper_N)
            self._add_shares("tv_upper", states, states.tv_upper_N)
        self.probabilities.add_logarithms(states.logp_mu_N, states.logp_pi_N, figures.sums)
        self.fillers.add(states)
        self.points.add(
            states.sequence_id_S, states.offsets_S1, states.position_N, states.logp_mu_N, states.logp_pi_N
        )
        add_log_odds(self.sums, row_S, states, truncated=self._truncated)
        tv_N = states.tv_known_N
        self.best_tv.add(states.position_N, tv_N)
        candidates = self.largest.candidates(tv_N, states.sequence_id_S, states.offsets_S1, states.position_N)
        self.largest.add([_state(states, int(row), tv_N) for row in candidates])
        whole = states.only(states.whole_S)
        if len(whole.length_S):
            self._add_responses(whole)
        self.tokens += len(tv_N)
        if np.isneginf(figures.sums.smallest_log_ratio).any():
            self.impossible += int(np.count_nonzero(states.logp_pi_N == -np.inf))
        self.topk = self.topk or states.topk
        self.identical = self.identical and states.identical

    def _add_sampled(self, row_S: np.ndarray, states: States) -> None:
        """Sums by sequence of what the sampled tokens say, and their extremes."""
        sums = states.figures.sums
        rise, fall = float(sums.largest_log_ratio.max()), float(sums.smallest_log_ratio.min())
        least, most = float(sums.smallest_abs_logprob_diff.min()), max(rise, -fall)
        binary = float(sums.smallest_abs_prob_diff.min()), float(sums.largest_abs_prob_diff.max())
        with np.errstate(over="ignore"):
            ratio = float(np.exp(fall)), float(np.exp(rise))
            exp_abs = float(np.exp(least)), float(np.exp(most))
        shortfall = float(-np.expm1(min(rise, 0.0))), float(-np.expm1(min(fall, 0.0)))
        prob_diff = float(sums.smallest_prob_diff.min()), float(sums.largest_prob_diff.max())
        found: dict[str, tuple[np.ndarray, float, float]] = {
            "k1": (-sums.log_ratio, -rise, -fall),
            "k2": (sums.log_ratio_square / 2, least**2 / 2, most**2 / 2),
            "k3": (sums.k3, float(sums.smallest_k3.min()), float(sums.largest_k3.max())),
            "ratio": (sums.ratio, *ratio),
            "shortfall": (sums.shortfall, *shortfall),
            "binary_tv": (sums.abs_prob_diff, *binary),
            "abs_logprob_diff": (sums.abs_logprob_diff, least, most),
            "prob_diff": (sums.prob_diff, *prob_diff),
            "exp_abs_diff": (sums.exp_abs_diff, *exp_abs),
        }
        for name, (sum_S, smallest, largest) in found.items():
            self.sums[name].add_sums(row_S, sum_S, states.length_S, smallest, largest)
        outside_S = sums.outside_band
        ends = float((outside_S == states.length_S).all()), float(outside_S.any())
        self.outside_band.add_sums(row_S, outside_S, states.length_S, *ends)

    def _add_responses(self, states: States) -> None:
        """What is said of responses: one that lost a token to rejection has no sum over it."""
        log_ratio_N, sums = states.figures.log_ratio_N, states.figures.sums
        if self.corrections.settings:
            self.corrections.add(_ratios(states))
        in_order = order_sums(log_ratio_N, states.figures.k3_N, states.offsets_S1)
        self._sequences.append(
            SequenceSums.of(
                log_ratio_N,
                states.offsets_S1,
                sequence_id_S=states.sequence_id_S,
                prompt_id_S=states.cluster_S,
                kl_T=states.columns.get("kl_estimate", states.columns.get("kl")),
                tv_T=states.tv_upper_N,
                tv_estimate_T=states.columns.get("tv_estimate"),
                sums=sums,
                ratio_pairs_S=in_order.ratio_pairs_S,
            )
        )
        self.estimated_tv_by_index.add_sums(in_order.shortfall_by_index, len(states.length_S))
        if states.tv_upper_N is not None and states.all_bounded:
            index_N = np.arange(len(states.position_N)) - np.repeat(states.start_S, states.length_S)
            self.upper_tv_by_index.add(states.tv_upper_N, index_N, len(states.length_S))

    def merge(self, other: PairStatistics) -> None:
        """Take in what another one has seen of other sequences of the same pair."""
        row_C = self._clusters.rows(other._clusters.labels)
        for name, sums in other.sums.items():
            self.sums[name].merge(sums, row_C)
        for name, sketch in other.sketches.items():
            self.sketches[name].merge(sketch)
        for name, shares in other.shares.items():
            self.shares[name].merge(shares)
        self.tv_lower.merge(other.tv_lower, row_C)
        self.tv_upper.merge(other.tv_upper, row_C)
        for name in (
            "corrections",
            "probabilities",
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
        self.outside_band.merge(other.outside_band, row_C)
        self.impossible += other.impossible
        self.topk, self.identical = self.topk or other.topk, self.identical and other.identical

    def mean_of(self, figure: Literal["tv", "kl"]) -> str:
        """Under which name `sums` has the values whose mean is the mean of a divergence, or estimates it.

        Of a random subset of states that were seen whole the exact figure, which is less noisy than the sampled
        tokens'.
        """
        estimate, sampled = {"tv": ("tv_estimate", "shortfall"), "kl": ("kl_estimate", "k3")}[figure]
        if self.exact_states and (self.all_exact or not self.sums[estimate].n):
            return figure
        return estimate if self.sums[estimate].n else sampled

    def in_rows_of(self, other: PairStatistics, sums: ClusterSums) -> ClusterSums:
        """The sums of this pair, in the other one's order of the prompts."""
        theirs = ClusterSums()
        theirs.merge(sums, other._clusters.rows(self._clusters.labels))
        return theirs

    @property
    def prompts(self) -> np.ndarray:
        """The label of the prompt at each row of the sums by prompt, int64 [C]."""
        return self._clusters.labels

    @property
    def sequences(self) -> SequenceSums:
        """Of the responses that are whole, in rising order of their ids."""
        self._sequences = [SequenceSums.joined(self._sequences)]
        return self._sequences[0]

    @property
    def log_odds(self) -> LogOddsFit | None:
        """How the log-odds of the sampled tokens differ; None where too few of them are known."""
        return fit_log_odds(self.sums)

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

    def _add_shares(self, name: str, states: States, values_N: np.ndarray) -> None:
        if name in self.shares:
            self.shares[name].add(states.cluster_S, states.length_S, values_N)

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


def _state(states: States, row: int, tv_N: np.ndarray) -> State:
    at = int(np.searchsorted(states.start_S, row, side="right")) - 1
    first, last = int(states.start_S[at]), int(states.offsets_S1[at + 1])
    position = int(states.position_N[row])
    around = range(max(first, row - BEFORE), min(last, row + AFTER + 1))
    with np.errstate(over="ignore"):  # a ratio beyond 1e308 is infinite, and says so
        ratio = float(np.exp(states.figures.log_ratio_N[row]))
    return State(
        tv=float(tv_N[row]),
        sequence_id=int(states.sequence_id_S[at]),
        prompt_id=int(states.prompt_id_S[at]),
        position=position,
        token_id=int(states.token_id_N[row]),
        ratio=ratio,
        logp_mu=float(states.logp_mu_N[row]),
        logp_pi=float(states.logp_pi_N[row]),
        tv_around={int(states.position_N[other]): float(tv_N[other]) for other in around},
    )


def _ratios(states: States) -> RatioBlock:
    columns, exact = states.columns, states.all_exact
    return RatioBlock(
        states.figures.log_ratio_N,
        states.offsets_S1,
        tv_T=columns["tv"] if exact else None,
        kl_T=columns["kl"] if exact else None,
        tv_estimate_T=columns.get("tv_estimate"),
        kl_estimate_T=columns.get("kl_estimate"),
    )
