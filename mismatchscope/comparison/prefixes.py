"""What the tokens of a response add up to, over its first 4, 8, 16 … tokens.

The same responses at several lengths: how far apart the policies are as distributions of beginnings, and whether
their log ratio spreads like a random walk or like a bias.

Shapes: S sequences of a block, T tokens; E rows, one a length and prompt.
"""

from __future__ import annotations

import numpy as np

from ..alignment.alignment import Alignment
from ..measures.intervals import UNIT, ratio_interval
from ..measures.label_sums import LabelSums
from ..measures.length_scaling import length_scaling
from ..measures.log_results import LengthScaling
from ..reports.pair_fields import PrefixMeasures
from .pair import Pair
from .states import States, measured

FIRST = 4
_SCALING = (
    *("responses", "log_ratio", "square", "product", "length", "length_square", "log_length"),
    *("early", "early_late"),
)
_COLUMNS = (*_SCALING, "with_impossible", "shortfall")


class PrefixSums:
    """Sums over the beginnings of the whole responses of a pair, filled block by block."""

    def __init__(self) -> None:
        self._table = LabelSums(len(_COLUMNS))

    @classmethod
    def of(cls, pair: Pair) -> PrefixSums:
        """Reads both traces of a pair once more."""
        found, context = cls(), pair.context
        alignment = Alignment(pair.mu, pair.pi, mask=context.mask)
        for states in measured(
            alignment, context.policy, ids_of_behavior=context.ids_of_behavior, drawn_by=context.drawn_by
        ):
            found.add(states)
        return found

    def add(self, states: States) -> None:
        whole = states.only(states.whole_S)
        if not len(whole.length_S):
            return
        log_ratio_N = whole.figures.log_ratio_N
        possible_N = np.isfinite(log_ratio_N)
        sum_N1 = np.append(0.0, np.cumsum(np.where(possible_N, log_ratio_N, 0.0)))
        impossible_N1 = np.append(0, np.cumsum(~possible_N))
        tokens = FIRST
        while tokens <= whole.length_S.max():
            of_S = whole.length_S >= tokens
            start_S, cluster_S = whole.start_S[of_S], whole.cluster_S[of_S]
            sum_S = sum_N1[start_S + tokens] - sum_N1[start_S]
            early_S = sum_N1[start_S + tokens // 2] - sum_N1[start_S]
            self._add(tokens, cluster_S, sum_S, early_S, impossible_N1[start_S + tokens] > impossible_N1[start_S])
            tokens *= 2

    def scaling(self, confidence: float) -> LengthScaling | None:
        """Of the beginnings without a token that π cannot draw."""
        columns = dict(zip(_COLUMNS, self._table.sum_EF.T, strict=True))
        return length_scaling(
            self._table.label_E,
            self._table.cluster_E,
            {name: columns[name] for name in _SCALING},
            confidence=confidence,
        )

    def rows(self, confidence: float) -> list[PrefixMeasures]:
        """By rising length. TV is that of the two distributions of beginnings, which (1 − ρ)₊ of a beginning that μ
        drew is unbiased for."""
        return [self._row(tokens, confidence) for tokens in np.unique(self._table.label_E).tolist()]

    def _row(self, tokens: int, confidence: float) -> PrefixMeasures:
        sum_EF = self._table.sum_EF[self._table.label_E == tokens]
        of = dict(zip(_COLUMNS, sum_EF.T, strict=True))
        count_E = of["responses"] + of["with_impossible"]
        possible = float(of["responses"].sum())
        mean = float(of["log_ratio"].sum()) / possible if possible else None
        spread = None if mean is None else max(float(of["square"].sum()) / possible - mean**2, 0.0) ** 0.5
        return PrefixMeasures(
            tokens=tokens,
            tv=ratio_interval(of["shortfall"], count_E, confidence=confidence, bounds=UNIT),
            log_ratio=mean,
            spread=spread,
            n=int(count_E.sum()),
        )

    def _add(
        self, tokens: int, cluster_S: np.ndarray, sum_S: np.ndarray, early_S: np.ndarray, impossible_S: np.ndarray
    ) -> None:
        possible_S = ~impossible_S
        length_S, x_S = np.full(len(sum_S), float(tokens)), np.where(possible_S, sum_S, 0.0)
        early_S = np.where(possible_S, early_S, 0.0)
        columns = [np.ones(len(x_S)), x_S, x_S**2, x_S * length_S, length_S, length_S**2, np.log(length_S)]
        columns += [early_S, early_S * (x_S - early_S)]
        columns = [column * possible_S for column in columns]
        shortfall_S = np.where(possible_S, -np.expm1(np.minimum(x_S, 0.0)), 1.0)
        columns += [impossible_S.astype(np.float64), shortfall_S]
        self._table.add(np.full(len(x_S), tokens, dtype=np.int64), cluster_S, np.column_stack(columns))
