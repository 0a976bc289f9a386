"""The context of a pair, and a pair as it is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from written_traces import pair_with_ratios, sampled_trace

from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import measure_pair
from mismatchscope.errors import NotComparableError
from mismatchscope.records import Sampling
from mismatchscope.traces import Trace

PLAIN, WARM, CUT = Sampling(), Sampling(temperature=0.7), Sampling(top_p=0.9)


def trace(directory: Path, logp: float = -1.0, **facts: object) -> Trace:
    return sampled_trace(directory, [np.full(3, logp), np.full(5, logp)], **facts)


def context_of(directory: Path, asked: str | None, **facts: object) -> Context:
    return Context.of(trace(directory / "mu", **facts), trace(directory / "pi", role="reference"), asked)


@pytest.mark.parametrize(
    ("asked", "recorded", "sampling", "compared"),
    [
        (None, "processed", CUT, "processed"),
        (None, "raw", CUT, "raw"),
        ("processed", "processed", CUT, "processed"),
        ("support", "processed", CUT, "support"),
        ("raw", "processed", PLAIN, "raw"),
        ("processed", "raw", PLAIN, "processed"),
        ("raw", "processed", None, "raw"),
        ("raw", "processed", WARM, None),
        ("raw", "processed", CUT, None),
        ("processed", "raw", WARM, None),
        ("support", "raw", PLAIN, None),
    ],
)
def test_a_policy_is_compared_where_the_trace_holds_it(
    tmp_path: Path, asked: str | None, recorded: str, sampling: Sampling | None, compared: str | None
) -> None:
    """Raw and processed are one where the sampler transforms nothing."""
    if compared is None:
        with pytest.raises(NotComparableError, match=f"holds the {recorded} policy, so the {asked} one"):
            context_of(tmp_path, asked, policy=recorded, sampling=sampling)
    else:
        assert context_of(tmp_path, asked, policy=recorded, sampling=sampling).policy == compared


@pytest.mark.parametrize(
    ("policy", "sampling", "on_policy", "truncated"),
    [
        ("processed", PLAIN, True, False),
        ("processed", WARM, True, False),
        ("processed", CUT, True, True),
        ("raw", PLAIN, True, False),
        ("raw", WARM, False, False),
        ("raw", CUT, False, True),
        ("raw", None, True, False),
    ],
)
def test_tokens_are_off_policy_where_the_sampler_changed_the_raw_one(
    tmp_path: Path, policy: str, sampling: Sampling | None, on_policy: bool, truncated: bool
) -> None:
    context = context_of(tmp_path, None, policy=policy, sampling=sampling)
    assert (context.on_policy, context.truncated) == (on_policy, truncated)


def test_ids_are_the_behaviours_unless_the_reference_was_scored_for_another_trace(tmp_path: Path) -> None:
    mu = trace(tmp_path / "mu")
    for name, parent, own in (("none", None, True), ("own", mu.sha256, True), ("other", "0" * 64, False)):
        pi = trace(tmp_path / name, role="reference", parent=parent)
        assert Context.of(mu, pi, None).ids_of_behavior == own


def test_derived_contexts_change_what_is_other_and_keep_the_rest(tmp_path: Path) -> None:
    first = Context(policy="support", ids_of_behavior=False, truncated=True, confidence=0.9, tail=True)
    reference = trace(tmp_path / "pi", role="reference", policy="raw")
    own_ids = replace(first, ids_of_behavior=True, tail=False)
    behavior = trace(tmp_path / "mu")
    # Under a sampler that cuts ids off no weight makes its tokens another policy's.
    weighted = {"ids_of_behavior": False, "weighted": True, "drawn_by": behavior, "on_policy": False}
    assert first.of_repeat(behavior, behavior) == replace(own_ids, policy=behavior.manifest.policy)
    assert first.of_repeat(reference, behavior) == replace(own_ids, policy="raw", **weighted)
    assert first.of_other_engine(behavior) == replace(own_ids, **weighted)
    assert first.of_behavior() == own_ids
    assert first.of_reference(reference, behavior) == replace(own_ids, policy="raw", truncated=False, **weighted)
    whole = replace(first, truncated=False)
    assert whole.of_repeat(reference, behavior).on_policy and whole.of_other_engine(behavior).on_policy
    assert not replace(whole, on_policy=False).of_reference(reference, behavior).on_policy


def test_a_pair_counts_its_rows_and_tells_of_them(tmp_path: Path) -> None:
    told: list[int] = []
    pair = pair_with_ratios(tmp_path, [np.full(3, 1.1), np.full(5, 0.9)], on_rows=told.append)
    assert sum(told) == pair.counts.tokens == pair.statistics.tokens == 8
    assert (pair.counts.prompts, pair.counts.sequences) == (2, 2)


def test_a_pair_in_short_has_the_figures_of_the_pair(tmp_path: Path) -> None:
    pair = pair_with_ratios(tmp_path, [np.full(3, 0.8), np.full(5, 0.9)])
    summary = pair.summary
    assert summary.alpha == pair.alpha and not summary.identical
    assert summary.tv.mean == pytest.approx((3 * 0.2 + 5 * 0.1) / 8)
    assert summary.abs_logprob_diff.mean == pytest.approx(-(3 * np.log(0.8) + 5 * np.log(0.9)) / 8)
    assert summary.kl.mean == pytest.approx((3 * (-0.2 - np.log(0.8)) + 5 * (-0.1 - np.log(0.9))) / 8)


def test_a_trace_is_identical_to_itself_and_not_to_the_nearest_one(tmp_path: Path) -> None:
    mu, near = trace(tmp_path / "mu"), trace(tmp_path / "near", np.nextafter(-1.0, 0.0), role="reference")
    assert measure_pair(mu, mu, Context()).figures.identical
    assert not measure_pair(mu, near, Context()).figures.identical
