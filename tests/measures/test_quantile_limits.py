"""Confidence limits of quantiles of values that come in clusters."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.quantile_limits import GROUPS, ClusterShares, View
from mismatchscope.measures.sketches import sample_quantiles

LENGTH = 50


def shares(value_CN: np.ndarray, *, signed: bool = False) -> ClusterShares:
    found = ClusterShares(signed=signed)
    clusters, length = value_CN.shape
    found.add(np.arange(clusters), np.full(clusters, length), value_CN.ravel())
    return found


def clustered(rng: np.random.Generator, clusters: int, spread: float) -> np.ndarray:
    return 0.01 * np.exp(spread * rng.standard_normal((clusters, 1)) + rng.standard_normal((clusters, LENGTH)))


def test_independent_values_get_the_limits_of_order_statistics() -> None:
    low, high = shares(clustered(np.random.default_rng(0), 200, 0.0)).levels(0.9)
    error = np.sqrt(0.9 * 0.1 / (200 * LENGTH))
    assert low == pytest.approx(0.9 - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(0.9 + 1.96 * error, abs=0.3 * error)


def test_values_that_cluster_and_few_clusters_widen_them() -> None:
    rng = np.random.default_rng(1)
    independent, alike = (shares(clustered(rng, 64, spread)).levels(0.9) for spread in (0.0, 1.0))
    assert alike[1] - alike[0] > 2 * (independent[1] - independent[0])
    few = shares(clustered(rng, 4, 1.0)).levels(0.9)
    assert few[1] - few[0] > 2 * (alike[1] - alike[0])
    assert shares(clustered(rng, 1, 1.0)).levels(0.9) is None


def test_parts_in_any_order_give_the_same() -> None:
    rng = np.random.default_rng(2)
    value_CN = clustered(rng, 12, 1.0)
    first, second = shares(value_CN[:5]), ClusterShares()
    second.add(np.arange(5, 12), np.full(7, LENGTH), value_CN[5:].ravel())
    first.merge(second)
    assert first.levels(0.9) == shares(value_CN).levels(0.9)


def test_values_that_were_not_seen_are_left_out() -> None:
    value_CN = clustered(np.random.default_rng(3), 12, 1.0)
    gaps_CN = np.where(np.arange(LENGTH) % 2, value_CN, np.nan)
    gaps_CN[3] = np.nan
    assert shares(gaps_CN).levels(0.9) == shares(np.delete(value_CN[:, 1::2], 3, axis=0)).levels(0.9)


@pytest.mark.parametrize(
    ("view", "seen"), [("value", lambda x: x), ("negated", lambda x: -x), ("absolute", np.abs)]
)
def test_signed_values_are_seen_from_either_side(view: View, seen) -> None:
    rng = np.random.default_rng(4)
    value_CN = 0.1 * rng.standard_normal((64, LENGTH)) + 0.2 * rng.standard_normal((64, 1))
    of_view = shares(value_CN, signed=True).levels(0.9, view=view)
    assert of_view == pytest.approx(shares(seen(value_CN), signed=True).levels(0.9), abs=1e-3)


def test_the_sign_that_was_not_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="sign"):
        shares(clustered(np.random.default_rng(5), 4, 1.0)).levels(0.9, view="negated")


@pytest.mark.parametrize("clusters", [16, 64])
def test_the_limits_hold_the_true_quantile(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    truth = 0.01 * np.exp(np.sqrt(2) * 1.2815515655446004)  # the 0.9 quantile of a log-normal of variance 2
    held = []
    for _ in range(300):
        value_CN = clustered(rng, clusters, 1.0)
        low, high = sample_quantiles(value_CN.ravel(), shares(value_CN).levels(0.9))
        held.append(low <= truth and (high is None or truth <= high))
    assert np.mean(held) > 0.9


def test_many_clusters_are_counted_in_groups_whatever_their_order() -> None:
    """Twice as many clusters as groups: the same limits in any order and split, near those of all clusters."""
    rng = np.random.default_rng(4)
    value_CN = clustered(rng, 2 * GROUPS, 1.0)[:, :4]
    label_C = rng.permutation(2 * GROUPS)
    whole, parts = ClusterShares(), ClusterShares()
    whole.add(label_C, np.full(len(label_C), 4), value_CN.ravel())
    for chosen in np.array_split(rng.permutation(len(label_C)), 7):
        part = ClusterShares()
        part.add(label_C[chosen], np.full(len(chosen), 4), value_CN[chosen].ravel())
        parts.merge(part)
    assert parts.levels(0.9) == whole.levels(0.9)
    few = ClusterShares()
    few.add(np.arange(GROUPS), np.full(GROUPS, 8), value_CN.reshape(GROUPS, 8).ravel())
    assert whole.levels(0.9) == pytest.approx(few.levels(0.9), abs=0.005)
