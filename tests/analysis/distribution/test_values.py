"""Single columns: what no log-prob is, what was filled in, what is a copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_rows import log_batch

from mismatchscope.analysis.analyze import analyze
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.analysis.statistics import LogStatistics
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import PolicyPair
from mismatchscope.errors import EmptyComparisonError
from mismatchscope.logs.source import LogBatch
from mismatchscope.measures.log_results import DistributionCheck


def found(*batches: LogBatch) -> dict[str, DistributionCheck]:
    statistics = LogStatistics(AnalysisSettings())
    for batch in batches:
        statistics.add(batch)
    pair = PolicyPair(Context(), statistics.pair)
    return {check.code: check for check in statistics.distribution.results(pair, statistics.rejected)}


def columns(rng: np.random.Generator, responses: int = 30, tokens: int = 40) -> tuple[np.ndarray, np.ndarray]:
    mu_ST = -rng.exponential(1.0, (responses, tokens)) - 0.02
    return mu_ST, np.minimum(mu_ST + rng.normal(0, 0.01, mu_ST.shape), -1e-3)


def test_illegal_values_are_counted_by_reason() -> None:
    nan, inf = float("nan"), float("inf")
    check = found(
        log_batch(
            behavior_logprobs=[[-1.0, nan, 0.5, -1.0, -inf]], reference_logprobs=[[-1.0, -1.0, -1.0, None, -2.0]]
        )
    )["illegal_values"]
    assert (check.status, check.count, check.of) == ("fail", 4, 5)
    assert sum(check.evidence.values()) == 4


def test_bit_identical_columns_cannot_be_told_from_a_copy() -> None:
    mu_ST, _ = columns(np.random.default_rng(1))
    checks = found(log_batch(behavior_logprobs=list(mu_ST), reference_logprobs=list(mu_ST)))
    assert checks["copy"].status == "unknown"
    assert "copy" in checks["copy"].sentence
    assert not [check for check in checks.values() if check.status == "fail"]


def test_copies_in_some_responses_are_counted() -> None:
    mu_ST, pi_ST = columns(np.random.default_rng(2))
    pi_ST[:10] = mu_ST[:10]
    check = found(log_batch(behavior_logprobs=list(mu_ST), reference_logprobs=list(pi_ST)))["copy"]
    assert (check.status, check.count, check.of) == ("unknown", 10, 30)


@pytest.mark.parametrize(("factor", "words"), [(np.log10(np.e), "base-10"), (np.log2(np.e), "base-2")])
def test_another_base_is_named(factor: float, words: str) -> None:
    mu_ST, pi_ST = columns(np.random.default_rng(3))
    check = found(log_batch(behavior_logprobs=list(mu_ST), reference_logprobs=list(pi_ST * factor)))["unit"]
    assert check.status == "fail"
    assert f"the reference's are {words}" in check.sentence


def test_equal_contexts_are_no_filler() -> None:
    """All responses of one prompt begin alike: their first tokens have one log-prob each."""
    mu_ST, pi_ST = columns(np.random.default_rng(4), responses=200)
    mu_ST[:, :10], pi_ST[:, :10] = mu_ST[0, :10], pi_ST[0, :10]
    checks = found(log_batch(prompt=[0] * 200, behavior_logprobs=list(mu_ST), reference_logprobs=list(pi_ST)))
    assert checks["repeated_value"].status == "pass"
    assert checks["duplicates"].status == "pass"


def test_a_log_of_one_short_response_knows_little() -> None:
    checks = found(log_batch(behavior_logprobs=[[-1.0, -0.5]], reference_logprobs=[[-1.1, -0.4]]))
    assert {check.status for check in checks.values()} <= {"pass", "unknown"}
    for code in ("shift", "row_order", "related", "temperature", "mean_ratio", "unit", "first_tokens"):
        assert checks[code].status == "unknown", code


def repeated(prompt_S: np.ndarray, content_S: np.ndarray, rank_S: np.ndarray | None = None) -> DistributionCheck:
    """Responses of which those of one content are the same to the bit."""
    mu_ST, pi_ST = columns(np.random.default_rng(5), responses=int(content_S.max()) + 1, tokens=60)
    ranks = {} if rank_S is None else {"rank": rank_S.tolist()}
    batch = log_batch(
        prompt=prompt_S.tolist(),
        token_ids=[np.arange(60) + content for content in content_S],
        behavior_logprobs=list(mu_ST[content_S]),
        reference_logprobs=list(pi_ST[content_S]),
        **ranks,
    )
    return found(batch)["duplicates"]


def test_a_greedy_sampler_that_repeats_itself_is_no_fault() -> None:
    prompt_S = np.repeat(np.arange(20), 4)
    check = repeated(prompt_S, prompt_S)
    assert (check.status, check.count, check.of) == ("unknown", 60, 80)
    assert "greedy" in check.sentence


@pytest.mark.parametrize("samples", [2, 4, 8])
def test_nor_is_one_of_whose_responses_some_diverge(samples: int) -> None:
    prompt_S = np.repeat(np.arange(20), samples)
    diverges_S = np.random.default_rng(samples).random(len(prompt_S)) < 0.2
    content_S = np.where(diverges_S, 20 + np.arange(len(prompt_S)), prompt_S)
    check = repeated(prompt_S, content_S)
    assert (check.status, "greedy" in check.sentence) == ("unknown", True)
    if samples > 2:  # two copies of each on two ranks could be what both hold
        assert repeated(prompt_S, content_S, np.arange(len(prompt_S)) % samples).status == "unknown"


def test_copies_are_told_from_the_responses_that_they_are_of() -> None:
    content_S = np.repeat(np.arange(5), [5, 4, 4, 1, 1])
    check = repeated(content_S, content_S, np.arange(len(content_S)))
    assert check.sentence.startswith(
        "10 responses (66.7 %) came before with the same tokens and log-probs: "
        "copies of 3, of which 3 are in several files or ranks (all 15 "
    )


def test_copies_of_unknown_prompts_say_nothing_of_prompts() -> None:
    check = repeated(np.full(40, None), np.repeat(np.arange(10), 4))
    assert check.status == "unknown"
    assert check.sentence.endswith("A greedy sampler that repeats itself looks like this.")


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_ranks_that_write_what_both_hold_are_a_fault(samples: int) -> None:
    content_S = np.arange(20 * samples)
    twice_S = np.tile(content_S, 2)
    check = repeated(twice_S // samples, twice_S, np.repeat([0, 1], len(content_S)))
    assert check.status == "fail"
    assert check.count == check.of / 2  # type: ignore[operator]


def test_probabilities_are_named(tmp_path: Path) -> None:
    mu_ST, pi_ST = columns(np.random.default_rng(6))
    batch = log_batch(behavior_logprobs=list(np.exp(mu_ST)), reference_logprobs=list(np.exp(pi_ST)))
    pq.write_table(pa.Table.from_batches([batch.rows]), tmp_path / "log.parquet")
    with pytest.raises(EmptyComparisonError, match="probabilities, not their logarithms"):
        analyze([tmp_path], AnalysisSettings(), processes=1)
