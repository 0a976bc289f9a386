"""The policies behind the engine `synthetic`: next-token distributions whose divergences are known exactly.

A hidden base policy p_s is a function of (seed, prompt, prefix) alone: the state is hashed, and the hash of (state,
token) gives the token's weight. Two engines with the same seed have the same "weights"; an engine departs from them
only as its options say:

    tv, leak   by mixing with point masses, so that TV(s) = tv·u_s + leak and the support leak is `leak`, exactly
    epsilon    by logit errors in ±epsilon, always the same ones: TV(s) ≤ tanh(epsilon / 2)
    noise      by logit errors in ±noise that depend on the batch: the repeat floor, TV(s) ≤ tanh(noise)

u_s in [0, 1) is ((1 - cluster)·U_s + cluster·U_prompt)^tail with uniform U: `cluster` makes the states of a prompt
alike, a large `tail` makes most of them harmless and a few not.

Shapes: N states, T response tokens, B sequences of a batch, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import SpecError
from ...records import Policy, Sampling
from ..base import Options, option

END_OF_SEQUENCE = 0

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# What a hash of a state is used for; a different constant gives an independent number.
_WEIGHT, _EPSILON, _NOISE, _FACTOR, _RECEIVER = (np.uint64(n) << np.uint64(56) for n in range(1, 6))


@dataclass(frozen=True)
class SyntheticOptions(Options):
    """The keys of a `synthetic` SPEC. The first five are the "weights": both sides need the same."""

    seed: int = option(0, "of the base policy")
    vocabulary: int = option(64, "number of token ids; 0 ends a sequence")
    sharpness: float = option(2.0, "p(a) ∝ U^-sharpness with U uniform: 0 is the uniform distribution")
    mean_length: float = option(32.0, "1 / probability of the end; 0: never ends before max_new_tokens")
    unreachable: int = option(0, "the last ids, to which the base policy gives no mass: a padded vocabulary")
    tv: float = option(0.0, "largest TV to the base policy, below 0.5")
    leak: float = option(0.0, "mass put on the last id, which must be unreachable")
    epsilon: float = option(0.0, "half width of a fixed logit error")
    noise: float = option(0.0, "half width of a logit error that depends on the batch and the path")
    tail: float = option(1.0, "exponent that concentrates tv in few states")
    cluster: float = option(0.0, "share of a state's tv factor that all states of its prompt have in common")
    variant: int = option(0, "which perturbation of this size: another number, independent errors")
    batch_size: int = option(32, "sequences in a batch")
    slow: float = option(0.0, "seconds that every sequence takes longer")
    nan_at: int | None = option(None, "sequence id whose first state comes out as NaN")
    fail_at: int | None = option(None, "sequence id at which the process is killed")

    def __post_init__(self) -> None:
        for holds, rule in (
            (self.vocabulary - self.unreachable >= 3, "vocabulary - unreachable must be 3 or more"),
            (self.mean_length == 0 or self.mean_length > 1, "mean_length must be 0 or above 1"),
            (self.unreachable >= 0, "unreachable must not be negative"),
            (self.tv >= 0 and self.leak >= 0 and self.tv + self.leak < 0.5, "tv + leak must be in [0, 0.5)"),
            (self.leak == 0 or self.unreachable > 0, "leak needs unreachable=1 or more, on both sides"),
            (self.epsilon >= 0 and self.noise >= 0, "epsilon and noise must not be negative"),
            (self.tail > 0 and 0 <= self.cluster <= 1, "tail must be positive and cluster in [0, 1]"),
            (self.batch_size >= 1, "batch_size must be 1 or more"),
        ):
            if not holds:
                raise SpecError(f"synthetic: {rule}.", hint="see the options of the engine synthetic")

    @property
    def weights(self) -> tuple[float, ...]:
        """What identifies the base policy."""
        return (self.seed, self.vocabulary, self.sharpness, self.mean_length, self.unreachable)


@dataclass(frozen=True)
class States:
    """Hashed states, and for each the hash of its prompt."""

    key_N: np.ndarray  # uint64
    prompt_key_N: np.ndarray  # uint64

    def __getitem__(self, index: Any) -> States:
        return States(self.key_N[index], self.prompt_key_N[index])

    @classmethod
    def of_prompts(cls, options: SyntheticOptions, prompts: Sequence[np.ndarray]) -> States:
        """The states before the first response token."""
        key_B = np.array(
            [hash64(options.weights, prompt.astype(np.int64).tobytes()) for prompt in prompts], np.uint64
        )
        return cls(key_B, key_B)

    def after(self, token_N: np.ndarray) -> States:
        """The states that follow when each takes its token."""
        return States(_mix(self.key_N + (token_N.astype(np.uint64) + np.uint64(1)) * _GOLDEN), self.prompt_key_N)

    @classmethod
    def along(cls, options: SyntheticOptions, prompt: np.ndarray, response_T: np.ndarray) -> States:
        """The state before each token of one response."""
        state = cls.of_prompts(options, [prompt])
        keys = []
        for position in range(len(response_T)):
            keys.append(state.key_N)
            state = state.after(response_T[position : position + 1])
        key_T = np.concatenate([*keys, np.empty(0, np.uint64)])
        return cls(key_T, np.broadcast_to(state.prompt_key_N, key_T.shape))


def raw_logprobs(
    options: SyntheticOptions, states: States, temperature: float = 1.0, noise_key: int = 0
) -> np.ndarray:
    """Log-probs [N, V] of an engine with these options, before top-k and top-p; -inf is "excluded".

    `tv` and `leak` act after the temperature, so that they hold whatever it is.
    """
    logits_NV = _base_logits(options, states)
    if options.epsilon:
        logits_NV += options.epsilon * _errors(options, states, _EPSILON, options.variant)
    if options.noise:
        logits_NV += options.noise * _errors(options, states, _NOISE, noise_key)
    return _shift(options, states, _log_softmax(logits_NV / temperature))


def sampled_logprobs(
    options: SyntheticOptions, states: States, sampling: Sampling, noise_key: int = 0
) -> np.ndarray:
    """Log-probs [N, V] of the distribution sampled from: temperature, then top-k, then top-p."""
    logp_NV = raw_logprobs(options, states, sampling.temperature or 1.0, noise_key)
    if sampling.temperature > 0 and sampling.top_k == 0 and sampling.top_p == 1:
        return logp_NV
    # Ranks from 0 by falling probability, equals by id.
    order_NV = np.argsort(-logp_NV, axis=1, kind="stable")
    sorted_NV = np.exp(np.take_along_axis(logp_NV, order_NV, axis=1))
    rank_V = np.arange(options.vocabulary)
    keep = 1 if sampling.temperature == 0 else sampling.top_k or options.vocabulary
    kept_NV = np.broadcast_to(rank_V < keep, sorted_NV.shape)
    if sampling.top_p < 1 and sampling.temperature > 0:
        sorted_NV = np.where(kept_NV, sorted_NV, 0.0)
        sorted_NV /= sorted_NV.sum(axis=1, keepdims=True)
        before_NV = np.cumsum(sorted_NV, axis=1) - sorted_NV
        kept_NV = kept_NV & ((before_NV < sampling.top_p) | (rank_V == 0))
    excluded_NV = np.empty(kept_NV.shape, dtype=bool)
    np.put_along_axis(excluded_NV, order_NV, ~kept_NV, axis=1)
    return _log_softmax(np.where(excluded_NV, -np.inf, logp_NV))


def tv_factors(options: SyntheticOptions, states: States) -> np.ndarray:
    """u_s [N]: the TV of this engine to the base policy is tv·u_s + leak."""
    u_N = _uniform(states.key_N + _FACTOR, options.variant)
    prompt_u_N = _uniform(states.prompt_key_N - _FACTOR, options.variant)
    return ((1 - options.cluster) * u_N + options.cluster * prompt_u_N) ** options.tail


@dataclass(frozen=True)
class Divergences:
    """What a perfect measurement finds, state by state; +inf where μ has no mass and π has."""

    tv_T: np.ndarray
    kl_T: np.ndarray  # KL(μ‖π)
    reverse_kl_T: np.ndarray
    leak_T: np.ndarray
    log_ratio_T: np.ndarray  # log π − log μ of the sampled token


def true_divergences(
    behavior: SyntheticOptions,
    reference: SyntheticOptions,
    prompt: np.ndarray,
    response_T: np.ndarray,
    sampling: Sampling,
    policy: Policy = "processed",
) -> Divergences:
    """From both whole distributions in float64, by definition; without the noise of either side.

    `raw` compares both before any transform; `processed` what was sampled from with the reference at the same
    temperature; `support` the same, the reference renormalised on what μ keeps.
    """
    states = States.along(behavior, prompt, response_T)
    other = States.along(reference, prompt, response_T)
    if policy == "raw":
        log_mu_TV, log_pi_TV = raw_logprobs(behavior, states), raw_logprobs(reference, other)
    else:
        log_mu_TV = sampled_logprobs(behavior, states, sampling)
        log_pi_TV = raw_logprobs(reference, other, sampling.temperature or 1.0)
    if policy == "support":
        log_pi_TV = _log_softmax(np.where(np.isinf(log_mu_TV), -np.inf, log_pi_TV))
    mu_TV, pi_TV = np.exp(log_mu_TV), np.exp(log_pi_TV)
    return Divergences(
        tv_T=0.5 * np.abs(mu_TV - pi_TV).sum(axis=1),
        kl_T=_kl(log_mu_TV, log_pi_TV),
        reverse_kl_T=_kl(log_pi_TV, log_mu_TV),
        leak_T=np.where(mu_TV == 0, pi_TV, 0.0).sum(axis=1),
        log_ratio_T=_at(log_pi_TV, response_T) - _at(log_mu_TV, response_T),
    )


def hash64(*values: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=8).digest(), "little")


def _base_logits(options: SyntheticOptions, states: States) -> np.ndarray:
    logits_NV = -options.sharpness * np.log(_token_uniforms(options, states, _WEIGHT, 0))
    logits_NV[:, options.vocabulary - options.unreachable :] = -np.inf
    if options.mean_length:
        logits_NV[:, END_OF_SEQUENCE] = -np.inf
        others_N = np.logaddexp.reduce(logits_NV, axis=1)
        logits_NV[:, END_OF_SEQUENCE] = others_N - np.log(options.mean_length - 1)
    return logits_NV


def _shift(options: SyntheticOptions, states: States, logp_NV: np.ndarray) -> np.ndarray:
    """Mix in a token r of the state's own and the last id: π = (1 − m) p + (m − leak) e_r + leak e_last.

    Only r and the last id gain, so TV = m (1 − p_r), which m = (tv·u_s + leak) / (1 − p_r) makes what is asked for.
    """
    if not options.tv and not options.leak:
        return logp_NV
    row_N, receiver_N = np.arange(len(logp_NV)), _receivers(options, states, logp_NV)
    receiver_p_N = np.exp(logp_NV[row_N, receiver_N])
    tv_N = options.tv * tv_factors(options, states)
    mixed_N = (tv_N + options.leak) / (1 - receiver_p_N)
    gained_N = (tv_N + options.leak * receiver_p_N) / (1 - receiver_p_N)  # m − leak, without the cancellation
    shifted_NV = logp_NV + np.log1p(-mixed_N)[:, None]
    shifted_NV[row_N, receiver_N] = np.log((1 - mixed_N) * receiver_p_N + gained_N)
    if options.leak:
        shifted_NV[:, -1] = np.log(options.leak)
    return shifted_NV


def _receivers(options: SyntheticOptions, states: States, logp_NV: np.ndarray) -> np.ndarray:
    """One token a state, drawn from p among those with at most half of its mass: the others have enough to give."""
    p_NV = np.where(logp_NV > np.log(0.5), 0.0, np.exp(logp_NV))
    cdf_NV = p_NV.cumsum(axis=1)
    level_N = _uniform(states.key_N + _RECEIVER, options.variant) * cdf_NV[:, -1]
    receiver_N = (cdf_NV <= level_N[:, None]).sum(axis=1)
    return np.minimum(receiver_N, options.vocabulary - options.unreachable - 1)


def _kl(log_p_TV: np.ndarray, log_q_TV: np.ndarray) -> np.ndarray:
    """leak + Σ p (expm1(d) − d), d = log q − log p: the terms are not negative, so none cancels another."""
    inside_TV = np.isfinite(log_p_TV)
    d_TV = np.where(inside_TV, log_q_TV, 0.0) - np.where(inside_TV, log_p_TV, 0.0)
    leak_T = np.where(inside_TV, 0.0, np.exp(log_q_TV)).sum(axis=1)
    return leak_T + np.where(inside_TV, np.exp(log_p_TV) * (np.expm1(d_TV) - d_TV), 0.0).sum(axis=1)


def _at(logp_TV: np.ndarray, token_T: np.ndarray) -> np.ndarray:
    return logp_TV[np.arange(len(token_T)), token_T]


def _log_softmax(logits_NV: np.ndarray) -> np.ndarray:
    shifted_NV = logits_NV - logits_NV.max(axis=1, keepdims=True)
    return shifted_NV - np.log(np.exp(shifted_NV).sum(axis=1, keepdims=True))


def _errors(options: SyntheticOptions, states: States, purpose: np.uint64, key: int) -> np.ndarray:
    """Independent uniform numbers [N, V] in ±1."""
    return 2 * _token_uniforms(options, states, purpose, key) - 1


def _token_uniforms(options: SyntheticOptions, states: States, purpose: np.uint64, key: int) -> np.ndarray:
    token_V = np.arange(1, options.vocabulary + 1, dtype=np.uint64) * _GOLDEN
    return _uniform((states.key_N + purpose)[:, None] + token_V, key)


def _uniform(key: np.ndarray, salt: int) -> np.ndarray:
    """Uniform numbers in (0, 1), one a key."""
    return (_mix(key ^ np.uint64(salt)) >> np.uint64(11)) * 2.0**-53 + 2.0**-54


def _mix(key: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
