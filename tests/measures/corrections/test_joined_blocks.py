"""Joined blocks say what the block of all their tokens says, and nothing at thresholds that were not binned."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.corrections import RatioBlock
from mismatchscope.measures.corrections.catalogue import RULES

LENGTHS = np.array([3, 1, 40, 7, 300, 2])
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
TOKENS = int(OFFSETS[-1])


def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mu_T = -rng.exponential(0.5, TOKENS) - 0.01
    return {
        "log_ratio_T": np.minimum(rng.normal(0, 0.4, TOKENS), -mu_T / 2),
        "target_log_ratio_T": np.minimum(rng.normal(0, 0.2, TOKENS), -mu_T / 2),
        "advantage_T": rng.choice([-1.0, 0.0, 2.0], TOKENS),
        "logp_mu_T": mu_T,
        "kl_T": rng.exponential(0.01, TOKENS),
    }


def block_of(first: int, last: int, *, without: str | None = None, thresholds=None) -> RatioBlock:
    tokens = slice(OFFSETS[first], OFFSETS[last])
    given = {name: value_T[tokens] for name, value_T in columns().items() if name != without}
    block = RatioBlock(given.pop("log_ratio_T"), OFFSETS[first : last + 1] - OFFSETS[first], **given)
    block.thresholds = {} if thresholds is None else thresholds
    return block


def test_every_rule_does_to_joined_blocks_what_it_does_to_the_whole() -> None:
    whole = block_of(0, 6)
    expected = {name: rule.apply(whole, **rule.usual[0]) for name, rule in RULES.items()}
    parts = [block_of(first, last, thresholds=whole.thresholds) for first, last in ((0, 2), (2, 5), (5, 6))]
    joined = RatioBlock.joined(parts)
    assert joined.known == whole.known
    for name, rule in RULES.items():
        found = rule.apply(joined, **rule.usual[0])
        np.testing.assert_array_equal(found.kept_S, expected[name].kept_S)
        np.testing.assert_allclose(found.log_weight_S, expected[name].log_weight_S, rtol=1e-12)
        np.testing.assert_allclose(found.removed_S, expected[name].removed_S, rtol=1e-12, atol=1e-12)


def test_a_threshold_that_was_not_binned_cannot_be_asked_of_joined_blocks() -> None:
    block = block_of(0, 3)
    RULES["token_tis"].apply(block, cap=2.0)
    with pytest.raises(ValueError, match="not binned at the thresholds"):
        RULES["token_tis"].apply(RatioBlock.joined([block]), cap=3.0)


def test_what_a_block_lacks_the_joined_ones_lack() -> None:
    joined = RatioBlock.joined([block_of(0, 2), block_of(2, 6, without="target_log_ratio_T")])
    assert joined.known == {"state_kl", "advantages", "logprobs"}


def test_columns_that_are_not_adjacent_are_read() -> None:
    value_TX = np.zeros((4, 2))
    value_TX[:, 1] = [0.1, -0.2, 0.3, 0.0]
    strided, adjacent = (RatioBlock(value_T, [0, 4]) for value_T in (value_TX[:, 1], value_TX[:, 1].copy()))
    np.testing.assert_array_equal(strided.mean_ratio_S, adjacent.mean_ratio_S)
