"""The headline of top-k evidence: unbiased for what the evidence leaves open, inside the certified interval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pytest
from synthetic_pair import PLAIN, make_pair, manifest
from written_traces import pair_of

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.comparison.floors import Repeats
from mismatchscope.comparison.pair import Pair
from mismatchscope.engines.synthetic.engine import SyntheticEngine
from mismatchscope.engines.synthetic.policy import SyntheticOptions
from mismatchscope.records import Evidence, Observed, SequenceRecord, Task
from mismatchscope.reports.document import Report
from mismatchscope.traces import Trace, write_records

VOCABULARY, TOKENS = 16, 4000
MU_V = np.random.default_rng(0).dirichlet(np.full(VOCABULARY, 0.5))
PI_V = np.random.default_rng(1).dirichlet(np.full(VOCABULARY, 0.5)) / 2 + MU_V / 2
AGAIN_V = 0.9 * PI_V + 0.1 * np.random.default_rng(2).dirichlet(np.full(VOCABULARY, 0.5))


def topk_trace(directory: Path, p_V: np.ndarray, k: int, *, appended: bool = False, **facts: object) -> Trace:
    """Tokens drawn from `MU_V`, the same for every trace, and `p_V` at μ's `k` likeliest ids.

    `appended`: a list ends with the sampled token where that is not among them.
    """
    drawn_ST = np.random.default_rng(3).choice(VOCABULARY, (20, TOKENS // 20), p=MU_V)
    top_K = np.argsort(-MU_V)[:k]
    records = []
    for sequence, drawn_T in enumerate(drawn_ST):
        ids_TK = np.tile(top_K, (len(drawn_T), 1))
        if appended:
            ids_TK = np.column_stack([ids_TK, np.where(np.isin(drawn_T, top_K), -1, drawn_T)])
        observed = Observed(
            np.log(p_V[drawn_T]), ids_TK.astype(np.int32), np.where(ids_TK < 0, np.nan, np.log(p_V[ids_TK]))
        )
        prompt = np.array([1, sequence], dtype=np.int32)
        records.append(SequenceRecord(sequence, sequence, prompt, drawn_T.astype(np.int32), "length", observed))
    evidence = Evidence("topk", k=k)
    write_records(directory, builders.manifest(**{"evidence": evidence} | facts), records)
    return Trace.open(directory)


def written_pair(directory: Path, k: int, *, appended: bool = False) -> Pair:
    mu = topk_trace(directory / "mu", MU_V, k, appended=appended)
    return pair_of(mu, topk_trace(directory / "pi", PI_V, k, appended=appended, role="reference"))


def drawn_tokens(pair: Pair) -> np.ndarray:
    return pair.mu.tokens()["token_id"].to_numpy()


@pytest.mark.parametrize("appended", [False, True])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_what_was_observed_is_summed_and_the_rest_is_sampled(tmp_path: Path, k: int, appended: bool) -> None:
    pair = written_pair(tmp_path, k, appended=appended)
    token, ratio_V = pair.figures.token, PI_V / MU_V
    top_K, drawn_N = np.argsort(-MU_V)[:k], drawn_tokens(pair)
    outside_N = ~np.isin(drawn_N, top_K)
    for statistic, value_V in ((token.tv, np.maximum(1 - ratio_V, 0)), (token.kl, ratio_V - 1 - np.log(ratio_V))):
        expected_N = (MU_V * value_V)[top_K].sum() + np.where(outside_N, value_V[drawn_N], 0.0)
        assert statistic.mean == pytest.approx(expected_N.mean(), rel=1e-9)
        assert "Rao–Blackwell" in statistic.estimator
        assert statistic.low < (MU_V * value_V).sum() < statistic.high
        assert statistic.p50 is None and statistic.max is None  # of one state a value says nothing
    assert pair.alpha.mean.value == token.tv.mean
    assert token.tv_lower.mean < (MU_V * np.maximum(1 - ratio_V, 0)).sum() < token.tv_upper.mean


def test_the_sum_over_the_top_k_leaves_less_to_chance(tmp_path: Path) -> None:
    few, many = (written_pair(tmp_path / str(k), k).figures.token for k in (1, 12))
    assert few.tv.high - few.tv.low > 4 * (many.tv.high - many.tv.low)
    assert few.shortfall.mean == pytest.approx(many.shortfall.mean)  # the sampled tokens' own figure stays


def test_an_estimate_is_kept_within_the_certified_ends(tmp_path: Path) -> None:
    """π takes from what is not in the top-k alone, and no such token was drawn: the sample sees nothing of it."""
    top = int(np.argmax(MU_V))
    pi_V = np.where(np.arange(VOCABULARY) == top, MU_V + 0.02, MU_V)
    rare = int(np.argmin(MU_V))
    mu_V = np.where(np.arange(VOCABULARY) == rare, MU_V + 0.02, MU_V)
    mu_V, pi_V = mu_V / mu_V.sum(), pi_V / pi_V.sum()
    mu, pi = (topk_trace(tmp_path / name, p_V, 1) for name, p_V in (("mu", mu_V), ("pi", pi_V)))
    pair = pair_of(mu, pi)
    token, unkept = pair.figures.token, pair.statistics.sums["tv_estimate"].mean
    assert unkept < token.tv_lower.mean <= token.tv.mean <= token.tv.high
    assert token.tv.mean == pair.alpha.mean.value


def test_a_bound_has_a_name_that_says_so(tmp_path: Path) -> None:
    token = written_pair(tmp_path, 3).figures.token
    ratio_V = PI_V / MU_V
    assert token.kl_lower.mean < (MU_V * (ratio_V - 1 - np.log(ratio_V))).sum()
    assert token.reverse_kl_lower.mean > 0 and token.js_lower.mean > 0
    assert token.reverse_kl is None and token.js is None  # nothing is unbiased for them
    for bound in (token.kl_lower, token.reverse_kl_lower, token.js_lower):
        assert bound.estimator.startswith("lower bound")


@pytest.mark.slow
def test_the_estimates_are_unbiased_over_many_audits(tmp_path: Path) -> None:
    """Of the synthetic engine, whose states all differ; tokens and states are drawn anew each time."""
    errors = []
    for seed in range(12):
        behavior = SyntheticOptions(seed=seed)
        reference = replace(behavior, tv=0.1)
        made = make_pair(
            tmp_path / str(seed), evidence=Evidence("topk", k=3), behavior=behavior, reference=reference, prompts=24
        )
        report = compare(made.behavior, made.reference)
        truth = made.truth("processed")
        tv, kl = (np.concatenate([getattr(each, f"{name}_T") for each in truth]).mean() for name in ("tv", "kl"))
        per_response = np.mean([each.kl_T.sum() for each in truth])
        errors.append(
            [
                report.token.tv.mean / tv - 1,
                report.token.kl.mean / kl - 1,
                report.sequence.kl.mean / per_response - 1,
            ]
        )
    error, spread = np.mean(errors, axis=0), np.std(errors, axis=0, ddof=1) / np.sqrt(len(errors))
    assert (np.abs(error) < 4 * spread).all(), (error, spread)
    assert spread[0] < 0.01 and (spread < 0.1).all()


def repeated(directory: Path, evidence: Evidence) -> Report:
    mu = topk_trace(directory / "mu", MU_V, evidence.k or 1)
    pi = topk_trace(directory / "pi", PI_V, evidence.k or 1, role="reference")
    again = topk_trace(directory / "again", AGAIN_V, evidence.k or 1, role="reference")
    return compare(mu, pi, repeats=Repeats(reference=again))


def test_the_floor_of_the_reference_is_weighted_to_its_own_tokens(tmp_path: Path) -> None:
    """Its tokens were drawn from μ: unweighted, the mean would be of Σ μ (1 − π′/π)₊."""
    floor = repeated(tmp_path, Evidence("topk", k=3)).floor.reference
    truth = np.maximum(PI_V - AGAIN_V, 0).sum()
    top_K = np.argsort(-MU_V)[:3]
    outside = np.ones(VOCABULARY, dtype=bool)
    outside[top_K] = False
    unweighted = (
        np.maximum(PI_V - AGAIN_V, 0)[top_K].sum() + (MU_V * np.maximum(1 - AGAIN_V / PI_V, 0))[outside].sum()
    )
    assert floor.mean.low < truth < floor.mean.high
    assert abs(floor.mean.value - truth) < abs(floor.mean.value - unweighted)


def test_floor_excess_and_multiple_are_of_one_estimator(tmp_path: Path) -> None:
    report = repeated(tmp_path, Evidence("topk", k=3))
    mean, floor = report.alpha1.mean.value, report.floor.reference.mean.value
    assert report.floor.excess.value == pytest.approx(mean - floor)
    assert report.finding.code == "above_floor"
    assert f"{mean / floor:.2f}" in report.finding.sentence


def test_tokens_of_another_policy_leave_the_certified_interval_alone(tmp_path: Path) -> None:
    pair = written_pair(tmp_path, 3)
    off = pair_of(pair.mu, pair.pi, on_policy=False)
    assert off.figures.token.tv is None and off.figures.token.kl is None
    assert off.alpha.mean.value is None
    assert (
        off.alpha.mean.low
        <= off.figures.token.tv_lower.mean
        < off.figures.token.tv_upper.mean
        <= off.alpha.mean.high
    )


def test_corrections_retain_in_the_units_of_the_headline(tmp_path: Path) -> None:
    """A rule that keeps every token retains the headline itself."""
    figures = written_pair(tmp_path, 3).figures
    kept = next(rule for rule in figures.corrections if rule.name == "token_tis")
    assert (kept.tv_retained, kept.kl_retained) == pytest.approx((figures.token.tv.mean, figures.token.kl.mean))


def test_the_old_engine_is_weighted_too(tmp_path: Path) -> None:
    """Engines with one law of error around the trainer: the difference of their mean TVs is nought."""
    evidence = Evidence("topk", k=4)
    pair = make_pair(
        tmp_path,
        evidence=evidence,
        behavior=SyntheticOptions(epsilon=0.3),
        reference=SyntheticOptions(),
        prompts=48,
    )
    task = Task("old", "score", "", "", evidence=evidence, path="decode", sampling=PLAIN)
    old = SyntheticEngine("synthetic", SyntheticOptions(epsilon=0.3, variant=1))
    parent = {"parent": pair.behavior.sha256}
    write_records(
        tmp_path / "old",
        manifest("behavior", "decode", evidence, PLAIN, **parent),
        old.score(list(pair.behavior.requests()), task),
    )
    found = compare(pair.behavior, pair.reference, baseline=Trace.open(tmp_path / "old")).baseline
    assert found.tv_difference.low < 0 < found.tv_difference.high
    assert found.old_reference.alpha.mean.value == pytest.approx(found.old_reference.tv.mean)
    assert "weighted" in found.old_reference.tv.estimator
