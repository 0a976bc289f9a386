"""One pass over the tokens of some sequences: their values added up by the bins of every key that rules ask for.

`ratio_bins.c` does it; `_tables_by_numpy` makes an array of every value: where there is no C compiler, and as what
the kernel is tested against.

Shapes: T tokens, S sequences, B bins of all groups of a key, V values.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import CDLL
from dataclasses import dataclass

import numpy as np

from .. import kernel
from ..sampled import k3, shortfall
from .bins import KEYS, Edges, Key, TokenBins

Array = np.ndarray
Thresholds = Mapping[Key, tuple[set[float], set[float]]]
"""Lower and upper ones of each key."""

_OF_RATIO = ("ratio", "square", "shortfall", "k3", "error", "log_square")
"""rho, rho^2, (1 - rho)_+, k3, exp |d| and d^2."""
_OF_TARGET = ("weight", "weight_square", "target", "target_square")
"""pi_theta / mu, pi_theta / pi_old and their squares."""
_INSTEAD = {"tv_estimate": "shortfall", "kl_estimate": "k3", "weight": "ratio", "weight_square": "square"}
"""What stands for a value that is not given."""
KNOWN = ("tv_estimate", "kl_estimate", "tv", "kl")
_SMALLEST_REST = 2.0**-24  # of log-probs in float32 that are near zero
_COLUMNS = np.dtype([("ratios", np.int64, 4), ("known", np.int64, len(KNOWN))])
_KEY_BINS = np.dtype([(name, np.int64) for name in ("edge", "edges", "zero", "groups", "table")])


@dataclass(frozen=True, eq=False)
class TokenColumns:
    """What is known of each token, float64 [T], or None. `known` has values by the names of `KNOWN`."""

    log_ratio_T: Array
    target_T: Array | None
    advantage_T: Array | None
    logp_mu_T: Array | None
    known: dict[str, Array]

    @property
    def keys(self) -> set[Key]:
        """By what these tokens can be binned."""
        found: set[Key] = {"ratio"}
        if self.target_T is not None:
            found.add("target")
        if self.logp_mu_T is not None:
            found.add("change")
            if self.advantage_T is not None:
                found.add("outward_kl")
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Of the values that are added up."""
        of_target = () if self.target_T is None else _OF_TARGET
        return ("tokens", *_OF_RATIO, *of_target, *(name for name in KNOWN if name in self.known))


def token_bins(columns: TokenColumns, offsets_S1: Array, thresholds: Thresholds) -> dict[Key, TokenBins]:
    """Bins by every key that thresholds are asked of and that the columns have."""
    edges = {
        key: Edges(frozenset(lows), frozenset(highs), groups=1 if key == "ratio" else 3)
        for key, (lows, highs) in thresholds.items()
        if key in columns.keys
    }
    library = kernel.library()
    tables = (
        _tables_by_numpy(columns, offsets_S1, edges)
        if library is None
        else _tables_by_kernel(library, columns, offsets_S1, edges)
    )
    place = {name: v for v, name in enumerate(columns.names)}
    place = {name: place[other] for name, other in _INSTEAD.items()} | place
    return {key: TokenBins.of_table(edges[key], place, table_SBV) for key, table_SBV in tables.items()}


def _tables_by_kernel(
    library: CDLL, columns: TokenColumns, offsets_S1: Array, edges: Mapping[Key, Edges]
) -> dict[Key, Array]:
    given = np.zeros(1, _COLUMNS)
    of_ratios = (columns.log_ratio_T, columns.target_T, columns.advantage_T, columns.logp_mu_T)
    given["ratios"] = [0 if each_T is None else kernel.address(each_T) for each_T in of_ratios]
    given["known"] = [kernel.address(columns.known[name]) if name in columns.known else 0 for name in KNOWN]
    sequences, tables = len(offsets_S1) - 1, {}
    key_bins = np.zeros(len(KEYS), _KEY_BINS)
    for key, of in edges.items():
        table = tables[key] = np.zeros((sequences, of.all_bins, len(columns.names)))
        places = (kernel.address(of.edge_E), len(of.edge_E), of.zero, of.groups, kernel.address(table))
        key_bins[KEYS.index(key)] = places
    library.ratio_bins(given.ctypes.data, kernel.address(offsets_S1, np.int64), sequences, key_bins.ctypes.data)
    return tables


def _tables_by_numpy(columns: TokenColumns, offsets_S1: Array, edges: Mapping[Key, Edges]) -> dict[Key, Array]:
    values = _values(columns)
    sequences = len(offsets_S1) - 1
    sequence_T = np.repeat(np.arange(sequences), np.diff(offsets_S1))
    advantage_T = np.zeros(len(sequence_T)) if columns.advantage_T is None else columns.advantage_T
    group_T = np.where(advantage_T > 0, 1, np.where(advantage_T < 0, 2, 0))
    tables = {}
    for key, of in edges.items():
        place_T = np.searchsorted(of.edge_E, _key(columns, key))
        if of.groups > 1:
            place_T = place_T + group_T * (len(of.edge_E) + 1)
        place_T = place_T + sequence_T * of.all_bins
        table_VX = [np.bincount(place_T, value_T, sequences * of.all_bins) for value_T in values]
        tables[key] = np.stack(table_VX, axis=-1).reshape(sequences, of.all_bins, len(values))
    return tables


def _values(columns: TokenColumns) -> list[Array]:
    """In the order of `TokenColumns.names`."""
    log_ratio_T, target_T = columns.log_ratio_T, columns.target_T
    with np.errstate(over="ignore"):
        ratio_T = np.exp(log_ratio_T)
        values = [np.ones_like(ratio_T), ratio_T, ratio_T**2, shortfall(log_ratio_T), k3(log_ratio_T)]
        values += [np.exp(np.abs(log_ratio_T)), log_ratio_T**2]
        if target_T is not None:
            weight_T, target_ratio_T = np.exp(log_ratio_T + target_T), np.exp(target_T)
            values += [weight_T, weight_T**2, target_ratio_T, target_ratio_T**2]
    return values + [columns.known[name] for name in KNOWN if name in columns.known]


def _key(columns: TokenColumns, key: Key) -> Array:
    if key == "ratio":
        return columns.log_ratio_T
    if key == "target":
        assert columns.target_T is not None
        return columns.target_T
    assert columns.logp_mu_T is not None
    total_T = columns.log_ratio_T if columns.target_T is None else columns.log_ratio_T + columns.target_T
    change_T = np.exp(columns.logp_mu_T) * np.expm1(total_T)
    if key == "change":
        return change_T
    assert columns.advantage_T is not None
    outward_T = np.where(columns.advantage_T > 0, change_T > 0, change_T < 0)
    return np.where(outward_T, _binary_kl(columns.logp_mu_T, total_T), 0.0)


def _binary_kl(logp_mu_T: Array, log_ratio_T: Array) -> Array:
    """KL of (mu(a), 1 - mu(a)) from (pi(a), 1 - pi(a))."""
    mu_T = np.exp(logp_mu_T)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest_mu_T = np.maximum(-np.expm1(logp_mu_T), _SMALLEST_REST)
        rest_pi_T = np.maximum(-np.expm1(logp_mu_T + log_ratio_T), _SMALLEST_REST)
        return np.where(mu_T > 0, -mu_T * log_ratio_T, 0.0) + rest_mu_T * np.log(rest_mu_T / rest_pi_T)
