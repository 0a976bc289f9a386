"""Two traces -> a report: every block, its evidence labels, its alarms and its finding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_pair import Pair, make_pair, manifest

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.comparison.floors import Repeats
from mismatchscope.engines.synthetic.engine import SyntheticEngine
from mismatchscope.engines.synthetic.policy import SyntheticOptions
from mismatchscope.errors import NotComparableError
from mismatchscope.records import Evidence, Sampling, Task
from mismatchscope.reports.document import Report
from mismatchscope.traces import Trace, write_records

NOISY = SyntheticOptions(noise=0.01)


def repeat_of(pair: Pair, directory: Path, options: SyntheticOptions) -> Trace:
    """The behaviour's tokens through a noisy engine in other batches."""
    requests = list(pair.behavior.requests())
    task = Task("again", "score", "", "", path="decode", sampling=pair.sampling)
    engine = SyntheticEngine("synthetic", options)
    records = [*engine.score(requests[:10], task), *engine.score(requests[10:], task)]
    write_records(directory, manifest("behavior", "decode", Evidence("full"), pair.sampling), records)
    return Trace.open(directory)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def report(pair: Pair) -> Report:
    return compare(pair.behavior, pair.reference, command="mismatchscope compare mu pi -o report")


def test_alpha_is_what_the_definitions_say(pair: Pair, report: Report) -> None:
    truth = pair.truth("processed")
    tv = np.concatenate([one.tv_T for one in truth])
    assert report.alpha1.observed_max == pytest.approx(tv.max(), abs=2e-6)
    assert report.alpha1.observed_upper == report.alpha1.observed_max
    assert report.alpha1.mean.value == pytest.approx(tv.mean(), abs=2e-6)
    assert report.alpha1.mean.low < tv.mean() < report.alpha1.mean.high
    assert report.alpha1.mean.clusters == 16
    by_tau = {point.tau: point for point in report.alpha1.exceedance}
    assert by_tau[0.05].tokens == pytest.approx((tv > 0.05).mean())
    assert report.alpha1.tail is None  # a model, made only on request


def test_sequence_block_is_what_the_definitions_say(pair: Pair, report: Report) -> None:
    truth = pair.truth("processed")
    log_ratio = np.array([one.log_ratio_T.sum() for one in truth])
    weights = np.exp(log_ratio)
    assert report.sequence.log_ratio.mean == pytest.approx(log_ratio.mean(), abs=1e-5)
    assert report.sequence.tv.mean == pytest.approx(np.maximum(1 - weights, 0).mean(), abs=1e-5)
    assert report.sequence.kl.mean == pytest.approx(np.mean([one.kl_T.sum() for one in truth]), rel=1e-3)
    assert report.sequence.tv_bound.mean == pytest.approx(np.mean([one.tv_T.sum() for one in truth]), rel=1e-3)
    assert report.sequence.ess_fraction == pytest.approx(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
    assert sum(length.sequences for length in report.sequence.by_length) == len(truth)
    assert report.sequence.tv.mean <= report.sequence.tv_bound.mean


def test_bounds_are_what_the_definitions_say(pair: Pair, report: Report) -> None:
    truth = pair.truth("processed")
    horizon = max(len(one.tv_T) for one in truth)
    tv_ST = np.array([np.pad(one.tv_T, (0, horizon - len(one.tv_T))) for one in truth])
    e, k = tv_ST.max(), max(one.kl_T.max() for one in truth)
    before_T = np.arange(horizon)
    pairs = [
        sum(
            abs(np.exp(one.log_ratio_T[t]) - 1) * max(0.0, 1 - np.exp(one.log_ratio_T[j]))
            for j in range(len(one.log_ratio_T))
            for t in range(j)
        )
        for one in truth
    ]
    bounds = report.bounds
    assert bounds.horizon == horizon
    assert bounds.classical_tv == pytest.approx(2 * horizon * (horizon - 1) * e**2, rel=1e-3)
    assert bounds.classical_kl == pytest.approx(horizon * (horizon - 1) * k, rel=1e-3)
    assert bounds.coupling == pytest.approx(4 * e * np.minimum(1, before_T * e).sum(), rel=1e-3)
    assert bounds.mixed_tv == pytest.approx(4 * horizon * e * report.sequence.tv.mean, rel=1e-3)
    drift_T = np.minimum(1, np.minimum(before_T[::-1] * e, np.sqrt(before_T[::-1] * k / 2)))
    assert bounds.adaptive == pytest.approx(4 * tv_ST.mean(axis=0) @ drift_T, rel=1e-3)
    assert bounds.max_free_linear.value == pytest.approx(4 * tv_ST.sum(axis=1).mean(), rel=1e-3)
    assert bounds.max_free_quadratic.value == pytest.approx(2 * np.mean(pairs), rel=1e-2)
    for mean in (bounds.max_free_linear, bounds.max_free_quadratic):
        assert mean.low < mean.value < mean.high and mean.clusters == 16
    assert (bounds.slack_mean, bounds.slack_observed_max) == (None, None)


def test_a_bound_asks_for_what_the_evidence_gives(tmp_path: Path) -> None:
    sampled = make_pair(tmp_path / "sampled", evidence=Evidence("sampled"))
    bounds = compare(sampled.behavior, sampled.reference).bounds
    known = {name for name in vars(bounds) if getattr(bounds, name) is not None} - {"vacuous"}
    assert known == {"horizon", "max_free_linear", "max_free_quadratic"}


def test_every_statistic_states_n_and_estimator(report: Report) -> None:
    for block in (report.token, report.sequence):
        for name in vars(block):
            value = getattr(block, name)
            if hasattr(value, "estimator"):
                assert value.estimator and value.n > 0 and value.clusters == 16, name


def test_weaker_evidence_leaves_out_what_it_cannot_say(tmp_path: Path) -> None:
    sampled = make_pair(tmp_path / "sampled", evidence=Evidence("sampled"))
    report = compare(sampled.behavior, sampled.reference)
    assert report.alpha1.observed_upper is None
    assert report.token.tv.max is None and report.token.tv.mean is not None
    assert report.token.chi2 is None and report.token.reverse_kl is None and report.sequence.max_tv is None
    topk = make_pair(tmp_path / "topk", evidence=Evidence("topk", k=8))
    report = compare(topk.behavior, topk.reference)
    assert report.alpha1.observed_max < report.alpha1.observed_upper
    assert report.token.tv_lower.mean < report.token.tv_upper.mean
    assert report.token.tv_lower.mean < report.token.tv.mean < report.token.tv_upper.mean
    # An estimate may fall short of a certified bound, its interval may not.
    assert report.token.kl_lower.high <= report.token.kl.high and report.token.reverse_kl is None
    assert "lower bound" in report.token.kl_lower.estimator and "lower bound" not in report.token.kl.estimator


def test_mismatch_inside_the_floor_is_called_that(tmp_path: Path) -> None:
    noisy = make_pair(tmp_path, behavior=NOISY, reference=NOISY, prompts=64)
    again = repeat_of(noisy, tmp_path / "again", NOISY)
    report = compare(noisy.behavior, noisy.reference, repeats=Repeats(behavior=again))
    assert report.finding.code == "within_floor"
    assert report.finding.margin == pytest.approx(report.floor.behavior.mean.value / 2)
    assert report.floor.excess.high < report.finding.margin
    narrow = compare(noisy.behavior, noisy.reference, repeats=Repeats(behavior=again), margin=1e-3)
    assert narrow.finding.code == "unresolved" and narrow.finding.prompts_needed > 64
    assert report.floor.behavior.mean.value > 0 and not report.floor.behavior.identical
    assert report.floor.excess.low <= 0


def test_mismatch_above_the_floor_says_by_how_much(tmp_path: Path) -> None:
    noisy = make_pair(tmp_path, behavior=NOISY, reference=replace(NOISY, tv=0.1))
    again = repeat_of(noisy, tmp_path / "again", NOISY)
    report = compare(noisy.behavior, noisy.reference, repeats=Repeats(behavior=again))
    assert report.finding.code == "above_floor"
    difference = report.token.tv.mean - report.floor.behavior.mean.value
    assert report.floor.excess.value == pytest.approx(difference)


def test_identical_traces_are_reported_as_exactly_that(tmp_path: Path) -> None:
    same = make_pair(tmp_path, reference=SyntheticOptions())
    report = compare(same.behavior, same.reference)
    assert report.finding.code == "identical"
    assert report.token.tv.max == 0 and report.alpha1.observed_max == 0
    assert report.worst == []


class TestAlarms:
    def codes(self, report: Report) -> set[str]:
        return {alarm.code for alarm in report.alarms}

    def test_a_sound_comparison_has_none(self, report: Report) -> None:
        assert self.codes(report) <= {"heavy_weights"}

    def test_temperature_on_one_side(self, tmp_path: Path) -> None:
        hot = make_pair(tmp_path, sampling=Sampling(max_new_tokens=24, temperature=0.7), prompts=64)
        task = Task("pi", "score", "", "", policy="raw")  # a trainer that forgot the temperature
        scored = SyntheticEngine("synthetic", hot.options[0]).score(list(hot.behavior.requests()), task)
        write_records(tmp_path / "cold", manifest("reference", "prefill", Evidence("full"), hot.sampling), scored)
        report = compare(hot.behavior, Trace.open(tmp_path / "cold"))
        assert "temperature" in self.codes(report)
        factor = next(alarm for alarm in report.alarms if alarm.code == "temperature").evidence["factor"]
        assert factor == pytest.approx(0.7, abs=0.05)

    def test_swapped_traces_are_refused_with_the_right_order(self, tmp_path: Path) -> None:
        pair = make_pair(tmp_path, prompts=4)
        with pytest.raises(NotComparableError, match=r"it is the reference, .* it is the behaviour") as raised:
            compare(pair.reference, pair.behavior)
        assert "compare TRACE_MU TRACE_PI" in (raised.value.hint or "")

    @pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 8}])
    def test_truncation_is_not_taken_for_a_temperature(self, tmp_path: Path, cut: dict) -> None:
        sampling = Sampling(max_new_tokens=24, **cut)
        pair = make_pair(tmp_path, sampling=sampling, reference=SyntheticOptions(epsilon=0.05), prompts=64)
        assert "temperature" not in self.codes(compare(pair.behavior, pair.reference))

    def test_truncation_leaks(self, tmp_path: Path) -> None:
        cut = make_pair(tmp_path, sampling=Sampling(max_new_tokens=24, top_k=8), reference=SyntheticOptions())
        report = compare(cut.behavior, cut.reference)
        assert "support_leak" in self.codes(report)
        assert report.truncation_floor == pytest.approx(report.token.tv.mean, rel=1e-3)
        assert report.token.ratio.mean == pytest.approx(1 - report.token.leak.mean, abs=0.05)
        assert report.token.reverse_kl.mean == np.inf

    def test_other_weights(self, pair: Pair, tmp_path: Path) -> None:
        task = Task("pi", "score", "", "")
        scored = SyntheticEngine("synthetic", SyntheticOptions()).score(list(pair.behavior.requests()), task)
        stale = manifest("reference", "prefill", Evidence("full"), pair.sampling, model={"weights_sha256": "old"})
        write_records(tmp_path / "stale", stale, scored)
        assert "weights" in self.codes(compare(pair.behavior, Trace.open(tmp_path / "stale")))

    def test_a_floor_of_one_side_alone(self, pair: Pair, tmp_path: Path) -> None:
        again = repeat_of(pair, tmp_path / "again", SyntheticOptions())
        report = compare(pair.behavior, pair.reference, repeats=Repeats(behavior=again))
        assert "one_sided_floor" in self.codes(report)

    def test_missing_and_rejected_rows_are_counted(self, pair: Pair, tmp_path: Path) -> None:
        task = Task("pi", "score", "", "")
        records = list(SyntheticEngine("synthetic", SyntheticOptions()).score(list(pair.behavior.requests()), task))
        broken = records[1].observed
        records[1].observed = replace(broken, logprob_T=np.concatenate([[np.nan], broken.logprob_T[1:]]))
        write_records(
            tmp_path / "holes", manifest("reference", "prefill", Evidence("full"), pair.sampling), records[1:]
        )
        report = compare(pair.behavior, Trace.open(tmp_path / "holes"))
        assert (report.counts.unmatched_behavior, report.counts.rejected) == (1, 1)
        assert {"unmatched", "rejected"} <= self.codes(report)

    def test_tokens_of_a_truncated_sampler_are_off_policy_for_the_raw_one(self, tmp_path: Path) -> None:
        cut = make_pair(tmp_path, sampling=Sampling(max_new_tokens=24, top_k=8), policy="raw")
        report = compare(cut.behavior, cut.reference)
        assert report.policy == "raw"
        assert "off_policy_tokens" in self.codes(report)
        assert report.sequence.tv is None and report.corrections == []


def test_policies_are_never_mixed(tmp_path: Path) -> None:
    cut = make_pair(tmp_path, sampling=Sampling(max_new_tokens=24, top_k=8))
    with pytest.raises(NotComparableError, match="processed"):
        compare(cut.behavior, cut.reference, policy="raw")


def test_three_policies_measure_each_pair(tmp_path: Path) -> None:
    first = make_pair(tmp_path, reference=SyntheticOptions(tv=0.05))
    task = Task("theta", "score", "", "")
    scored = SyntheticEngine("synthetic", SyntheticOptions(tv=0.2, variant=1)).score(
        list(first.behavior.requests()), task
    )
    write_records(tmp_path / "theta", manifest("target", "prefill", Evidence("full"), first.sampling), scored)
    report = compare(first.behavior, first.reference, target=Trace.open(tmp_path / "theta"))
    assert report.beta.observed_max <= report.alpha0.observed_max + report.alpha1.observed_max + 1e-9
    assert report.bounds.slack_mean >= -1e-9
    assert report.provenance.target is not None


def test_corrections_leave_alpha_alone(report: Report) -> None:
    names = {correction.name for correction in report.corrections}
    assert {"token_tis", "icepop", "sequence_mis"} <= names
    assert all(0 <= correction.kept_tokens <= 1 for correction in report.corrections)


def test_worst_tokens_are_the_largest(report: Report) -> None:
    tvs = [token.tv for token in report.worst]
    assert tvs == sorted(tvs, reverse=True) and tvs[0] == report.alpha1.observed_max


def test_report_survives_its_own_json(report: Report) -> None:
    # The sums by prompt are a file of their own.
    assert Report.model_validate_json(report.to_json()) == report.with_prompt_sums(None)
