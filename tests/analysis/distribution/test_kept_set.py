"""Where the sampler's kept sets were recorded, the truncation is known exactly.

Shapes: S responses, R their tokens, V vocabulary.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from log_rows import log_batch

from mismatchscope.analysis.distribution.kept_set import KeptSet
from mismatchscope.analysis.rows import Rejected, blocks_of
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.analysis.statistics import LogStatistics
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import PolicyPair
from mismatchscope.logs.source import LogBatch
from mismatchscope.measures.log_results import DistributionCheck


def top_k_log(
    rng: np.random.Generator, responses: int = 40, error: float = 0.0, k: int = 4
) -> tuple[LogBatch, float]:
    """A log of a top-k sampler over 12 ids whose logits are off by `error`, and the mean of 1 − π(kept set)."""
    behavior, reference, mass, kept, tokens = [], [], [], [], []
    for _ in range(responses):
        logits_RV = rng.normal(0, 1.5, (20, 12))
        pi_RV = logits_RV - np.log(np.exp(logits_RV).sum(axis=1, keepdims=True))
        noisy_RV = logits_RV + rng.normal(0, error, logits_RV.shape)
        kept_RK = np.argsort(-noisy_RV, axis=1)[:, :k]
        kept_noisy_RK = np.take_along_axis(noisy_RV, kept_RK, axis=1)
        mu_RK = kept_noisy_RK - np.log(np.exp(kept_noisy_RK).sum(axis=1, keepdims=True))
        drawn_R = (mu_RK + rng.gumbel(size=mu_RK.shape)).argmax(axis=1)
        behavior.append(mu_RK[np.arange(20), drawn_R])
        tokens.append(kept_RK[np.arange(20), drawn_R])
        reference.append(pi_RV[np.arange(20), tokens[-1]])
        mass.append(np.log(np.exp(np.take_along_axis(pi_RV, kept_RK, axis=1)).sum(axis=1)))
        kept.append(kept_RK.tolist())
    batch = log_batch(
        prompt=list(range(responses)),
        token_ids=tokens,
        behavior_logprobs=behavior,
        reference_logprobs=reference,
        kept_logmass=mass,
        kept_ids=kept,
    )
    return batch, float(1 - np.exp(np.concatenate(mass)).mean())


def filled(batch: LogBatch, *cuts: int) -> KeptSet:
    whole = KeptSet()
    edges = [0, *cuts, batch.rows.num_rows]
    for start, stop in pairwise(edges):
        part = KeptSet()
        for block in blocks_of(LogBatch(batch.rows.slice(start, stop - start), batch.part), Rejected()):
            part.add(block)
        whole.merge(part)
    return whole


def test_perfect_numerics_leave_the_truncation_alone() -> None:
    batch, exact = top_k_log(np.random.default_rng(1))
    found = filled(batch, 7, 20).result(tokens=800, confidence=0.95)
    assert found is not None
    assert found.truncation.value == pytest.approx(exact, rel=1e-6)
    assert found.truncation.low < exact < found.truncation.high  # type: ignore[operator]
    assert found.tv is not None
    assert found.tv.value == pytest.approx(0.0, abs=1e-6)
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(1.0, abs=1e-6)
    assert found.kept_ids == 4
    assert (found.tokens, found.unknown) == (800, 0)


def test_what_is_left_on_the_set_is_numerics() -> None:
    batch, exact = top_k_log(np.random.default_rng(2), responses=200, error=0.2)
    found = filled(batch).result(tokens=4000, confidence=0.95)
    assert found is not None and found.tv is not None and found.ratio is not None
    assert found.truncation.value == pytest.approx(exact, rel=1e-6)
    assert 0.01 < found.tv.value < 0.1  # type: ignore[operator]
    assert found.ratio.low < 1 < found.ratio.high  # type: ignore[operator]


def test_the_report_has_both() -> None:
    batch, exact = top_k_log(np.random.default_rng(3))
    statistics = LogStatistics(AnalysisSettings())
    statistics.add(batch)
    check = statistics.distribution.kept_set.check()
    assert (check.status, check.count, check.of) == ("pass", 0, 800)
    assert exact > 0.1


def test_kept_sets_of_other_tokens_are_found() -> None:
    batch, _ = top_k_log(np.random.default_rng(4))
    column = batch.rows.column("token_ids").to_pylist()
    moved = log_batch(
        token_ids=[np.roll(row, 1) for row in column],
        **{
            name: batch.rows.column(name).to_pylist()
            for name in ("behavior_logprobs", "reference_logprobs", "kept_logmass", "kept_ids")
        },
    )
    check = filled(moved).check()
    assert check.status == "fail"
    assert check.count is not None and check.count > 300
    assert check.fix is not None


def test_a_mass_above_one_is_found() -> None:
    batch = log_batch(
        behavior_logprobs=[[-1.0, -1.0]], reference_logprobs=[[-1.0, -1.0]], kept_logmass=[[0.5, float("nan")]]
    )
    kept = filled(batch)
    assert kept.illegal == 1
    assert kept.result(tokens=2, confidence=0.95) is None


def test_masses_above_one_are_said_where_the_ids_are_right() -> None:
    logp = [[-1.0, -1.0]]
    batch = log_batch(
        behavior_logprobs=logp,
        reference_logprobs=logp,
        token_ids=[[1, 2]],
        kept_ids=[[[1], [2]]],
        kept_logmass=[[0.5, -0.5]],
    )
    check = filled(batch).check()
    assert (check.status, check.count, check.of) == ("fail", 0, 2)
    assert check.sentence.endswith("that their sampler kept. 1 kept masses are above 1.")
    assert check.fix is not None and check.fix.startswith("kept_logmass")


def test_a_log_without_kept_sets() -> None:
    kept = filled(log_batch(behavior_logprobs=[[-1.0]], reference_logprobs=[[-1.0]]))
    assert kept.result(tokens=1, confidence=0.95) is None
    assert kept.check().status == "unknown"


@pytest.mark.parametrize(
    ("column", "values", "status", "sentence"),
    [
        ("kept_logmass", [[0.5, 0.25], [1.0]], "fail", "Of 3 kept masses none is read"),
        ("kept_ids", [[[], []], [[]]], "unknown", "Of 3 kept sets none is read"),
        ("kept_ids", [[[], None], None], "unknown", "The log has no sampler's kept set."),
        ("kept_ids", [[None, []], [None]], "unknown", "Of 1 kept sets none is read"),
    ],
)
def test_kept_sets_of_which_none_is_read_are_counted(
    column: str, values: list[Any], status: str, sentence: str
) -> None:
    logp = [[-1.0, -1.0], [-1.0]]
    batch = log_batch(behavior_logprobs=logp, reference_logprobs=logp, token_ids=[[1, 2], [3]], **{column: values})
    whole = KeptSet()
    whole.merge(filled(batch))
    check = whole.check()
    assert check.status == status and check.sentence.startswith(sentence)
    assert (check.count, check.of, check.fix is None) == ((3, 3, False) if status == "fail" else (None, None, True))


def checks(batch: LogBatch) -> dict[str, DistributionCheck]:
    statistics = LogStatistics(AnalysisSettings())
    statistics.add(batch)
    pair = PolicyPair(Context(), statistics.pair)
    return {check.code: check for check in statistics.distribution.results(pair, statistics.rejected)}


def test_a_truncation_that_the_kept_sets_explain_is_no_doubt() -> None:
    batch, truncation = top_k_log(np.random.default_rng(6), responses=100, error=0.05)
    found = checks(batch)
    assert truncation > 0.1
    assert (found["mean_ratio"].status, found["one_sided"].status) == ("pass", "pass")
    assert "renormalised on the sampler's kept sets it is 1.00" in found["mean_ratio"].sentence
    without = LogBatch(batch.rows.drop_columns(["kept_logmass", "kept_ids"]), batch.part)
    assert {checks(without)[code].status for code in ("mean_ratio", "one_sided")} == {"fail"}


def test_what_the_kept_sets_do_not_explain_stays_a_doubt() -> None:
    batch, _ = top_k_log(np.random.default_rng(7), responses=100, error=0.05)
    lower = [[logp - 0.2 for logp in row] for row in batch.rows.column("reference_logprobs").to_pylist()]
    place = batch.rows.schema.get_field_index("reference_logprobs")
    rows = batch.rows.set_column(place, batch.rows.schema.field(place), pa.array(lower, pa.list_(pa.float64())))
    check = checks(LogBatch(rows, batch.part))["mean_ratio"]
    assert check.status == "fail"
    assert "renormalised on the sampler's kept sets it is 0.8" in check.sentence
