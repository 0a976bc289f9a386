"""New engine against old engine, on the same tokens, both held against one trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_pair import FULL, PLAIN, Pair, make_pair, manifest

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.comparison.floors import Repeats
from mismatchscope.engines.synthetic.engine import SyntheticEngine
from mismatchscope.engines.synthetic.policy import SyntheticOptions
from mismatchscope.records import Evidence, Task
from mismatchscope.reports.document import BaselineComparison
from mismatchscope.traces import Trace, write_records

pytestmark = pytest.mark.slow


def old_engine(
    pair: Pair, directory: Path, options: SyntheticOptions, evidence: Evidence = FULL, path="decode"
) -> Trace:
    task = Task("old", "score", "", "", evidence=evidence, path=path, sampling=PLAIN)
    records = SyntheticEngine("synthetic", options).score(list(pair.behavior.requests()), task)
    parent = {"parent": pair.behavior.sha256, "effective": {"kernel": "old"}}
    write_records(directory, manifest("behavior", "decode", evidence, PLAIN, **parent), records)
    return Trace.open(directory)


def compared(
    tmp_path: Path, old: SyntheticOptions, *, evidence: Evidence = FULL, prompts: int = 16
) -> BaselineComparison:
    pair = make_pair(tmp_path, evidence=evidence, reference=SyntheticOptions(tv=0.05), prompts=prompts)
    return compare(
        pair.behavior, pair.reference, baseline=old_engine(pair, tmp_path / "old", old, evidence)
    ).baseline


def test_bit_identical_engines_are_reported_as_exactly_that(tmp_path: Path) -> None:
    found = compared(tmp_path, SyntheticOptions())
    assert (found.verdict, found.new_old.identical) == ("unchanged", True)
    assert "Bit-identical" in found.sentence
    assert found.tv_difference.value == 0


@pytest.mark.parametrize("evidence", [FULL, Evidence("topk", k=16)])
def test_an_older_engine_further_from_the_trainer_makes_the_new_one_better(
    tmp_path: Path, evidence: Evidence
) -> None:
    found = compared(tmp_path, SyntheticOptions(tv=0.2, variant=1), evidence=evidence)
    assert found.verdict == "better"
    assert found.tv_difference.high < 0
    assert found.new_old.alpha.observed_max > 0.05


def test_a_policy_that_was_not_sampled_from_has_no_estimate_from_sampled_tokens(tmp_path: Path) -> None:
    """The raw policy under a temperature, seen at the sampled tokens alone."""
    evidence, warm = Evidence("sampled"), replace(PLAIN, temperature=0.7)
    pair = make_pair(tmp_path, evidence=evidence, sampling=warm, policy="raw", reference=SyntheticOptions(tv=0.05))
    task = Task("old", "score", "", "", evidence=evidence, path="decode", sampling=warm, policy="raw")
    records = SyntheticEngine("synthetic", SyntheticOptions(tv=0.01)).score(list(pair.behavior.requests()), task)
    parent = {"parent": pair.behavior.sha256, "policy": "raw"}
    write_records(tmp_path / "old", manifest("behavior", "decode", evidence, warm, **parent), records)
    old = Trace.open(tmp_path / "old")
    report = compare(pair.behavior, pair.reference, baseline=old, repeats=Repeats(behavior=old))
    assert report.baseline.new_old.alpha.mean.value is None and report.baseline.new_old.tv is None
    assert report.baseline.verdict == "inconclusive"
    assert "mean TV between the two is ≥" in report.baseline.sentence
    assert report.floor.behavior.mean.value is None and report.floor.excess is None


def test_an_older_engine_that_equals_the_trainer_makes_the_new_one_worse(tmp_path: Path) -> None:
    found = compared(tmp_path, SyntheticOptions(tv=0.05))
    assert found.verdict == "worse"
    assert found.old_reference.identical
    assert found.tv_difference.low > 0


def test_other_but_no_closer_is_changed(tmp_path: Path) -> None:
    """Two engines with unlike errors of the same size around the trainer's policy."""
    pair = make_pair(tmp_path, behavior=SyntheticOptions(epsilon=0.05), reference=SyntheticOptions(), prompts=48)
    old = old_engine(pair, tmp_path / "old", SyntheticOptions(epsilon=0.05, variant=1))
    found = compare(pair.behavior, pair.reference, baseline=old).baseline
    assert found.verdict == "changed" and "which is closer to the trainer is open" in found.sentence
    assert "was not run twice" in found.sentence
    assert found.tv_difference.low < 0 < found.tv_difference.high


def test_a_change_inside_the_repeat_noise_is_none(tmp_path: Path) -> None:
    noisy = SyntheticOptions(noise=0.02)
    pair = make_pair(tmp_path, behavior=noisy, reference=SyntheticOptions(tv=0.05), prompts=64)
    # The noise depends on batch and path: another path is another draw of it.
    old = old_engine(pair, tmp_path / "old", replace(noisy, noise=0.01), path="prefill")
    again = old_engine(pair, tmp_path / "again", replace(noisy, noise=0.03), path="prefill")
    found = compare(pair.behavior, pair.reference, baseline=old, repeats=Repeats(behavior=again)).baseline
    assert found.verdict == "unchanged" and not found.new_old.identical
    assert found.change.high < found.margin and "less than a margin of" in found.sentence
    # The same law of noise, from other engines: neither told apart nor shown to be alike by few prompts.
    few = make_pair(tmp_path / "few", behavior=noisy, reference=SyntheticOptions(tv=0.05), prompts=16)
    old = old_engine(few, tmp_path / "few-old", replace(noisy, noise=0.02), path="prefill")
    again = old_engine(few, tmp_path / "few-again", replace(noisy, noise=0.021), path="prefill")
    found = compare(few.behavior, few.reference, baseline=old, repeats=Repeats(behavior=again)).baseline
    assert (found.verdict, found.prompts_needed) == ("inconclusive", 59)


def test_a_change_of_a_deterministic_engine_is_one(tmp_path: Path) -> None:
    """No repeat of the new engine differs, so what differs from the old one is none, however few the prompts."""
    pair = make_pair(tmp_path, reference=SyntheticOptions(tv=0.05))
    old = old_engine(pair, tmp_path / "old", SyntheticOptions(tv=0.2, variant=1))
    again = old_engine(pair, tmp_path / "again", SyntheticOptions())
    found = compare(pair.behavior, pair.reference, baseline=old, repeats=Repeats(behavior=again)).baseline
    assert found.verdict == "better" and "noise" not in found.sentence


def test_one_prompt_cannot_decide(tmp_path: Path) -> None:
    assert compared(tmp_path, SyntheticOptions(tv=0.2, variant=1), prompts=1).verdict == "inconclusive"


def test_sampled_tokens_tell_which_is_closer_once_weighted(tmp_path: Path) -> None:
    found = compared(tmp_path, SyntheticOptions(tv=0.2, variant=1), evidence=Evidence("sampled"), prompts=48)
    assert found.verdict == "better" and found.abs_logprob_difference.high < 0
    assert found.tv_difference.low < 0.05 - 0.2 < found.tv_difference.high


def test_differences_are_paired_by_state(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, reference=SyntheticOptions(tv=0.05))
    old = old_engine(pair, tmp_path / "old", SyntheticOptions(tv=0.1, variant=1))
    report = compare(pair.behavior, pair.reference, baseline=old)
    other = compare(old, pair.reference)
    assert report.baseline.tv_difference.value == pytest.approx(report.token.tv.mean - other.token.tv.mean)
    assert report.baseline.old_reference.tv.mean == pytest.approx(other.token.tv.mean)
    assert [one.key for one in report.baseline.difference] == ["effective.kernel"]
    assert np.isfinite(report.baseline.kl_difference.value)
