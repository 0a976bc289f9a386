"""Labels that are apart are found, at the stated rate of error over all labels, however skewed the sums are."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.outliers import MIN_CLUSTERS, means_apart


def simulated(
    seed: int, labels: int, prompts: int, *, shared: bool, bad: int | None = None, factor: float = 2.0
) -> np.ndarray:
    """p-values where prompts are log-normal; each has four responses, of one label or of several."""
    rng = np.random.default_rng(seed)
    prompt_S = np.repeat(np.arange(prompts), 4)
    label_S = rng.integers(labels, size=4 * prompts) if shared else rng.integers(labels, size=prompts)[prompt_S]
    level_S = 0.02 * np.exp(1.2 * rng.normal(size=prompts))[prompt_S] * np.where(label_S == bad, factor, 1.0)
    count_S = rng.integers(50, 500, len(prompt_S)).astype(float)
    sum_S = rng.gamma(count_S * level_S * 20) / 20
    pair, index_S = np.unique(label_S * prompts + prompt_S, return_inverse=True)
    sums = (np.bincount(index_S, each_S) for each_S in (sum_S, count_S))
    return means_apart(pair // prompts, pair % prompts, *sums, labels, prompts)


@pytest.mark.parametrize(("labels", "prompts", "shared"), [(2, 48, True), (8, 64, True), (8, 96, False)])
def test_few_logs_without_a_bad_worker_show_one(labels: int, prompts: int, shared: bool) -> None:
    found = [bool((simulated(seed, labels, prompts, shared=shared) < 0.05).any()) for seed in range(120)]
    assert np.mean(found) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)


def test_one_bad_worker_of_eight_is_found_and_no_other() -> None:
    found = np.array([simulated(seed, 8, 96, shared=True, bad=3) < 0.05 for seed in range(60)])
    assert found[:, 3].mean() > 0.95
    assert np.delete(found, 3, axis=1).any(axis=1).mean() < 0.15


def test_of_two_labels_both_are_apart() -> None:
    assert (simulated(1, 2, 60, shared=True, bad=1, factor=4.0) < 0.05).all()


def test_the_same_log_has_the_same_p_values() -> None:
    np.testing.assert_array_equal(simulated(2, 4, 64, shared=True), simulated(2, 4, 64, shared=True))


def test_labels_with_few_prompts_are_not_tested() -> None:
    label_E, cluster_E = np.array([0] * 20 + [1] * 20 + [2] * (MIN_CLUSTERS - 1)), np.arange(47)
    sum_E = np.random.default_rng(0).random(47)
    found = means_apart(label_E, cluster_E, sum_E, np.full(47, 10.0), 3, 47)
    assert np.isnan(found[2])
    assert not np.isnan(found[:2]).any()
    alone = means_apart(np.zeros(20, dtype=int), np.arange(20), sum_E[:20], np.ones(20), 1, 20)
    assert np.isnan(alone).all()


def test_labels_that_never_differ_are_not_apart() -> None:
    label_E, cluster_E = np.repeat([0, 1], 20), np.tile(np.arange(20), 2)
    assert (means_apart(label_E, cluster_E, np.full(40, 0.5), np.ones(40), 2, 20) == 1).all()
