"""Weights and masks whose rule is known are recognised, and mistakes in them found, over many seeds."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import RunDesign, simulated_run

from mismatchscope.analysis.block import LogBlock
from mismatchscope.analysis.correction_audit import CorrectionAudits
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.measures.correction_results import CorrectionAudit
from mismatchscope.reports.text import number

SEEDS = range(2)
MANY = [pytest.param(range(2), id="2"), pytest.param(range(2, 40), id="38", marks=pytest.mark.slow)]
DESIGN = RunDesign(steps=2, prompts=16, length=(16, 48), error=0.9)
Weights = Callable[[np.ndarray, LogBlock], np.ndarray]


def block_of(seed: int, design: RunDesign = DESIGN) -> LogBlock:
    return simulated_run(design, seed=seed).block()


def audited(*blocks: LogBlock) -> tuple[CorrectionAudit, ...]:
    audits = CorrectionAudits(AnalysisSettings())
    for block in blocks:
        part = CorrectionAudits(AnalysisSettings())
        part.add(block)
        audits.merge(pickle.loads(pickle.dumps(part)))
    return audits.results()


def with_weights(block: LogBlock, weights: Weights) -> LogBlock:
    ratio_N = np.exp(block.logp_pi_N - block.logp_mu_N)
    weight_N = weights(ratio_N, block).astype(np.float32).astype(np.float64)
    return replace(block, by_token={**block.by_token, "weights": weight_N})


def by_sequence(ratio_N: np.ndarray, block: LogBlock) -> np.ndarray:
    return np.repeat(np.multiply.reduceat(ratio_N, block.start_S), block.length_S)


def shifted(ratio_N: np.ndarray, block: LogBlock) -> np.ndarray:
    moved = np.append(ratio_N[1:], 1.0)
    moved[block.offsets_S1[1:] - 1] = 1.0
    return moved


CASES: list[tuple[str, str, Weights]] = [
    ("token_ratio", "pass", lambda r, b: r),
    ("token_tis", "pass", lambda r, b: np.minimum(r, 2)),
    ("token_tis", "pass", lambda r, b: np.clip(r, 0.5, 1.5)),
    ("icepop", "pass", lambda r, b: np.where((r >= 0.5) & (r <= 2), r, 0)),
    ("icepop", "pass", lambda r, b: np.where((r >= 0.3) & (r <= 2), r, 0)),
    ("token_masked_truncated", "pass", lambda r, b: np.where(r < 0.5, 0, np.minimum(r, 2))),
    ("token_masked", "pass", lambda r, b: np.where(r < 0.5, 0, r)),
    ("sequence_tis", "pass", lambda r, b: np.minimum(by_sequence(r, b), 2)),
    ("sequence_mis", "pass", lambda r, b: np.where(by_sequence(r, b) <= 3, by_sequence(r, b), 0)),
    ("geometric_ratio", "pass", lambda r, b: by_sequence(r, b) ** (1 / np.repeat(b.length_S, b.length_S))),
    ("inverse_ratio", "fail", lambda r, b: np.minimum(1 / r, 2)),
    ("wrong_token", "fail", shifted),
    ("no_weight", "pass", lambda r, b: np.ones_like(r)),
    ("not_reproduced", "unknown", lambda r, b: r**0.5),
    ("not_reproduced", "unknown", lambda r, b: np.minimum(r, 2) / np.minimum(r, 2).mean()),
    ("not_reproduced", "unknown", lambda r, b: np.minimum(r, 2) / 1.003),
    ("not_reproduced", "unknown", lambda r, b: ((r > 0.5) & (r < 2)).astype(float)),
    ("constant_weight", "unknown", lambda r, b: np.full_like(r, 0.7)),
]


@pytest.mark.parametrize(("code", "status", "weights"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
@pytest.mark.parametrize("seeds", MANY)
def test_what_the_weights_are_is_found(code: str, status: str, weights: Weights, seeds: range) -> None:
    """In all of 40 simulated logs."""
    for seed in seeds:
        (found,) = audited(with_weights(block_of(seed), weights))
        assert (found.column, found.code, found.status) == ("weights", code, status), found.sentence


def test_thresholds_are_read_off() -> None:
    (found,) = audited(*(with_weights(block_of(seed), lambda r, b: np.minimum(r, 2)) for seed in range(3)))
    assert "at most 2" in found.sentence and "is not the mean ratio" in found.sentence
    assert found.count == found.of
    (found,) = audited(
        *(with_weights(block_of(seed), lambda r, b: np.where(r < 0.5, 0, np.minimum(r, 2))) for seed in range(3))
    )
    assert "at most 2, and 0 where that is below 0.5" in found.sentence


def test_a_published_band_upside_down_is_named_where_nothing_else_fits() -> None:
    blocks = [with_weights(block_of(seed), lambda r, b: np.where((r >= 0.2) & (r <= 2), r, 0)) for seed in range(4)]
    (found,) = audited(*blocks)
    assert (found.code, found.status) == ("inverted_band", "fail")
    assert "If 0.5 – 5 was meant" in found.sentence and "swap" in (found.fix or "")


def test_zeros_of_a_short_format_are_no_band() -> None:
    """float16 has nothing below 6e-8."""
    block = block_of(0)
    block.logp_R["reference"][:40] = -60.0
    (found,) = audited(with_weights(block, lambda r, b: np.minimum(r, 2).astype(np.float16)))
    assert found.code == "token_tis"


def test_near_identical_policies_tell_nothing() -> None:
    quiet = replace(DESIGN, error=1e-3)
    for seed in SEEDS:
        (found,) = audited(with_weights(block_of(seed, quiet), lambda r, b: np.minimum(r, 2)))
        assert (found.code, found.status) == ("cannot_tell", "unknown")


def test_a_mask_that_a_rejection_reduced_is_named() -> None:
    for seed in SEEDS:
        block = block_of(seed)
        ratio_R = np.exp(block.logp_R["reference"] - block.logp_R["behavior"])
        mask_R = (ratio_R >= 0.5) & (ratio_R <= 2)
        kept_S = np.logical_or.reduceat(mask_R, block.start_S)
        assert kept_S.all()
        (found,) = audited(replace(block, mask_R=mask_R, counts_R=mask_R))
        assert (found.column, found.code) == ("mask", "reduced_by_rejection")
        assert "outside 0.5 – " in found.sentence and "selection" in found.sentence


@pytest.mark.parametrize("kind", ["alike", "identical", "tools far apart", "only tools apart"])
def test_a_mask_of_tool_output_is_not_taken_for_a_rejection(kind: str) -> None:
    block = block_of(0)
    mask_R = (np.arange(len(block.mask_R)) % 16) < 12
    mu_R, pi_R = block.logp_R["behavior"], block.logp_R["reference"]
    if kind == "identical":
        pi_R = mu_R
    if kind == "tools far apart":
        pi_R = np.where(mask_R, mu_R + 0.2 * (pi_R - mu_R), mu_R - 5)
    if kind == "only tools apart":
        pi_R = np.where(mask_R, mu_R, pi_R)
    logp_R = {**block.logp_R, "reference": np.minimum(pi_R, -1e-9)}
    (found,) = audited(replace(block, mask_R=mask_R, counts_R=mask_R, logp_R=logp_R))
    assert found.code == "cannot_tell"


def test_a_mask_that_leaves_out_last_tokens_is_not_taken_for_a_rejection() -> None:
    block = block_of(0)
    mask_R = np.ones(len(block.mask_R), dtype=bool)
    mask_R[np.cumsum(block.recorded_S) - 1] = False
    pi_R = np.where(mask_R, block.logp_R["reference"], block.logp_R["behavior"] - 30)
    (found,) = audited(replace(block, mask_R=mask_R, counts_R=mask_R, logp_R={**block.logp_R, "reference": pi_R}))
    assert found.code == "cannot_tell"


def test_a_log_without_either_says_nothing() -> None:
    assert audited(block_of(0)) == ()


def test_a_threshold_that_dropped_nothing_is_not_made_up() -> None:
    block = with_weights(block_of(3), lambda r, b: np.where(r <= 1.7, r, 0))
    (found,) = audited(block)
    smallest = np.exp(block.logp_pi_N - block.logp_mu_N).min()
    assert found.code == "token_masked"
    assert "0 where that is above 1.7;" in found.sentence
    assert f"what the rule does below {number(smallest)} is not seen" in found.sentence


def test_weights_that_are_no_numbers_are_said() -> None:
    (audit,) = audited(with_weights(block_of(0), lambda r, b: np.full_like(r, np.nan)))
    assert (audit.column, audit.code, audit.status) == ("weights", "cannot_tell", "unknown")
    assert audit.sentence == "The log has a column of weights, but no weight in it is a finite number."
