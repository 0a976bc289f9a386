"""M2PO against sorting the tokens of each batch."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.corrections import RatioBlock
from mismatchscope.measures.corrections.second_moment import THRESHOLD, SecondMoment


def kept_by_sorting(d: np.ndarray, threshold: float) -> np.ndarray:
    order = np.argsort(-(d**2))
    for dropped in range(len(d)):
        kept = order[dropped:]
        if np.mean(d[kept] ** 2) <= threshold:
            return np.isin(np.arange(len(d)), kept)
    return np.zeros(len(d), dtype=bool)


@pytest.mark.parametrize(
    ("spread", "threshold"), [(0.05, THRESHOLD), (0.2, THRESHOLD), (0.4, THRESHOLD), (1.5, THRESHOLD), (0.4, 0.1)]
)
def test_it_keeps_what_sorting_each_batch_keeps(spread: float, threshold: float) -> None:
    rng = np.random.default_rng(int(spread * 100))
    lengths = rng.integers(20, 60, 200)
    offsets, batch_S = np.concatenate([[0], np.cumsum(lengths)]), rng.integers(0, 4, 200)
    d = rng.standard_normal(offsets[-1]) * spread
    batch_T = np.repeat(batch_S, lengths)
    keep = np.zeros(len(d), dtype=bool)
    for batch in range(4):
        keep[batch_T == batch] = kept_by_sorting(d[batch_T == batch], threshold)
    parts = []
    for low, high in ((0, 90), (90, 200)):
        part = SecondMoment(threshold)
        part.add(
            RatioBlock(d[offsets[low] : offsets[high]], offsets[low : high + 1] - offsets[low]), batch_S[low:high]
        )
        parts.append(part)
    parts[1].merge(parts[0])
    found = parts[1].correction()
    assert found.kept_tokens == pytest.approx(keep.mean(), abs=2e-3)
    assert found.mean_weight == pytest.approx(np.where(keep, np.exp(d), 0).mean(), abs=4e-3)
    assert found.ratio_retained == pytest.approx(np.exp(d[keep]).mean(), rel=4e-3)
    kept_sequences = np.logical_or.reduceat(keep, offsets[:-1]).mean()
    assert found.kept_sequences == pytest.approx(kept_sequences, abs=0.011)


def test_a_batch_within_the_threshold_is_kept_whole() -> None:
    moment = SecondMoment()
    moment.add(RatioBlock([0.19, -0.19, 0.25, 0.0], [0, 2, 4]), np.array([5, 5]))
    found = moment.correction()
    assert (found.kept_tokens, found.kept_sequences, found.clipped_mass) == (1, 1, 0)
    assert SecondMoment().correction() is None


def test_a_token_outside_the_support_goes_first() -> None:
    moment = SecondMoment()
    moment.add(RatioBlock([-np.inf, 0.1, 0.1], [0, 1, 3]), np.array([1, 1]))
    found = moment.correction()
    assert (found.kept_tokens, found.kept_sequences) == (pytest.approx(2 / 3), 0.5)
    assert np.isfinite(found.kl_retained)
