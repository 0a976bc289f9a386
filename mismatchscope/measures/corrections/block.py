"""The log ratios of some whole sequences, as every rule looks at them: sequence by sequence, and in bins of tokens.

Legend: T = sampled tokens, one sequence after another; S = sequences; S1 = S + 1 boundaries. Log ratios are
d = log pi_old - log mu and, of the third policy, log pi_theta - log pi_old, in nats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from ..sampled import k3
from ..sequence_sums import checked_offsets, checked_tokens
from .bins import Key, TokenBins
from .token_tables import KNOWN, TokenColumns, token_bins

Array = np.ndarray

RETAINED = ("ratio", *KNOWN)
"""What is averaged over the tokens that a rule keeps."""
_BY_SEQUENCE = (
    "length_S",
    "log_ratio_S",
    "smallest_log_ratio_S",
    "largest_log_ratio_S",
    "target_log_ratio_S",
    "advantage_S",
    "largest_state_kl_S",
)


class Binned(Protocol):
    """What rules of tokens look at: of a block, or of all sequences as of one."""

    @property
    def length_S(self) -> Array: ...

    @property
    def sum_ratio_S(self) -> Array: ...

    @property
    def retained_S(self) -> dict[str, Array | None]: ...

    def bins(self, key: Key, lows: Iterable[float] = (), highs: Iterable[float] = ()) -> TokenBins: ...


class RatioBlock:
    """`tv_T` and `kl_T` are each state's TV and KL(mu || pi), from full distributions; None where not every state's
    is known. `tv_estimate_T` and `kl_estimate_T` are tokens' values that are unbiased for both, by default
    (1 - rho)_+ and k3.

    `target_log_ratio_T` is log pi_theta - log pi_old, `advantage_T` the advantages, `logp_mu_T` mu's log-probs;
    rules that need one that is None cannot be applied. Raises as `SequenceSums.of` does.
    """

    def __init__(
        self,
        log_ratio_T: ArrayLike,
        offsets_S1: ArrayLike,
        *,
        tv_T: ArrayLike | None = None,
        kl_T: ArrayLike | None = None,
        tv_estimate_T: ArrayLike | None = None,
        kl_estimate_T: ArrayLike | None = None,
        target_log_ratio_T: ArrayLike | None = None,
        advantage_T: ArrayLike | None = None,
        logp_mu_T: ArrayLike | None = None,
    ) -> None:
        self._offsets_S1 = offsets_S1 = checked_offsets(offsets_S1)
        start_S = offsets_S1[:-1]

        def optional(values_T: ArrayLike | None, name: str) -> Array | None:
            return None if values_T is None else checked_tokens(values_T, offsets_S1, name)

        known = {"tv_estimate": tv_estimate_T, "kl_estimate": kl_estimate_T, "tv": tv_T, "kl": kl_T}
        self._tokens: TokenColumns | None = TokenColumns(
            log_ratio_T=checked_tokens(log_ratio_T, offsets_S1, "log_ratio"),
            target_T=optional(target_log_ratio_T, "target_log_ratio"),
            advantage_T=optional(advantage_T, "advantage"),
            logp_mu_T=optional(logp_mu_T, "logp_mu"),
            known={
                name: checked_tokens(values_T, offsets_S1, name)
                for name, values_T in known.items()
                if values_T is not None
            },
        )
        tokens = self._tokens
        self.length_S = np.diff(offsets_S1)
        self.log_ratio_S = np.add.reduceat(tokens.log_ratio_T, start_S)
        self.smallest_log_ratio_S = np.minimum.reduceat(tokens.log_ratio_T, start_S)
        self.largest_log_ratio_S = np.maximum.reduceat(tokens.log_ratio_T, start_S)
        self.target_log_ratio_S = None if tokens.target_T is None else np.add.reduceat(tokens.target_T, start_S)
        self.advantage_S = None
        """Mean advantage of each sequence."""
        if tokens.advantage_T is not None:
            self.advantage_S = np.add.reduceat(tokens.advantage_T, start_S) / self.length_S
        state_kl_T = tokens.known.get("kl")
        self.largest_state_kl_S = None if state_kl_T is None else np.maximum.reduceat(state_kl_T, start_S)
        self._has_logprobs = logp_mu_T is not None
        self._bins: dict[Key, TokenBins] = {}
        self.thresholds: dict[Key, tuple[set[float], set[float]]] = {}
        """Lower and upper ones that rules have asked `bins` for; given those of an earlier block, the tokens are
        binned once."""

    @classmethod
    def joined(cls, blocks: Sequence[Self]) -> Self:
        """The sequences of several blocks with the same thresholds, without their tokens: no other can be asked."""
        first = blocks[0]
        keys = [key for key in first.thresholds if all(block._has(key) for block in blocks)]
        joined = cls.__new__(cls)
        joined._tokens, joined.thresholds = None, first.thresholds
        joined._bins = {key: TokenBins.joined([block.bins(key) for block in blocks]) for key in keys}
        joined._has_logprobs = all(block._has_logprobs for block in blocks)
        for name in _BY_SEQUENCE:
            values = [getattr(block, name) for block in blocks]
            lacking = any(value_S is None for value_S in values)
            setattr(joined, name, None if lacking else np.concatenate(values))
        return joined

    @property
    def known(self) -> frozenset[str]:
        """What the block has of what rules need, in the words of `catalogue.Need`."""
        has = {
            "state_kl": self.largest_state_kl_S is not None,
            "target": self.target_log_ratio_S is not None,
            "advantages": self.advantage_S is not None,
            "logprobs": self._has_logprobs,
        }
        return frozenset(name for name, known in has.items() if known)

    @cached_property
    def total_log_ratio_S(self) -> Array:
        """log of pi_theta / mu of each sequence; of pi_old / mu where there is no pi_theta."""
        return self.log_ratio_S if self.target_log_ratio_S is None else self.log_ratio_S + self.target_log_ratio_S

    @cached_property
    def mean_k1_S(self) -> Array:
        """Mean of log mu - log pi_theta; of log mu - log pi_old where there is no pi_theta."""
        return -self.total_log_ratio_S / self.length_S

    @cached_property
    def mean_target_log_ratio_S(self) -> Array:
        assert self.target_log_ratio_S is not None
        mean_S: Array = self.target_log_ratio_S / self.length_S
        return mean_S

    @cached_property
    def mean_k3_S(self) -> Array:
        return self._sum_S("k3") / self.length_S

    @cached_property
    def largest_k3_S(self) -> Array:
        """k3 grows on either side of 0, so it is that of one of the extremes."""
        return np.maximum(k3(self.smallest_log_ratio_S), k3(self.largest_log_ratio_S))

    @cached_property
    def mean_error_S(self) -> Array:
        """Mean of exp |d|."""
        return self._sum_S("error") / self.length_S

    @cached_property
    def mean_state_kl_S(self) -> Array:
        return self._sum_S("kl") / self.length_S

    @cached_property
    def mean_ratio_S(self) -> Array:
        return self.sum_ratio_S / self.length_S

    @cached_property
    def sum_ratio_S(self) -> Array:
        return self._sum_S("ratio")

    @cached_property
    def retained_S(self) -> dict[str, Array | None]:
        """Sums over each whole sequence of what is averaged over the retained tokens."""
        bins = self.bins("ratio")
        return {name: bins.known_sum_S(name, bins.within()) for name in RETAINED}

    def far_tokens(self, low: float, high: float) -> tuple[Array, Array]:
        """(d of the tokens outside [low, high], the sequence of each)."""
        assert self._tokens is not None
        log_ratio_T = self._tokens.log_ratio_T
        far_F = np.flatnonzero((log_ratio_T < low) | (log_ratio_T > high))
        return log_ratio_T[far_F], np.searchsorted(self._offsets_S1, far_F, side="right") - 1

    def bins(self, key: Key, lows: Iterable[float] = (), highs: Iterable[float] = ()) -> TokenBins:
        """Sums of each sequence's tokens by the bins of a key that have the given thresholds among their edges.

        Rules that ask for thresholds that are there already share one pass over the tokens.
        """
        found = self._bins.get(key)
        if found is not None and found.has(lows, highs):
            return found
        if self._tokens is None:
            raise ValueError(f"the blocks were not binned at the thresholds {[*lows, *highs]}")
        asked_lows, asked_highs = self.thresholds.setdefault(key, (set(), set()))
        asked_lows.update(lows)
        asked_highs.update(highs)
        self._bins = token_bins(self._tokens, self._offsets_S1, self.thresholds)
        return self._bins[key]

    def _has(self, key: Key) -> bool:
        return key in self._bins if self._tokens is None else key in self._tokens.keys

    def _sum_S(self, name: str) -> Array:
        bins = self.bins("ratio")
        return bins.sum_S(name, bins.within())
