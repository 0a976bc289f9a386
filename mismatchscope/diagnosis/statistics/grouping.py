"""Which sequences have a gap: all alike, some of them, or those of a worker, a version or a place.

Shapes: N tokens, S sequences, K those with a label and a level, U units that are permuted, C contrasts, R
permutations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...measures.intraclass import intraclass
from ..evidence import Array
from ..sample import Sample, statistic
from .position import gap_of, log_gap
from .stat import Stat, regression

_PERMUTATIONS = (199, 1999)
"""At the least and at the most; fewer of many sequences, of which Student's t says as much."""
_MOST_DRAWS = 400_000
_FEWEST_TOKENS = 4
"""Of a sequence that is compared with others."""
_DOUBTFUL = 0.025
_ALMOST_ALL = 0.85
FEWEST_SEQUENCES = 10
_MOST_GROUPS = 12
"""A number with more values than this is taken in eight parts."""


@statistic
def level_S(sample: Sample) -> Array:
    """Mean log |z| of each sequence, NaN of those with fewer than four tokens that say something [S]."""
    count_S = sample.by_sequence(sample.scaled_N)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count_S >= _FEWEST_TOKENS, sample.by_sequence(log_gap(sample)) / count_S, np.nan)


@statistic
def gap_S(sample: Sample) -> Array:
    """R of each sequence, NaN of those with fewer than four tokens that say something [S]."""
    count_S = sample.by_sequence(sample.scaled_N)
    squares_S = sample.by_sequence(np.where(sample.scaled_N, np.nan_to_num(sample.gap_N) ** 2, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count_S >= _FEWEST_TOKENS, np.sqrt(squares_S / count_S), np.nan)


@statistic
def of_sequences(sample: Sample) -> Stat:
    """Intraclass correlation of log |z| by sequence: 0 where a gap is alike in all of them."""
    value_N = log_gap(sample)
    found = intraclass(
        sample.by_sequence(sample.scaled_N), sample.by_sequence(value_N), sample.by_sequence(value_N**2)
    )
    return Stat(found.value, found.low, found.high, found.n)


class Mixture(NamedTuple):
    """Sequences in two parts by their level [S]: `high_S` says which are above the floor."""

    high_S: Array
    share: float
    low_gap: Stat
    high_gap: Stat
    separation: float
    """Distance of the two means in standard deviations within the parts."""


@statistic
def two_means(sample: Sample) -> Mixture | None:
    """The best split of the sequences' levels in two (Otsu's threshold)."""
    value_S = level_S(sample)
    known = np.flatnonzero(np.isfinite(value_S))
    if len(known) < 8:
        return None
    order = known[np.argsort(value_S[known], kind="stable")]
    sorted_S = value_S[order]
    size = np.arange(1, len(order))
    sum_S = np.cumsum(sorted_S - sorted_S.mean())[:-1]
    between_S = sum_S**2 / (size * (len(order) - size))
    cut = int(between_S.argmax()) + 1
    low, high = sorted_S[:cut], sorted_S[cut:]
    within = float(np.sqrt((np.sum((low - low.mean()) ** 2) + np.sum((high - high.mean()) ** 2)) / len(order)))
    high_S = np.zeros(len(value_S), dtype=bool)
    high_S[order[cut:]] = True
    return Mixture(
        high_S,
        len(high) / len(order),
        gap_of_sequences(sample, order[:cut]),
        gap_of_sequences(sample, order[cut:]),
        float(high.mean() - low.mean()) / within if within > 0 else np.inf,
    )


def gap_of_sequences(sample: Sample, chosen: Array) -> Stat:
    of_S = np.zeros(sample.evidence.sequences, dtype=bool)
    of_S[chosen] = True
    return gap_of(sample, of_S[sample.evidence.sequence_N] & sample.scaled_N)


class Groups(NamedTuple):
    """What one column of metadata separates. Labels are in the order of their values, and `gaps` their R.

    `high_S` are the sequences on the side of the clearest contrast that is farther from the floor, `low` and `high`
    R of both sides. A contrast is a label against all others, a value up to which against those above it, or a
    trend. `explained` is its share of the variance of the sequences' levels, `p` the chance of a contrast as clear
    where labels mean nothing, by permutation, and by Student's t where that is small.
    """

    name: str
    labels: tuple[str, ...]
    gaps: tuple[Stat, ...]
    sequences: tuple[int, ...]
    contrast: str
    low: Stat
    high: Stat
    high_S: Array
    explained: float
    p: float
    label_S: Array
    """Which label each sequence has, −1 of one that has none or says nothing."""
    growth: tuple[float, float] | None
    """Of numbers above 0: the slope of the level on the logarithm of the value, and its standard error. 1 is a gap
    in proportion to the value, 0 one that is the same at all of them."""
    growth_of_high: tuple[float, float] | None
    """The same of the sequences in `high_S` alone: after a jump it is 0, and within a trend it is not."""
    sound_of_high: float
    """Share of the sequences in `high_S` that are no farther than three quarters of the others."""


@statistic
def by_metadata(sample: Sample) -> tuple[Groups, ...]:
    """Every column that has two labels or more, the clearest first."""
    found = (_groups(sample, name, np.asarray(value_S)) for name, value_S in sample.evidence.metadata.items())
    return tuple(sorted((each for each in found if each), key=lambda each: (each.p, -each.explained)))


def _groups(sample: Sample, name: str, value_S: Array) -> Groups | None:
    level, numeric = level_S(sample), np.issubdtype(value_S.dtype, np.number)
    known_S = np.isfinite(level)
    known_S &= np.isfinite(value_S.astype(np.float64)) if numeric else value_S.astype(str) != ""
    if int(known_S.sum()) < FEWEST_SEQUENCES:
        return None
    value_K = value_S[known_S].astype(np.float64) if numeric else value_S[known_S].astype(str)
    values, index_K = np.unique(value_K, return_inverse=True)
    if numeric and len(values) > _MOST_GROUPS:
        edges = np.unique(np.quantile(value_K, np.linspace(0, 1, 9)[1:-1]))
        index_K = np.unique(np.searchsorted(edges, value_K, side="right"), return_inverse=True)[1]
    groups = int(index_K.max()) + 1
    if groups < 2 or groups > max(_MOST_GROUPS, len(value_K) // 3):
        return None
    label_S = np.full(len(value_S), -1)
    label_S[known_S] = index_K
    contrasts = _contrasts(index_K, value_K if numeric else None, values)
    level_U, weight_CU = _units(level[known_S], contrasts.weight_CK, index_K, sample.evidence.prompt_S[known_S])
    explained, p, best = clearest(level_U, weight_CU)
    score_K = contrasts.weight_CK[best] * np.sign(
        contrasts.weight_CK[best] @ (level[known_S] - level[known_S].mean())
    )
    high_S = np.zeros(len(value_S), dtype=bool)
    high_S[known_S] = score_K > 0
    members = [np.flatnonzero(label_S == group) for group in range(groups)]
    return Groups(
        name,
        tuple(_label(value_K[index_K == group]) for group in range(groups)),
        tuple(gap_of_sequences(sample, each) for each in members),
        tuple(len(each) for each in members),
        contrasts.names[best],
        gap_of_sequences(sample, np.flatnonzero(known_S & ~high_S)),
        gap_of_sequences(sample, np.flatnonzero(high_S)),
        high_S,
        explained,
        p,
        label_S,
        _growth(level[known_S], value_K) if numeric else None,
        _growth(level[high_S], value_S[high_S].astype(np.float64)) if numeric else None,
        _share_as_low(level, high_S, known_S & ~high_S),
    )


def _share_as_low(level: Array, high_S: Array, low_S: Array) -> float:
    if not high_S.any() or not low_S.any():
        return 0.0
    return float(np.mean(level[high_S] <= np.quantile(level[low_S], 0.75)))


class _Contrasts(NamedTuple):
    """Weights of mean 0 of each sequence, one contrast a row [C, K], and what each is called."""

    weight_CK: Array
    names: list[str]


def _contrasts(index_K: Array, value_K: Array | None, values: Array) -> _Contrasts:
    rows, names = [], []
    groups = int(index_K.max()) + 1
    if value_K is None:
        for group in range(groups):
            rows.append((index_K == group).astype(np.float64))
            names.append(f"{values[group]} against the others")
    else:
        for group in range(1, groups):
            rows.append((index_K >= group).astype(np.float64))
            names.append(f"{value_K[index_K >= group].min():g} and more against less")
        if groups > 2:
            rows.append(value_K.argsort().argsort().astype(np.float64))
            names.append("the trend")
    weight_CK = np.array(rows)
    weight_CK = weight_CK - weight_CK.mean(axis=1, keepdims=True)
    return _Contrasts(weight_CK / np.linalg.norm(weight_CK, axis=1, keepdims=True), names)


def _label(value_K: Array) -> str:
    if value_K.dtype.kind != "f":
        return str(value_K[0])
    low, high = float(value_K.min()), float(value_K.max())
    return f"{low:g}" if low == high else f"{low:g} – {high:g}"


def _units(level_K: Array, weight_CK: Array, index_K: Array, prompt_K: Array) -> tuple[Array, Array]:
    """Levels and weights of the units that can be permuted: where responses of a prompt mostly have one label, the
    responses of a prompt and a label are one, for what they have in common is no accident."""
    _, prompt_K = np.unique(prompt_K, return_inverse=True)
    cell_K = prompt_K * (1 + int(index_K.max())) + index_K
    cells, cell_K, count_U = np.unique(cell_K, return_inverse=True, return_counts=True)
    if len(cells) > 1.5 * (int(prompt_K.max()) + 1) or len(cells) < FEWEST_SEQUENCES:
        return level_K, weight_CK
    weight_CU = np.stack([np.bincount(cell_K, each) / count_U for each in weight_CK])
    weight_CU = weight_CU - weight_CU.mean(axis=1, keepdims=True)
    return np.bincount(cell_K, level_K) / count_U, weight_CU / np.linalg.norm(weight_CU, axis=1, keepdims=True)


def clearest(level_U: Array, weight_CU: Array) -> tuple[float, float, int]:
    """(share of the variance that the clearest contrast explains, chance of one as clear, which it is)."""
    centred_U = level_U - level_U.mean()
    total = float(centred_U @ centred_U)
    if total <= 0:
        return 0.0, 1.0, 0
    score_C = np.abs(weight_CU @ centred_U)
    best = int(score_C.argmax())
    rng = np.random.default_rng(0)  # the same each time: a report is made again alike
    permutations = int(np.clip(_MOST_DRAWS // len(centred_U), *_PERMUTATIONS))
    permuted_RU = rng.permuted(np.broadcast_to(centred_U, (permutations, len(centred_U))), axis=1)
    beyond = int(np.count_nonzero(np.abs(permuted_RU @ weight_CU.T).max(axis=1) >= score_C[best] * (1 - 1e-12)))
    explained, by_permutation = float(score_C[best]) ** 2 / total, (1 + beyond) / (1 + permutations)
    if by_permutation > (_DOUBTFUL if explained < _ALMOST_ALL else 2 * _DOUBTFUL):
        return explained, by_permutation, best
    # Few units have few permutations, however clear the contrast: Student's t goes further.
    from scipy.special import stdtr

    freedom = len(level_U) - 2
    t = np.sqrt(explained * freedom / max(1 - explained, 1e-12))
    return explained, min(by_permutation, 2 * len(weight_CU) * float(stdtr(freedom, -t))), best


def _growth(level_K: Array, value_K: Array) -> tuple[float, float] | None:
    positive_K = value_K > 0
    if len(np.unique(value_K[positive_K])) < 2 or np.count_nonzero(positive_K) < FEWEST_SEQUENCES:
        return None
    return regression(np.log(value_K[positive_K]), level_K[positive_K])
