"""One rule at rising thresholds: what is kept against what is left.

A mask of sequences keeps those whose statistic is at most a limit, so that one sort and running sums give every
point. A rule of tokens is a sum over bins of all sequences, which is read once, at the end.

Shapes: S sequences of a block, K thresholds, B bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..correction_results import Correction, CorrectionSweep
from .bins import Key, TokenBins
from .block import RETAINED, RatioBlock
from .catalogue import RULES
from .effect import Effect, RuleSums
from .sweep_grids import SWEEPS, SequenceMask, Sweep, TokenBand

Array = np.ndarray


class Totals:
    """All sequences of many blocks as one, for rules of tokens: see `block.Binned`."""

    def __init__(self) -> None:
        self._bins: dict[Key, TokenBins] = {}
        self.length_S = np.zeros(1, dtype=np.int64)
        self.sum_ratio_S = np.zeros(1)
        self.retained_S: dict[str, Array | None] = {name: np.zeros(1) for name in RETAINED}

    @classmethod
    def of(cls, block: RatioBlock, keys: Iterable[Key]) -> Totals:
        totals = cls()
        totals._bins = {key: block.bins(key).collapsed() for key in keys}
        totals.length_S = block.length_S.sum(keepdims=True)
        totals.sum_ratio_S = block.sum_ratio_S.sum(keepdims=True)
        totals.retained_S = {
            name: None if sum_S is None else sum_S.sum(keepdims=True) for name, sum_S in block.retained_S.items()
        }
        return totals

    def merge(self, other: Totals) -> None:
        if not self.length_S.any():
            self._bins = {key: bins.collapsed() for key, bins in other._bins.items()}  # copies
        else:
            self._bins = {key: bins for key, bins in self._bins.items() if key in other._bins}
            for key, bins in self._bins.items():
                bins.merge(other._bins[key])
        self.length_S = self.length_S + other.length_S
        self.sum_ratio_S = self.sum_ratio_S + other.sum_ratio_S
        for name, theirs_S in other.retained_S.items():
            mine_S = self.retained_S[name]
            self.retained_S[name] = None if mine_S is None or theirs_S is None else mine_S + theirs_S

    def bins(self, key: Key, lows: Iterable[float] = (), highs: Iterable[float] = ()) -> TokenBins:
        """Those of the blocks, whose edges must have held every threshold of the sweeps."""
        found = self._bins[key]
        if not found.has(lows, highs):
            raise ValueError(f"the blocks were not binned at the thresholds {[*lows, *highs]}")
        return found


class Sweeps:
    """Every sweep for which all blocks had what its rule needs."""

    def __init__(self) -> None:
        self._known: frozenset[str] | None = None
        self._masks: dict[str, list[RuleSums]] = {}
        self._kept: dict[str, Array] = {}
        self._totals, self._sequences = Totals(), 0

    def add(self, block: RatioBlock) -> None:
        """Take in a block whose tokens are binned at the thresholds of the sweeps (`sweep_thresholds`)."""
        sweeps = [sweep for sweep in SWEEPS if not RULES[sweep.rule].missing(block.known)]
        keys = {sweep.how.key for sweep in sweeps if isinstance(sweep.how, TokenBand)}
        kept = {
            sweep.rule: _kept_sequences(sweep, sweep.how, block)
            for sweep in sweeps
            if isinstance(sweep.how, TokenBand)
        }
        masks = {sweep.rule: _mask_points(sweep, block) for sweep in sweeps if not isinstance(sweep.how, TokenBand)}
        self._take(block.known, kept, masks, Totals.of(block, sorted(keys)), len(block.length_S))

    def merge(self, other: Sweeps) -> None:
        if other._known is not None:
            self._take(other._known, other._kept, other._masks, other._totals, other._sequences)

    def _take(
        self,
        known: frozenset[str],
        kept: dict[str, Array],
        masks: dict[str, list[RuleSums]],
        totals: Totals,
        sequences: int,
    ) -> None:
        self._known = known if self._known is None else self._known & known
        self._totals.merge(totals)
        self._sequences += sequences
        for rule, kept_K in kept.items():
            self._kept[rule] = self._kept[rule] + kept_K if rule in self._kept else kept_K
        for rule, theirs in masks.items():
            mine = self._masks.setdefault(rule, [RuleSums(sums.unit) for sums in theirs])
            for sums, added in zip(mine, theirs, strict=True):
                sums.merge(added)

    def results(self) -> tuple[CorrectionSweep, ...]:
        """From the strictest threshold to the loosest."""
        if self._known is None:
            return ()
        return tuple(
            CorrectionSweep(name=sweep.rule, parameter=sweep.parameter, points=self._points(sweep))
            for sweep in SWEEPS
            if not RULES[sweep.rule].missing(self._known)
        )

    def _points(self, sweep: Sweep) -> tuple[Correction, ...]:
        rule = RULES[sweep.rule]
        parameters = [sweep.parameters(point) for point in sweep.points]
        if not isinstance(sweep.how, TokenBand):
            every: Sequence[RuleSums] = self._masks[sweep.rule]
        else:
            every = [rule.apply(self._totals, **given).sums() for given in parameters]
            for sums, kept in zip(every, self._kept[sweep.rule].tolist(), strict=True):
                sums.sequences, sums.kept_sequences = self._sequences, kept
        remark = rule.remark(self._known or frozenset())
        return tuple(
            sums.correction(sweep.rule, given, remark) for given, sums in zip(parameters, every, strict=True)
        )


def sweep_settings() -> list[tuple[str, dict[str, float]]]:
    """Every rule of tokens with each of its swept thresholds, at which blocks must be binned."""
    return [
        (sweep.rule, sweep.parameters(point))
        for sweep in SWEEPS
        if isinstance(sweep.how, TokenBand)
        for point in sweep.points
    ]


def _kept_sequences(sweep: Sweep, how: TokenBand, block: RatioBlock) -> Array:
    """How many sequences keep a token at each threshold [K], which sums over all sequences do not say."""
    if how.kept is None:
        return np.full(len(sweep.points), len(block.length_S))
    bins = block.bins(how.key)
    kept = [bins.tokens_S(how.kept(bins, sweep.parameters(point))) for point in sweep.points]
    return np.array([np.count_nonzero(tokens_S) for tokens_S in kept])


def _mask_points(sweep: Sweep, block: RatioBlock) -> list[RuleSums]:
    if sweep.how is None:
        return [RULES[sweep.rule].apply(block, **sweep.parameters(point)).sums() for point in sweep.points]
    assert isinstance(sweep.how, SequenceMask)
    statistic_S = sweep.how.statistic(block)
    order_S = np.argsort(statistic_S, kind="stable")
    limits = [sweep.how.limit(point) for point in sweep.points]
    kept_K = np.searchsorted(statistic_S[order_S], limits, side="right")
    return _prefix_sums(sweep.how.everything(block), order_S, kept_K)


def _prefix_sums(effect: Effect, order_S: Array, kept_K: Array) -> list[RuleSums]:
    """The sums where the first `kept_K` sequences of an order are kept, and the others have weight 0."""

    def running(value_S: Array, initial: float = 0.0) -> list[float]:
        return np.concatenate([[initial], np.cumsum(value_S[order_S])])[kept_K].tolist()

    def running_log(log_value_S: Array) -> list[float]:
        return np.concatenate([[-np.inf], np.logaddexp.accumulate(log_value_S[order_S])])[kept_K].tolist()

    with np.errstate(over="ignore"):
        ratio_S = np.exp(effect.log_ratio_S)
    # Of what is dropped the sum is taken from the end, so that a ratio that is kept takes no digit from it.
    dropped_K = np.concatenate([np.cumsum(ratio_S[order_S][::-1])[::-1], [0.0]])[kept_K]
    whole = effect.sums()
    kept_tokens, removed, added = (running(each) for each in (effect.kept_S, effect.removed_S, effect.added_S))
    log_weight, log_square = running_log(effect.log_weight_S), running_log(effect.log_square_S)
    retained = {
        name: [None] * len(kept_K) if sum_S is None else running(sum_S) for name, sum_S in effect.retained_S.items()
    }
    return [
        RuleSums(
            unit=effect.unit,
            tokens=whole.tokens,
            sequences=whole.sequences,
            units=whole.units,
            kept_tokens=int(kept_tokens[k]),
            kept_sequences=int(kept),
            removed=removed[k] + float(dropped_K[k]),
            added=added[k],
            log_weight=log_weight[k],
            log_square=log_square[k],
            log_ratio=whole.log_ratio,
            retained={name: values[k] for name, values in retained.items()},
        )
        for k, kept in enumerate(kept_K.tolist())
    ]
