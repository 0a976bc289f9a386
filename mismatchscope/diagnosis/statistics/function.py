"""Of what a gap is a function: of the token and the one before it, of the whole state, or of nothing that repeats.

Shapes: N tokens, M those that are used, G groups of equal tokens or states, S sequences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..evidence import Array
from ..sample import Sample, statistic
from .stat import NOTHING, Stat

_FEWEST_PAIRS = 60
_CLIPPED = 5.0
"""z counts up to so many robust scales: a few large ones would be the whole correlation."""


def _clipped(sample: Sample) -> Array:
    z_N = sample.z_N
    scale = float(np.nanmedian(np.abs(z_N))) / 0.6745 if sample.scaled_N.any() else 0.0
    limit = _CLIPPED * max(scale, 0.3 * sample.floor.value)
    return np.clip(z_N, -limit, limit)


def _correlation_in_groups(value_M: Array, key_M: Array, cluster_M: Array) -> Stat:
    """Intraclass correlation of values with one key, each prompt counted once in a group; by the moment estimator
    of pairs: the mean product of two of a group over the mean square, about the common mean."""
    if len(value_M) < 2:
        return NOTHING
    order = np.lexsort((cluster_M, key_M))
    value_M, key_M, cluster_M = value_M[order], key_M[order], cluster_M[order]
    new_M = np.ones(len(key_M), dtype=bool)
    new_M[1:] = (key_M[1:] != key_M[:-1]) | (cluster_M[1:] != cluster_M[:-1])
    cell_M = np.cumsum(new_M) - 1
    value_C = np.bincount(cell_M, value_M) / np.bincount(cell_M)  # of a prompt and a key
    first = np.flatnonzero(new_M)
    key_C = key_M[first]
    start = np.flatnonzero(np.append(True, key_C[1:] != key_C[:-1]))
    size_G = np.diff(np.append(start, len(key_C)))
    centred_C = value_C - value_C.mean()
    sum_G, square_G = np.add.reduceat(centred_C, start), np.add.reduceat(centred_C**2, start)
    repeated_G = size_G > 1
    n_G, sum_G, square_G = size_G[repeated_G], sum_G[repeated_G], square_G[repeated_G]
    pairs = int(np.sum(n_G * (n_G - 1) // 2))
    if pairs < _FEWEST_PAIRS or len(n_G) < 8:
        return Stat(None, None, None, pairs)
    # Weighted by n / (n − 1), so that one frequent key is not all of it.
    product_G, weight_G = (sum_G**2 - square_G) / (n_G - 1), square_G
    total = float(weight_G.sum())
    if total <= 0:
        return Stat(None, None, None, pairs)
    value = float(product_G.sum()) / total
    residual_G = product_G - value * weight_G
    error = float(np.sqrt(residual_G @ residual_G)) / total
    return Stat(value, value - 1.96 * error, value + 1.96 * error, pairs)


@statistic
def of_bigrams(sample: Sample) -> Stat:
    """Intraclass correlation of z over equal (previous token, token) in other prompts: near 0 of noise and of what
    attention does, 0.2 and more of weights."""
    evidence = sample.evidence
    if evidence.token_N is None or evidence.previous_N is None:
        return NOTHING
    use_N = sample.scaled_N & (evidence.previous_N >= 0)
    key_N = evidence.previous_N.astype(np.int64) * (1 + int(evidence.token_N.max(initial=0))) + evidence.token_N
    return _in_groups(sample, use_N, key_N)


@statistic
def of_tokens(sample: Sample) -> Stat:
    """The same over equal tokens, whatever is before them."""
    token_N = sample.evidence.token_N
    return NOTHING if token_N is None else _in_groups(sample, sample.scaled_N, token_N)


@statistic
def of_previous(sample: Sample) -> Stat:
    """The same over equal tokens before."""
    previous_N = sample.evidence.previous_N
    return NOTHING if previous_N is None else _in_groups(sample, sample.scaled_N & (previous_N >= 0), previous_N)


def _in_groups(sample: Sample, use_N: Array, key_N: Array) -> Stat:
    prompt_N = sample.evidence.prompt_S[sample.evidence.sequence_N]
    return _correlation_in_groups(_clipped(sample)[use_N], key_N[use_N], prompt_N[use_N])


class Repeats(NamedTuple):
    """Tokens whose whole state was seen in two responses of one prompt: the same prefix, and the same token.

    `noise` is the root mean square in floors by which two scores of such a token differ, over √2; `gap` is R of the
    same tokens.
    """

    noise: float
    gap: float
    pairs: int


@statistic
def same_states(sample: Sample) -> Repeats | None:
    """Whether the gap of a state is the same each time it is scored; None of fewer than 20 repeated states."""
    evidence = sample.evidence
    if evidence.token_N is None or not evidence.tokens:
        return None
    key_N = _state_keys(evidence.token_N, evidence.offsets_S1, evidence.prompt_S)
    at = np.flatnonzero(sample.scaled_N)
    order = at[np.argsort(key_N[at], kind="stable")]
    same = np.flatnonzero(key_N[order[1:]] == key_N[order[:-1]])
    if len(same) < 20:
        return None
    first, second = sample.z_N[order[same]], sample.z_N[order[same + 1]]
    noise = float(np.sqrt(np.mean((first - second) ** 2) / 2))
    level = float(np.sqrt(np.mean((first**2 + second**2) / 2)))
    return Repeats(noise / sample.floor.value, level / sample.floor.value, len(same))


def _state_keys(token_N: Array, offsets_S1: Array, prompt_S: Array) -> Array:
    """A hash of the prompt and the response up to and with each token, uint64 [N]: Σ token · B^position."""
    tokens = len(token_N)
    length_S = np.diff(offsets_S1)
    longest = int(length_S.max(initial=0))
    with np.errstate(over="ignore"):
        power = np.cumprod(np.full(longest + 1, 0x9E3779B97F4A7C15, dtype=np.uint64))
        sequence_N = np.repeat(np.arange(len(length_S)), length_S)
        place_N = np.arange(tokens) - offsets_S1[:-1][sequence_N]
        mixed_N = (token_N.astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed_N ^= mixed_N >> np.uint64(29)
        sum_N = np.cumsum(mixed_N * power[place_N], dtype=np.uint64)
        before_S = np.append(np.uint64(0), sum_N)[offsets_S1[:-1]]
        _, prompt_index_S = np.unique(prompt_S, return_inverse=True)
        seed_S = (prompt_index_S.astype(np.uint64) + np.uint64(1)) * np.uint64(0x94D049BB133111EB)
        return (sum_N - before_S[sequence_N]) + seed_S[sequence_N] * power[place_N]


class Concentration(NamedTuple):
    """The fewest ids that hold most of the gap, and the share of tokens they are."""

    ids: Array
    energy: float
    tokens: float


_SHARE_OF_ENERGY = 0.8


@statistic
def of_few_tokens(sample: Sample) -> Concentration | None:
    """Ids of the tokens that hold four fifths of Σ z²."""
    return _concentrated(sample, sample.evidence.token_N)


@statistic
def after_few_tokens(sample: Sample) -> Concentration | None:
    """The same of the tokens before."""
    return _concentrated(sample, sample.evidence.previous_N)


def _concentrated(sample: Sample, id_N: Array | None) -> Concentration | None:
    if id_N is None or np.count_nonzero(sample.scaled_N) < 200:
        return None
    use_N = sample.scaled_N & (id_N >= 0)
    ids, index_M = np.unique(id_N[use_N], return_inverse=True)
    energy_G = np.bincount(index_M, sample.z_N[use_N] ** 2)
    count_G = np.bincount(index_M)
    order = np.argsort(-energy_G)
    total = float(energy_G.sum())
    if total <= 0:
        return None
    needed = int(np.searchsorted(np.cumsum(energy_G[order]), _SHARE_OF_ENERGY * total)) + 1
    chosen = order[:needed]
    return Concentration(
        ids[chosen], float(energy_G[chosen].sum()) / total, float(count_G[chosen].sum()) / int(count_G.sum())
    )
