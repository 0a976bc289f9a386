"""What trainers' metrics need of each response: sums over its tokens, and what is made of these, in groups.

native_sums.c makes the groups that are asked for, in one pass over the tokens. That of the logs is the cheapest:
it takes no exponential.

Legend: N tokens, S responses, S1 = S + 1 boundaries. d = log π − log μ of a token, ρ = exp(d).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .. import kernel
from ..sampled import k3

Array = np.ndarray

_EXPONENT = 20.0  # verl and miles clamp log ratios so before they take exponents
EPSILON = 1e-8
"""verl adds it to every count that it divides by."""
_KL = 10.0  # miles clamps its k3 so
_LOW, _HIGH = 0.5, 2.0  # verl's default threshold and its inverse
_CAP = 3.0  # TRL's default
_CHANGED = 1e-6  # torchtitan's "different"
_LIMITS = np.array([_CHANGED, _CAP, _KL, np.exp(-_EXPONENT), np.exp(_EXPONENT), _LOW, _HIGH])
"""In the order of the C struct."""
_LIMITS_AT = kernel.address(_LIMITS)


class Responses(dict[str, Array]):
    """Values of each response, [S] each, by name: of the tokens, and of the response when it is first read."""

    def __missing__(self, name: str) -> Array:
        made_S = self[name] = _MADE[name](self)
        return made_S


@dataclass(frozen=True)
class Group:
    """`of_tokens` are sums, or extremes where the name says so, in the order of the C struct; `of_response` is made
    of these and of the logs'. `bits` ask native_sums.c for the group and for what it reads."""

    bits: int
    of_tokens: tuple[str, ...]
    of_response: Mapping[str, Callable[[Responses], Array]]


def _safe(log_ratio_S: Array) -> Array:
    return np.exp(np.clip(log_ratio_S, -_EXPONENT, _EXPONENT))


def _capped(ratio_S: Array) -> Array:
    return np.where(ratio_S <= _CAP, ratio_S, 0.0)


_LOGS = Group(
    0,
    (
        *("tokens", "log_ratio", "abs_log_ratio", "square_log_ratio", "changed"),
        *("largest_log_ratio", "smallest_log_ratio", "smallest_abs_log_ratio"),
    ),
    {
        "responses": lambda r: np.ones(len(r["tokens"])),
        "largest_abs_log_ratio": lambda r: np.maximum(r["largest_log_ratio"], -r["smallest_log_ratio"]),
        "largest_ratio": lambda r: np.exp(r["largest_log_ratio"]),
        "smallest_ratio": lambda r: np.exp(r["smallest_log_ratio"]),
        "largest_safe_ratio": lambda r: _safe(r["largest_log_ratio"]),
        "smallest_safe_ratio": lambda r: _safe(r["smallest_log_ratio"]),
        "mean_abs_log_ratio": lambda r: r["abs_log_ratio"] / r["tokens"],
        "sequence_log_ratio": lambda r: r["log_ratio"],
        "sequence_ratio": lambda r: _safe(r["log_ratio"]),
        "square_sequence_ratio": lambda r: r["sequence_ratio"] ** 2,
        "capped_sequence_ratio": lambda r: _capped(np.exp(r["log_ratio"])),
        "clipped_sequence_ratio": lambda r: np.clip(r["sequence_ratio"], _LOW, _HIGH),
        "sequence_above": lambda r: r["log_ratio"] > np.log(_HIGH),
        "sequence_below": lambda r: r["log_ratio"] < np.log(_LOW),
        "token_weighted_sequence_ratio": lambda r: r["sequence_ratio"] * r["tokens"],
        "token_weighted_clipped": lambda r: r["clipped_sequence_ratio"] * r["tokens"],
        "token_weighted_square_clipped": lambda r: r["clipped_sequence_ratio"] ** 2 * r["tokens"],
    },
)
_RATIOS = Group(
    1,
    ("ratio", "ratio_to_cap", "ratio_distance", "k3", "clamped_k3"),
    {
        "mean_ratio": lambda r: r["ratio"] / r["tokens"],
        "mean_ratio_distance": lambda r: r["ratio_distance"] / r["tokens"],
        "mean_clamped_k3": lambda r: r["clamped_k3"] / r["tokens"],
    },
)
_WEIGHTS = Group(
    1 | 2,
    ("safe_ratio", "square_safe_ratio", "ratio_within", "square_ratio_within", "above", "below"),
    {
        "mean_safe_ratio": lambda r: r["safe_ratio"] / (r["tokens"] + EPSILON),
        "mean_safe_ratio_above": lambda r: r["mean_safe_ratio"] > _HIGH,
        "mean_safe_ratio_below": lambda r: r["mean_safe_ratio"] < _LOW,
        "weight_deviation": lambda r: r["mean_safe_ratio"] - 1.0,
        "largest_weight_deviation": lambda r: np.abs(r["weight_deviation"]),
        "square_weight_deviation": lambda r: r["weight_deviation"] ** 2,
    },
)
_PROBABILITIES = Group(
    1 | 4,
    (
        *("log_p_mu", "log_p_pi", "p_mu", "p_pi", "square_p_mu", "square_p_pi", "p_mu_p_pi"),
        *("abs_prob_diff", "square_prob_diff", "largest_abs_prob_diff"),
    ),
    {
        "mean_log_p_mu": lambda r: r["log_p_mu"] / (r["tokens"] + EPSILON),
        "mean_log_p_pi": lambda r: r["log_p_pi"] / (r["tokens"] + EPSILON),
        "perplexity_mu": lambda r: np.exp(-r["mean_log_p_mu"]),
        "perplexity_pi": lambda r: np.exp(-r["mean_log_p_pi"]),
        "mean_k1": lambda r: r["mean_log_p_mu"] - r["mean_log_p_pi"],
        "abs_mean_k1": lambda r: np.abs(r["mean_k1"]),
        "perplexity_ratio": lambda r: np.exp(r["mean_k1"]),
    },
)
_BOTH_WAYS = Group(1 | 8, ("reverse_k3", "exp_abs_log_ratio", "js"), {})

GROUPS = (_LOGS, _RATIOS, _WEIGHTS, _PROBABILITIES, _BOTH_WAYS)
BITS = {name: group.bits for group in GROUPS for name in (*group.of_tokens, *group.of_response)}
"""Of every name: what it needs of native_sums.c."""
_MADE = {name: make for group in GROUPS for name, make in group.of_response.items()}
_OF_TOKENS = tuple(name for group in GROUPS for name in group.of_tokens)


def of_responses(
    logp_mu_N: Array, logp_pi_N: Array, offsets_S1: Array, counts_N: Array | None, bits: int
) -> Responses:
    """Those of the groups that `bits` ask for, and maybe others; the rest is as in `batch_sums.sums_by_batch`."""
    tokens = len(logp_mu_N)
    if len(logp_pi_N) != tokens or (counts_N is not None and len(counts_N) != tokens):
        raise ValueError("both policies and the mask must have the same tokens")
    if offsets_S1[0] < 0 or offsets_S1[-1] > tokens or (offsets_S1[1:] < offsets_S1[:-1]).any():
        raise ValueError(f"boundaries of responses must rise from 0 to {tokens}, the number of tokens, at most")
    library = kernel.library()
    if library is None:
        return _by_numpy(logp_mu_N, logp_pi_N, offsets_S1, counts_N)
    is_float = logp_mu_N.dtype == logp_pi_N.dtype == np.float32
    kind = np.float32 if is_float else np.float64
    mu_N, pi_N = np.ascontiguousarray(logp_mu_N, kind), np.ascontiguousarray(logp_pi_N, kind)
    offsets_S1 = np.ascontiguousarray(offsets_S1, np.int64)
    found_XS = np.empty((len(_OF_TOKENS), len(offsets_S1) - 1))
    library.native_sums(
        *(kernel.address(mu_N, kind), kernel.address(pi_N, kind), is_float),
        None if counts_N is None else kernel.address(counts_N, bool),
        *(kernel.address(offsets_S1, np.int64), found_XS.shape[1], bits, _LIMITS_AT, kernel.address(found_XS)),
    )
    return Responses((name, found_XS[at]) for name, at in _columns(bits))


@functools.cache
def _columns(bits: int) -> list[tuple[str, int]]:
    """The sums that `bits` ask for, and which of native_sums.c's they are."""
    return [(name, at) for at, name in enumerate(_OF_TOKENS) if BITS[name] | bits == bits]


def _by_numpy(logp_mu_N: Array, logp_pi_N: Array, offsets_S1: Array, counts_N: Array | None) -> Responses:
    """All of native_sums.c in arrays of every step: without a compiler, and what the kernel is tested against."""
    if counts_N is not None:
        upto_N1 = np.append(0, np.cumsum(counts_N))
        logp_mu_N, logp_pi_N, offsets_S1 = logp_mu_N[counts_N], logp_pi_N[counts_N], upto_N1[offsets_S1]
    logp_mu_N, logp_pi_N = logp_mu_N.astype(np.float64), logp_pi_N.astype(np.float64)
    start_S = offsets_S1[:-1]

    def total(value_N: Array) -> Array:
        return np.add.reduceat(value_N, start_S)

    d_N = logp_pi_N - logp_mu_N
    size_N, ratio_N = np.abs(d_N), np.exp(d_N)
    p_mu_N, p_pi_N = np.exp(logp_mu_N), np.exp(logp_pi_N)
    gap_N = np.abs(p_mu_N - p_pi_N)
    safe_N = _safe(d_N)
    within_N = np.clip(safe_N, _LOW, _HIGH)
    return Responses(
        {
            "tokens": np.diff(offsets_S1).astype(np.float64),
            "log_ratio": total(d_N),
            "abs_log_ratio": total(size_N),
            "square_log_ratio": total(d_N * d_N),
            "changed": total((size_N > _CHANGED).astype(np.float64)),
            "largest_log_ratio": np.maximum.reduceat(d_N, start_S),
            "smallest_log_ratio": np.minimum.reduceat(d_N, start_S),
            "smallest_abs_log_ratio": np.minimum.reduceat(size_N, start_S),
            "ratio": total(ratio_N),
            "ratio_to_cap": total(np.minimum(ratio_N, _CAP)),
            "ratio_distance": total(np.abs(ratio_N - 1.0)),
            "k3": total(k3(d_N)),
            "clamped_k3": total(np.minimum(k3(np.clip(d_N, -_EXPONENT, _EXPONENT)), _KL)),
            "safe_ratio": total(safe_N),
            "square_safe_ratio": total(safe_N * safe_N),
            "ratio_within": total(within_N),
            "square_ratio_within": total(within_N * within_N),
            "above": total((safe_N > _HIGH).astype(np.float64)),
            "below": total((safe_N < _LOW).astype(np.float64)),
            "log_p_mu": total(logp_mu_N),
            "log_p_pi": total(logp_pi_N),
            "p_mu": total(p_mu_N),
            "p_pi": total(p_pi_N),
            "square_p_mu": total(p_mu_N * p_mu_N),
            "square_p_pi": total(p_pi_N * p_pi_N),
            "p_mu_p_pi": total(p_mu_N * p_pi_N),
            "abs_prob_diff": total(gap_N),
            "square_prob_diff": total(gap_N * gap_N),
            "largest_abs_prob_diff": np.maximum.reduceat(gap_N, start_S),
            "reverse_k3": total(np.where(d_N == -np.inf, np.inf, k3(-d_N))),
            "exp_abs_log_ratio": total(np.exp(size_N)),
            "js": total(_js(logp_mu_N, logp_pi_N)),
        }
    )


def _js(logp_mu_N: Array, logp_pi_N: Array) -> Array:
    """k3 of each policy against the mixture of both, averaged: what NeMo-RL calls a Jensen-Shannon divergence."""
    mixture_N = np.logaddexp(logp_mu_N, logp_pi_N) - np.log(2.0)
    return 0.5 * (k3(logp_pi_N - mixture_N) + k3(logp_mu_N - mixture_N))
