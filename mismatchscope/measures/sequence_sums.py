"""Sums over the tokens of each response, which chunks of whole responses append to.

Legend: T = sampled tokens of all sequences, one after another; S = sequences; S1 = S + 1 boundaries, so that
sequence s is tokens offsets[s] up to offsets[s + 1]. Log ratios are log pi - log mu, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..errors import EmptyComparisonError
from . import kernel
from .sampled import k3, shortfall
from .token_sums import TokenSums

Array = np.ndarray


@dataclass(eq=False)
class SequenceSums:
    """One value per sequence, [S], float64 but for ids and length: sums over its tokens, which chunks append to."""

    sequence_id: Array
    prompt_id: Array
    length: Array
    """Tokens (int64)."""
    log_ratio: Array
    """log rho(y) = sum of the tokens' d; -inf once a token is outside pi's support."""
    ratio_pairs: Array
    """sum_{t < j} |rho_t - 1| (1 - rho_j)_+, of the max-free quadratic bound."""
    sum_tv_estimate: Array
    """Sum of the tokens' (1 - rho)_+, or of what top-k evidence estimates TV by; its mean is unbiased for that of
    the sum over states of TV."""
    sum_k3: Array
    """Sum of the tokens' k3: never negative, and its mean is that of `sum_kl` less the leak."""
    sum_kl: Array
    """Sum over states of KL(mu || pi), or of what top-k evidence estimates it by, with less variance than from
    sampled tokens alone (Rao-Blackwell); NaN: not all known."""
    sum_tv: Array
    """Sum over states of TV's upper end; its mean bounds the TV of whole sequences. NaN: not all known."""
    max_tv: Array
    """Largest upper end of TV; NaN: not all known."""

    @classmethod
    def of(
        cls,
        log_ratio_T: ArrayLike,
        offsets_S1: ArrayLike,
        *,
        sequence_id_S: Array | None = None,
        prompt_id_S: Array | None = None,
        kl_T: ArrayLike | None = None,
        tv_T: ArrayLike | None = None,
        tv_estimate_T: Array | None = None,
        sums: TokenSums | None = None,
        ratio_pairs_S: Array | None = None,
    ) -> SequenceSums:
        """From each token's log ratio and, where known, its state's KL(mu || pi) and the upper end of its TV.

        `sums` and `ratio_pairs_S` have what is otherwise computed from the log ratios.

        Raises:
            EmptyComparisonError: there are no sequences, or one of them has no tokens.
            ValueError: the boundaries do not cover the tokens in order, or a log ratio is NaN or +inf.
        """
        offsets_S1 = checked_offsets(offsets_S1)
        log_ratio_T = np.asarray(log_ratio_T, dtype=np.float64)
        start_S, number_S = offsets_S1[:-1], np.arange(len(offsets_S1) - 1)
        if sums is None:
            checked_tokens(log_ratio_T, offsets_S1, "log_ratio")
            if log_ratio_T.max() == np.inf:
                token = int(np.argmax(log_ratio_T))
                raise ValueError(f"log_ratio at token {token} is +inf: mu cannot have sampled it")
            figures_T = (log_ratio_T, k3(log_ratio_T), shortfall(log_ratio_T))
            log_ratio_S, sum_k3_S, shortfall_S = (np.add.reduceat(figure_T, start_S) for figure_T in figures_T)
        else:
            log_ratio_S, sum_k3_S, shortfall_S = sums.log_ratio, sums.k3, sums.shortfall
        if ratio_pairs_S is None:
            ratio_pairs_S = order_sums(log_ratio_T, k3(log_ratio_T), offsets_S1).ratio_pairs_S
        unknown_S = np.full(len(number_S), np.nan)
        kl_T, tv_T = (None if each is None else np.asarray(each, dtype=np.float64) for each in (kl_T, tv_T))
        return cls(
            sequence_id=number_S if sequence_id_S is None else sequence_id_S,
            prompt_id=number_S if prompt_id_S is None else prompt_id_S,
            length=np.diff(offsets_S1),
            log_ratio=log_ratio_S,
            ratio_pairs=ratio_pairs_S,
            sum_tv_estimate=shortfall_S if tv_estimate_T is None else np.add.reduceat(tv_estimate_T, start_S),
            sum_k3=sum_k3_S,
            sum_kl=unknown_S if kl_T is None else np.add.reduceat(kl_T, start_S),
            sum_tv=unknown_S if tv_T is None else np.add.reduceat(tv_T, start_S),
            max_tv=unknown_S if tv_T is None else np.maximum.reduceat(tv_T, start_S),
        )

    @classmethod
    def joined(cls, parts: list[SequenceSums]) -> SequenceSums:
        """Those of several chunks, in rising order of the sequence id; of no chunk there is none."""
        if not parts:
            return cls(**{each.name: np.zeros(0) for each in fields(cls)})
        columns = {each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)}
        order_S = np.argsort(columns["sequence_id"], kind="stable")
        return cls(**{name: value_S[order_S] for name, value_S in columns.items()})

    @property
    def ratio(self) -> Array:
        """rho(y); infinite where it passes 1e308, so work with `log_ratio`."""
        with np.errstate(over="ignore"):
            return np.exp(self.log_ratio)

    @property
    def geometric_ratio(self) -> Array:
        """rho(y)^(1 / length), the sequence ratio of GSPO."""
        with np.errstate(over="ignore"):
            return np.exp(self.log_ratio / self.length)

    @property
    def shortfall(self) -> Array:
        """(1 - rho(y))_+, in [0, 1]; its mean is unbiased for the TV of whole sequences."""
        return shortfall(self.log_ratio)

    @property
    def kl(self) -> Array:
        """KL(mu || pi) of each sequence, or what is unbiased for its mean: `sum_kl` where that is known, else
        `sum_k3`."""
        return self.sum_kl if self.kl_known else self.sum_k3

    @property
    def kl_known(self) -> bool:
        return not np.isnan(self.sum_kl).any()


class OrderSums(NamedTuple):
    """What depends on the order of a response's tokens: see `ratio_pair_sums`; and the sum over responses of
    (1 - rho)_+ at each index, up to the longest one."""

    ratio_pairs_S: Array
    shortfall_by_index: Array


def order_sums(log_ratio_T: Array, k3_T: Array, offsets_S1: Array) -> OrderSums:
    """Of responses that hold all the tokens, at least one each; `k3_T` is that of the log ratios."""
    length_S = np.diff(offsets_S1)
    library = kernel.library()
    if library is None:
        shortfall_T = shortfall(log_ratio_T)
        with np.errstate(over="ignore"):
            pairs_S = ratio_pair_sums(np.abs(np.expm1(log_ratio_T)), shortfall_T, offsets_S1)
        index_T = np.arange(len(log_ratio_T)) - np.repeat(offsets_S1[:-1], length_S)
        return OrderSums(pairs_S, np.bincount(index_T, weights=shortfall_T))
    pairs_S, by_index = np.empty(len(length_S)), np.zeros(int(length_S.max()))
    library.response_sums(
        *(kernel.address(np.ascontiguousarray(each_T)) for each_T in (log_ratio_T, k3_T)),
        *(kernel.address(offsets_S1, np.int64), len(length_S)),
        *(kernel.address(pairs_S), kernel.address(by_index)),
    )
    return OrderSums(pairs_S, by_index)


def ratio_pair_sums(distance_T: Array, shortfall_T: Array, offsets_S1: Array) -> Array:
    """sum_{t < j} |rho_t - 1| (1 - rho_j)_+ of each sequence, [S], from |rho - 1| and (1 - rho)_+ of each token.

    Its mean is the sampled part of the max-free quadratic bound, and being a mean over sequences it can be
    given an interval.
    """
    sums_S = np.zeros(len(offsets_S1) - 1)
    for s, (start, stop) in enumerate(pairwise(offsets_S1.tolist())):
        earlier = np.cumsum(distance_T[start : stop - 1])
        later = shortfall_T[start + 1 : stop]
        # An infinite ratio before tokens that are not short adds nothing.
        sums_S[s] = earlier @ later if np.isfinite(earlier[-1:]).all() else earlier[later > 0] @ later[later > 0]
    return sums_S


def checked_offsets(offsets_S1: ArrayLike) -> Array:
    """Boundaries as int64, or the error that `SequenceSums.of` documents."""
    offsets_S1 = np.asarray(offsets_S1)
    if offsets_S1.ndim != 1 or offsets_S1.size < 2:
        raise EmptyComparisonError("There is no sequence to measure.")
    if offsets_S1.dtype.kind not in "iu" or offsets_S1[0] != 0:
        raise ValueError("sequence boundaries must be integers that start at 0")
    lengths_S = np.diff(offsets_S1.astype(np.int64))
    if (lengths_S < 0).any():
        raise ValueError(f"sequence {int(np.argmax(lengths_S < 0))} ends before it begins")
    if (lengths_S == 0).any():
        raise EmptyComparisonError(f"Sequence {int(np.argmax(lengths_S == 0))} has no tokens.")
    return offsets_S1.astype(np.int64)


def checked_tokens(values_T: ArrayLike, offsets_S1: Array, name: str) -> Array:
    """Per-token values as adjacent float64 that fit the boundaries and hold no NaN."""
    values_T = np.ascontiguousarray(values_T, dtype=np.float64)
    if values_T.shape != (offsets_S1[-1],):
        raise ValueError(f"{name} has shape {values_T.shape}, the boundaries cover {offsets_S1[-1]} tokens")
    if np.isnan(values_T.min(initial=0.0)):
        raise ValueError(f"{name} at token {int(np.argmax(np.isnan(values_T)))} is NaN")
    return values_T
