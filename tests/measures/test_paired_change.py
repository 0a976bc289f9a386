"""The change of a mean between two samples of the same prompts."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.paired_change import paired_change


def sums(rng: np.random.Generator, effect_C: np.ndarray, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count by prompt of a sample: the prompts' effects are shared, the rest is drawn anew."""
    count_C = rng.integers(45, 56, effect_C.size)
    noise_C = rng.standard_normal(effect_C.size) * 0.5 * np.sqrt(count_C)
    return scale * (np.exp(effect_C) * count_C + noise_C), count_C


def test_it_is_the_difference_of_the_two_pooled_means() -> None:
    rng = np.random.default_rng(0)
    effect_C = rng.standard_normal(20)
    (sum_C, count_C), (base_C, base_count_C) = sums(rng, effect_C), sums(rng, effect_C)
    found = paired_change(sum_C, count_C, base_C, base_count_C, factor=1.1)
    assert found.value == pytest.approx(sum_C.sum() / count_C.sum() - 1.1 * base_C.sum() / base_count_C.sum())
    assert found.low < found.value < found.high
    assert (found.clusters, found.method) == (20, "paired-by-prompt")


def test_what_the_prompts_share_cancels() -> None:
    rng = np.random.default_rng(1)
    effect_C = 1.5 * rng.standard_normal(64)
    ours, base = sums(rng, effect_C), sums(rng, effect_C)
    order_C = rng.permutation(64)  # the same two samples, as if their prompts were others
    paired = paired_change(*ours, *base)
    shuffled = paired_change(*ours, base[0][order_C], base[1][order_C])
    assert shuffled.value == pytest.approx(paired.value)
    assert paired.high - paired.low < 0.4 * (shuffled.high - shuffled.low)


def test_prompts_of_one_side_alone_are_independent() -> None:
    rng = np.random.default_rng(2)
    ours, base = sums(rng, rng.standard_normal(40)), sums(rng, rng.standard_normal(40))
    none_C = np.zeros(40)
    apart = paired_change(
        *(np.concatenate([column_C, none_C]) for column_C in ours),
        *(np.concatenate([none_C, column_C]) for column_C in base),
    )
    row_by_row = paired_change(*ours, *base)
    assert apart.value == pytest.approx(row_by_row.value)
    assert apart.high - apart.low == pytest.approx(row_by_row.high - row_by_row.low, rel=0.4)


def test_equal_samples_have_not_changed_and_one_prompt_cannot_tell() -> None:
    sum_C, count_C = np.array([1.0, 2.0, 4.0]), np.array([10, 10, 10])
    same = paired_change(sum_C, count_C, sum_C, count_C)
    assert (same.low, same.value, same.high, same.method) == (0.0, 0.0, 0.0, "paired-constant")
    assert paired_change(sum_C[:1], count_C[:1], sum_C[:1], count_C[:1]).low is None


@pytest.mark.parametrize("prompts", [8, 16, 64])
def test_the_interval_holds_the_true_change(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    held = []
    for _ in range(400):
        effect_C = 0.5 * rng.standard_normal(prompts)
        found = paired_change(*sums(rng, effect_C, 1.1), *sums(rng, effect_C), factor=1.1)
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) > 0.92
