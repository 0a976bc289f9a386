"""Sums by label and cluster do not depend on how units come in, also where clusters are put together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.label_sums import LabelSums, cluster_hash


def units(seed: int, count: int, labels: int, clusters: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "label": rng.integers(-3, labels, count),
        "cluster": rng.integers(clusters, size=count) * 1_000_003 - 7,
        "sums": rng.integers(0, 9, (count, 2)).astype(float),
        "logs": rng.normal(scale=300, size=(count, 1)),
        "maxima": rng.random(count),
    }


def filled(of: dict[str, np.ndarray], edges: list[int], order: list[int], max_rows: int) -> LabelSums:
    """Each slice into a table of its own, and these merged in some order."""
    total = LabelSums(2, 1, max_rows)
    pieces = [slice(a, b) for a, b in zip([0, *edges], [*edges, None], strict=True)]
    for index in order:
        part = LabelSums(2, 1, max_rows)
        part.add(*(column[pieces[index % len(pieces)]] for column in of.values()))
        total.merge(pickle.loads(pickle.dumps(part)))
    return total


@given(
    seed=st.integers(0, 99), cut=st.lists(st.integers(0, 200), max_size=4), max_rows=st.sampled_from([8, 60, 500])
)
@settings(max_examples=60, deadline=None)
def test_any_split_and_order_gives_the_same_sums(seed: int, cut: list[int], max_rows: int) -> None:
    of, edges = units(seed, 200, 4, 40), sorted(cut)
    order = np.random.default_rng(seed).permutation(len(edges) + 1).tolist()
    ours, whole = filled(of, edges, order, max_rows), filled(of, [], [0], max_rows)
    assert np.array_equal(ours.label_E, whole.label_E)
    assert np.array_equal(ours.cluster_E, whole.cluster_E)
    assert np.array_equal(ours.sum_EF, whole.sum_EF)
    assert np.array_equal(ours.max_E, whole.max_E)
    np.testing.assert_allclose(ours.log_EG, whole.log_EG, rtol=1e-12)
    assert ours.grouped == whole.grouped


def test_rows_are_those_of_a_dictionary() -> None:
    of = units(1, 500, 5, 20)
    table = filled(of, [100, 101, 350], [2, 0, 3, 1], 10_000)
    expected: dict[tuple[int, int], np.ndarray] = {}
    for label, cluster, value in zip(of["label"].tolist(), of["cluster"].tolist(), of["sums"], strict=True):
        expected[label, cluster] = expected.get((label, cluster), np.zeros(2)) + value
    assert list(zip(table.label_E.tolist(), table.cluster_E.tolist(), strict=True)) == sorted(expected)
    assert np.array_equal(table.sum_EF, np.stack([expected[key] for key in sorted(expected)]))
    assert not table.grouped
    label_L, start_L1 = table.labels()
    assert label_L.tolist() == sorted(set(of["label"].tolist()))
    assert start_L1[-1] == len(table.label_E)
    np.testing.assert_array_equal(table.by_label(), [of["sums"][of["label"] == label].sum(0) for label in label_L])


def test_memory_stops_growing_and_no_sum_is_lost() -> None:
    table = LabelSums(1, max_rows=1_000)
    for label in range(5):
        table.add(np.full(20_000, label), np.arange(20_000), np.ones((20_000, 1)))
    assert table.grouped
    assert len(table.label_E) <= 1_000
    assert np.array_equal(table.by_label(), np.full((5, 1), 20_000.0))
    per_group = table.sum_EF[:, 0]
    assert per_group.max() < 2 * per_group.min()


def test_an_empty_table_has_no_labels() -> None:
    table = LabelSums(3)
    assert table.labels()[0].size == 0
    assert table.by_label().shape == (0, 3)
    table.merge(LabelSums(3))
    assert not table.grouped


@pytest.mark.parametrize("bits", [1, 4, 16])
def test_hashes_share_clusters_out_evenly(bits: int) -> None:
    count_G = np.bincount(cluster_hash(np.arange(2**20)) & (2**bits - 1))
    expected = 2**20 / 2**bits
    assert np.sum((count_G - expected) ** 2) / expected < 2**bits + 5 * np.sqrt(2 * 2**bits)
