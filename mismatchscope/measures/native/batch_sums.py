"""What every trainer's metrics of one batch are functions of: sums and extremes over its tokens and responses.

Legend: N tokens that the trainer's mask keeps, S responses, S1 = S + 1 boundaries, B batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .. import kernel
from ..sampled import k3
from ..token_sums import TokenSums, token_sums

Array = np.ndarray

_EXPONENT = 20.0  # verl and miles clamp log ratios so before they take exponents
EPSILON = 1e-8
"""verl adds it to every count that it divides by."""
_KL = 10.0  # miles clamps its k3 so
_LOW, _HIGH = 0.5, 2.0  # verl's default threshold and its inverse
_CAP = 3.0  # TRL's default
_CHANGED = 1e-6  # torchtitan's "different"


@dataclass(eq=False)
class BatchSums:
    """Of one batch. `total` has sums, `largest` and `smallest` extremes, by the names that `of_responses` gives."""

    total: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    smallest: dict[str, float] = field(default_factory=dict)

    def merge(self, other: BatchSums) -> None:
        """Take in other responses of the same batch."""
        for mine, theirs, join in (
            (self.total, other.total, float.__add__),
            (self.largest, other.largest, max),
            (self.smallest, other.smallest, min),
        ):
            for name, value in theirs.items():
                mine[name] = join(mine[name], value) if name in mine else value

    def mean(self, name: str) -> float:
        """Over tokens."""
        return self.total[name] / self.total["tokens"]

    def response_mean(self, name: str) -> float:
        """Over responses."""
        return self.total[name] / self.total["responses"]


def sums_by_batch(
    logp_mu_N: Array,
    logp_pi_N: Array,
    offsets_S1: Array,
    batch_S: Array,
    *,
    counts_N: Array | None = None,
    sums: TokenSums | None = None,
) -> dict[int, BatchSums]:
    """The sums of each batch of these responses; `batch_S` is the number of the batch of each, [S].

    `counts_N` says which tokens count, where others lie between them, as padding does; `sums` are those of the
    responses, where they are known. Log-probs that count are natural and legal: see `sampled.sampled_estimators`.
    No response is empty.
    """
    total, largest, smallest = _of_responses(logp_mu_N, logp_pi_N, offsets_S1, counts_N, sums)
    batch_B, which_S = np.unique(batch_S, return_inverse=True)
    added = {name: np.bincount(which_S, weights=value_S) for name, value_S in total.items()}
    highest = {name: _extremes(np.maximum, value_S, which_S, -np.inf) for name, value_S in largest.items()}
    lowest = {name: _extremes(np.minimum, value_S, which_S, np.inf) for name, value_S in smallest.items()}
    return {
        batch: BatchSums(
            *({name: float(value_B[at]) for name, value_B in each.items()} for each in (added, highest, lowest))
        )
        for at, batch in enumerate(batch_B.tolist())
    }


def _extremes(join: np.ufunc, value_S: Array, which_S: Array, start: float) -> Array:
    found_B = np.full(int(which_S.max()) + 1, start)
    join.at(found_B, which_S, value_S)
    return found_B


def _of_responses(
    logp_mu_N: Array, logp_pi_N: Array, offsets_S1: Array, counts_N: Array | None, known: TokenSums | None
) -> tuple[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]]:
    """Sums, maxima and minima of each response, [S] each."""
    with np.errstate(over="ignore", invalid="ignore"):  # a leak makes some of these infinite, or unknown
        if kernel.library() is None:
            sums, largest, smallest = _by_numpy(logp_mu_N, logp_pi_N, offsets_S1, counts_N)
        else:
            sums, largest, smallest = _by_kernel(logp_mu_N, logp_pi_N, offsets_S1, counts_N, known)
        length_S, d_S = sums["tokens"], sums["log_ratio"]
        divisor_S = length_S + EPSILON
        of_mu_S, of_pi_S = sums.pop("log_p_mu") / divisor_S, sums.pop("log_p_pi") / divisor_S
        fall_S = of_mu_S - of_pi_S
        safe_S, ratio_S = np.exp(np.clip(d_S, -_EXPONENT, _EXPONENT)), np.exp(d_S)
        weight_S = sums["safe_ratio"] / divisor_S
        capped_S = np.where(ratio_S <= _CAP, ratio_S, 0.0)
        clipped_S = np.clip(safe_S, _LOW, _HIGH)
        sums |= {
            "responses": np.ones(len(length_S)),
            "mean_log_p_mu": of_mu_S,
            "mean_log_p_pi": of_pi_S,
            "perplexity_mu": np.exp(-of_mu_S),
            "perplexity_pi": np.exp(-of_pi_S),
            "mean_k1": fall_S,
            "abs_mean_k1": np.abs(fall_S),
            "perplexity_ratio": np.exp(fall_S),
            "mean_abs_log_ratio": sums["abs_log_ratio"] / length_S,
            "mean_clamped_k3": sums.pop("clamped_k3") / length_S,
            "mean_ratio_distance": sums.pop("ratio_distance") / length_S,
            "mean_ratio": sums["ratio"] / length_S,
            "square_sequence_ratio": safe_S * safe_S,
            "sequence_ratio": safe_S,
            "capped_sequence_ratio": capped_S,
            "token_weighted_sequence_ratio": safe_S * length_S,
            "sequence_above": (d_S > np.log(_HIGH)).astype(np.float64),
            "sequence_below": (d_S < np.log(_LOW)).astype(np.float64),
            "token_weighted_clipped": clipped_S * length_S,
            "token_weighted_square_clipped": clipped_S * clipped_S * length_S,
            "mean_safe_ratio": weight_S,
            "weight_deviation": weight_S - 1.0,
            "square_weight_deviation": (weight_S - 1.0) ** 2,
            "mean_safe_ratio_above": (weight_S > _HIGH).astype(np.float64),
            "mean_safe_ratio_below": (weight_S < _LOW).astype(np.float64),
        }
    of_responses = {
        "sequence_log_ratio": d_S,
        "mean_k1": fall_S,
        "mean_safe_ratio": weight_S,
        "capped_sequence_ratio": capped_S,
    }
    return sums, largest | of_responses | {"weight_deviation": np.abs(weight_S - 1.0)}, smallest | of_responses


_EXTRA = (
    *("changed", "js", "safe_ratio", "square_safe_ratio", "ratio_within", "square_ratio_within", "above", "below"),
    *("clamped_k3", "ratio_distance", "ratio_to_3"),
)
"""What native_sums.c adds to `TokenSums`: the layout of its result."""
_LIMITS = np.array([_CHANGED, _EXPONENT, _LOW, _HIGH, _KL, _CAP])


def _by_kernel(
    logp_mu_N: Array, logp_pi_N: Array, offsets_S1: Array, counts_N: Array | None, known: TokenSums | None
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Sums, maxima and minima over the tokens of each response."""
    mu_N, pi_N = (np.ascontiguousarray(each, np.float64) for each in (logp_mu_N, logp_pi_N))
    offsets_S1 = np.ascontiguousarray(offsets_S1, np.int64)
    found = token_sums(mu_N, pi_N, offsets_S1, counts_N=counts_N) if known is None else known
    extra_SX, library = np.empty((len(offsets_S1) - 1, len(_EXTRA))), kernel.library()
    assert library is not None
    library.native_sums(
        *(kernel.address(mu_N), kernel.address(pi_N), None if counts_N is None else kernel.address(counts_N, bool)),
        *(kernel.address(offsets_S1, np.int64), len(extra_SX), kernel.address(_LIMITS), kernel.address(extra_SX)),
    )
    sums = dict(zip(_EXTRA, extra_SX.T, strict=True)) | {
        "tokens": found.tokens,
        "log_ratio": found.log_ratio,
        "abs_log_ratio": found.abs_logprob_diff,
        "square_log_ratio": found.log_ratio_square,
        "k3": found.k3,
        "reverse_k3": found.reverse_k3,
        "exp_abs_log_ratio": found.exp_abs_diff,
        "abs_prob_diff": found.abs_prob_diff,
        "square_prob_diff": found.prob_diff_square,
        "ratio": found.ratio,
        "p_mu": found.prob_mu,
        "p_pi": found.prob_pi,
        "square_p_mu": found.prob_mu_square,
        "square_p_pi": found.prob_pi_square,
        "p_mu_p_pi": found.prob_product,
        "log_p_mu": found.logp_mu,
        "log_p_pi": found.logp_pi,
    }
    rise_S, fall_S = found.largest_log_ratio, found.smallest_log_ratio
    largest = {
        "abs_log_ratio": found.largest_abs_logprob_diff,
        "abs_prob_diff": found.largest_abs_prob_diff,
        "safe_ratio": np.exp(np.clip(rise_S, -_EXPONENT, _EXPONENT)),
        "ratio": np.exp(rise_S),
    }
    smallest = {
        "abs_log_ratio": found.smallest_abs_logprob_diff,
        "safe_ratio": np.exp(np.clip(fall_S, -_EXPONENT, _EXPONENT)),
        "ratio": np.exp(fall_S),
    }
    return sums, largest, smallest


def _by_numpy(
    logp_mu_N: Array, logp_pi_N: Array, offsets_S1: Array, counts_N: Array | None
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """`_by_kernel` in arrays of every step: without a compiler, and what the kernel is tested against."""
    if counts_N is not None:
        upto_N1 = np.append(0, np.cumsum(counts_N))
        logp_mu_N, logp_pi_N, offsets_S1 = logp_mu_N[counts_N], logp_pi_N[counts_N], upto_N1[offsets_S1]
    start_S = offsets_S1[:-1]

    def total(value_N: Array) -> Array:
        return np.add.reduceat(value_N, start_S)

    d_N = logp_pi_N - logp_mu_N
    size_N, ratio_N = np.abs(d_N), np.exp(d_N)
    p_mu_N, p_pi_N = np.exp(logp_mu_N), np.exp(logp_pi_N)
    gap_N = np.abs(p_mu_N - p_pi_N)
    clamped_N = np.clip(d_N, -_EXPONENT, _EXPONENT)
    safe_N = np.exp(clamped_N)
    within_N = np.clip(safe_N, _LOW, _HIGH)
    sums = {
        "tokens": np.diff(offsets_S1).astype(np.float64),
        "log_ratio": total(d_N),
        "abs_log_ratio": total(size_N),
        "square_log_ratio": total(d_N * d_N),
        "changed": total((size_N > _CHANGED).astype(np.float64)),
        "k3": total(k3(d_N)),
        "reverse_k3": total(np.where(d_N == -np.inf, np.inf, k3(-d_N))),
        "js": total(_js(logp_mu_N, logp_pi_N)),
        "exp_abs_log_ratio": total(np.exp(size_N)),
        "abs_prob_diff": total(gap_N),
        "square_prob_diff": total(gap_N * gap_N),
        "ratio": total(ratio_N),
        "ratio_to_3": total(np.minimum(ratio_N, _CAP)),
        "safe_ratio": total(safe_N),
        "square_safe_ratio": total(safe_N * safe_N),
        "ratio_within": total(within_N),
        "square_ratio_within": total(within_N * within_N),
        "above": total((safe_N > _HIGH).astype(np.float64)),
        "below": total((safe_N < _LOW).astype(np.float64)),
        "p_mu": total(p_mu_N),
        "p_pi": total(p_pi_N),
        "square_p_mu": total(p_mu_N * p_mu_N),
        "square_p_pi": total(p_pi_N * p_pi_N),
        "p_mu_p_pi": total(p_mu_N * p_pi_N),
        "log_p_mu": total(logp_mu_N),
        "log_p_pi": total(logp_pi_N),
        "clamped_k3": total(np.minimum(k3(clamped_N), _KL)),
        "ratio_distance": total(np.abs(ratio_N - 1.0)),
    }
    largest = {
        "abs_log_ratio": np.maximum.reduceat(size_N, start_S),
        "abs_prob_diff": np.maximum.reduceat(gap_N, start_S),
        "safe_ratio": np.maximum.reduceat(safe_N, start_S),
        "ratio": np.maximum.reduceat(ratio_N, start_S),
    }
    smallest = {
        "abs_log_ratio": np.minimum.reduceat(size_N, start_S),
        "safe_ratio": np.minimum.reduceat(safe_N, start_S),
        "ratio": np.minimum.reduceat(ratio_N, start_S),
    }
    return sums, largest, smallest


def _js(logp_mu_N: Array, logp_pi_N: Array) -> Array:
    """k3 of each policy against the mixture of both, averaged: what NeMo-RL calls a Jensen-Shannon divergence."""
    mixture_N = np.logaddexp(logp_mu_N, logp_pi_N) - np.log(2.0)
    return 0.5 * (k3(logp_pi_N - mixture_N) + k3(logp_mu_N - mixture_N))


@dataclass(frozen=True)
class Definition:
    """A metric as a trainer computes it.

    `definition` says how, averages included, `estimates` which quantity that is, if any. `variant` tells settings
    of a trainer apart that log under one name. `over_ranks` says that the trainer averages what each rank has.
    """

    name: str
    definition: str
    estimates: str
    value: Callable[[BatchSums], float]
    variant: str = ""
    over_ranks: bool = False


def spread(sums: BatchSums, name: str, square: str) -> float:
    """Standard deviation over tokens, n − 1 in the denominator, of a quantity whose sum and sum of squares are
    known; NaN of one token alone."""
    n, mean = sums.total["tokens"], sums.mean(name)
    return float(np.sqrt(max(sums.mean(square) - mean * mean, 0.0) * n / (n - 1))) if n > 1 else float("nan")
