"""The log ratios of some whole sequences, prepared once for every rule.

Legend: T = sampled tokens, one sequence after another; S = sequences; S1 = S + 1 boundaries. Log ratios are
d = log pi_old - log mu and, of the third policy, log pi_theta - log pi_old, in nats.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..sampled import SampledEstimators, ratio_figures
from ..sequence_sums import checked_offsets, checked_tokens
from .bins import TokenBins

Array = np.ndarray


class Binned(Protocol):
    """What rules of tokens look at: of a block, or of all sequences as of one."""

    @property
    def length_S(self) -> Array: ...

    @property
    def sum_ratio_S(self) -> Array: ...

    @property
    def retained_S(self) -> dict[str, Array | None]: ...

    def bins(self, key: str, lows: Iterable[float] = (), highs: Iterable[float] = ()) -> TokenBins: ...


class RatioBlock:
    """`tv_T` and `kl_T` are each state's TV and KL(mu || pi), from full distributions; None where not every state's
    is known. `tv_estimate_T` and `kl_estimate_T` are tokens' values that are unbiased for both, by default
    (1 - rho)_+ and k3. `sampled` has what is otherwise computed from the log ratios.

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
        tv_estimate_T: Array | None = None,
        kl_estimate_T: Array | None = None,
        sampled: SampledEstimators | None = None,
        target_log_ratio_T: ArrayLike | None = None,
        advantage_T: ArrayLike | None = None,
        logp_mu_T: ArrayLike | None = None,
    ) -> None:
        offsets_S1 = checked_offsets(offsets_S1)
        self.starts_S, self.length_S = offsets_S1[:-1], np.diff(offsets_S1)
        self.log_ratio_T = checked_tokens(log_ratio_T, offsets_S1, "log_ratio")
        self.log_ratio_S = np.add.reduceat(self.log_ratio_T, self.starts_S)

        def optional(values_T: ArrayLike | None, name: str) -> Array | None:
            return None if values_T is None else checked_tokens(values_T, offsets_S1, name)

        self.state_tv_T, self.state_kl_T = optional(tv_T, "tv"), optional(kl_T, "kl")
        self.target_log_ratio_T = optional(target_log_ratio_T, "target_log_ratio")
        self.advantage_T, self.logp_mu_T = optional(advantage_T, "advantage"), optional(logp_mu_T, "logp_mu")
        if sampled is not None:
            self.k3_T, shortfall_T, self.ratio_T = sampled.k3, sampled.shortfall, sampled.ratio
        else:
            self.ratio_T, self.k3_T, shortfall_T = ratio_figures(self.log_ratio_T)
        self.tv_estimate_T = shortfall_T if tv_estimate_T is None else tv_estimate_T
        self.kl_estimate_T = self.k3_T if kl_estimate_T is None else kl_estimate_T
        self._shortfall_T = shortfall_T
        self._bins: dict[str, TokenBins] = {}
        self.thresholds: dict[str, tuple[set[float], set[float]]] = {}
        """Lower and upper ones that rules have asked `bins` for; given those of an earlier block, the tokens are
        binned once."""

    @property
    def known(self) -> frozenset[str]:
        """What the block has of what rules need, in the words of `catalogue.Need`."""
        has = {
            "state_kl": self.state_kl_T,
            "target": self.target_log_ratio_T,
            "advantages": self.advantage_T,
            "logprobs": self.logp_mu_T,
        }
        return frozenset(name for name, values_T in has.items() if values_T is not None)

    @cached_property
    def square_T(self) -> Array:
        return self.ratio_T * self.ratio_T

    @cached_property
    def target_ratio_T(self) -> Array:
        """pi_theta / pi_old."""
        assert self.target_log_ratio_T is not None
        with np.errstate(over="ignore"):
            return np.exp(self.target_log_ratio_T)

    @cached_property
    def total_log_ratio_T(self) -> Array:
        """log of pi_theta / mu; of pi_old / mu where there is no pi_theta."""
        return self.log_ratio_T if self.target_log_ratio_T is None else self.log_ratio_T + self.target_log_ratio_T

    @cached_property
    def total_ratio_T(self) -> Array:
        if self.target_log_ratio_T is None:
            return self.ratio_T
        with np.errstate(over="ignore"):
            return np.exp(self.total_log_ratio_T)

    @cached_property
    def total_square_T(self) -> Array:
        return self.square_T if self.target_log_ratio_T is None else self.total_ratio_T**2

    @cached_property
    def mu_T(self) -> Array:
        assert self.logp_mu_T is not None
        return np.exp(self.logp_mu_T)

    @cached_property
    def probability_change_T(self) -> Array:
        """pi_theta(a) - mu(a) of the sampled tokens; pi_old(a) - mu(a) where there is no pi_theta."""
        return self.mu_T * np.expm1(self.total_log_ratio_T)

    @cached_property
    def sign_T(self) -> Array:
        """1, 0 or 2 for tokens whose advantage is positive, zero or negative."""
        assert self.advantage_T is not None
        positive_T, negative_T = self.advantage_T > 0, self.advantage_T < 0
        return positive_T.view(np.int8) + negative_T.view(np.int8) * np.int8(2)

    @cached_property
    def advantage_S(self) -> Array:
        """Mean advantage of each sequence."""
        assert self.advantage_T is not None
        return self.mean_S(self.advantage_T)

    @cached_property
    def mean_k1_S(self) -> Array:
        """Mean of log mu - log pi_theta; of log mu - log pi_old where there is no pi_theta."""
        return -self.mean_S(self.total_log_ratio_T)

    @cached_property
    def mean_target_log_ratio_S(self) -> Array:
        assert self.target_log_ratio_T is not None
        return self.mean_S(self.target_log_ratio_T)

    @cached_property
    def mean_k3_S(self) -> Array:
        return self.mean_S(self.k3_T)

    @cached_property
    def largest_k3_S(self) -> Array:
        return np.maximum.reduceat(self.k3_T, self.starts_S)

    @cached_property
    def smallest_log_ratio_S(self) -> Array:
        return np.minimum.reduceat(self.log_ratio_T, self.starts_S)

    @cached_property
    def largest_log_ratio_S(self) -> Array:
        return np.maximum.reduceat(self.log_ratio_T, self.starts_S)

    @cached_property
    def mean_error_S(self) -> Array:
        """Mean of exp |d|."""
        with np.errstate(over="ignore"):
            return self.mean_S(np.exp(np.abs(self.log_ratio_T)))

    @cached_property
    def mean_ratio_S(self) -> Array:
        return self.mean_S(self.ratio_T)

    @cached_property
    def sum_ratio_S(self) -> Array:
        return np.add.reduceat(self.ratio_T, self.starts_S)

    @cached_property
    def retained_S(self) -> dict[str, Array | None]:
        """Sums over each whole sequence of what is averaged over the retained tokens."""
        values = {
            "ratio": self.ratio_T,
            "tv_estimate": self.tv_estimate_T,
            "kl_estimate": self.kl_estimate_T,
            "tv": self.state_tv_T,
            "kl": self.state_kl_T,
        }
        return {
            name: None if values_T is None else np.add.reduceat(values_T, self.starts_S)
            for name, values_T in values.items()
        }

    def mean_S(self, values_T: Array) -> Array:
        return np.add.reduceat(values_T, self.starts_S) / self.length_S

    def bins(self, key: str, lows: Iterable[float] = (), highs: Iterable[float] = ()) -> TokenBins:
        """Sums of each sequence's tokens by bins of "ratio" (d), "target" (log pi_theta - log pi_old, by the
        advantage's sign) or "change" (of the probability, by the advantage's sign), that have the given thresholds
        among their edges. Rules that ask for thresholds that are there already share one pass over the tokens.
        """
        found = self._bins.get(key)
        if found is None or not found.has(lows, highs):
            asked_lows, asked_highs = self.thresholds.setdefault(key, (set(), set()))
            asked_lows.update(lows)
            asked_highs.update(highs)
            found = self._bins[key] = self._binned(key, asked_lows, asked_highs)
        return found

    def _binned(self, key: str, lows: Iterable[float], highs: Iterable[float]) -> TokenBins:
        values = {
            "ratio": self.ratio_T,
            "square": self.square_T,
            "shortfall": self._shortfall_T,
            "tv_estimate": self.tv_estimate_T,
            "kl_estimate": self.kl_estimate_T,
            "tv": self.state_tv_T,
            "kl": self.state_kl_T,
        }
        key_T: Array | None = self.log_ratio_T
        sign_T = None
        if key != "ratio":
            key_T = self.probability_change_T if key == "change" else self.target_log_ratio_T
            sign_T = None if self.advantage_T is None else self.sign_T
            values |= {"weight": self.total_ratio_T, "weight_square": self.total_square_T}
        if key == "target":
            values |= {"target": self.target_ratio_T, "target_square": self.target_ratio_T**2}
        assert key_T is not None
        return TokenBins(key_T, self.starts_S, values, sign_T, lows, highs, groups=1 if key == "ratio" else 3)
