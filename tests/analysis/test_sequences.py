"""Which responses of a log are shown, and what is shown of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_runs import RunDesign, SimulatedRun, simulated_run

from mismatchscope.analysis.block import LogBlock
from mismatchscope.analysis.sequences import KEPT, LONGEST, SequenceSamples

RUN = simulated_run(RunDesign(steps=4, prompts=8, turns=2), seed=2)
BLOCK = RUN.block()


def found(blocks: list[LogBlock]) -> list[tuple[str, int]]:
    samples = SequenceSamples()
    for block in blocks:
        samples.add(block)
    return [(each.chosen, each.sequence_id) for each in samples.results()]


def mean_tv(run: SimulatedRun, at: int) -> float:
    """Mean of (1 − ρ)₊ over the tokens of one response that count, in plain Python."""
    of = slice(int(run.start_S[at]), int(run.start_S[at] + run.length_S[at]))
    kept = run.mask_N[of]
    ratios = np.exp(run.logp_pi_N[of][kept] - run.logp_mu_N[of][kept])
    return sum(max(0.0, 1.0 - float(ratio)) for ratio in ratios) / int(kept.sum())


def test_the_worst_are_those_of_the_largest_mean_tv() -> None:
    by_tv = sorted(range(len(RUN.length_S)), key=lambda at: -mean_tv(RUN, at))
    samples = SequenceSamples()
    samples.add(BLOCK)
    worst = [each for each in samples.results() if each.chosen == "worst"]
    assert [each.sequence_id for each in worst] == by_tv[:KEPT]
    for each in worst:
        assert each.mean_tv == pytest.approx(mean_tv(RUN, each.sequence_id), rel=1e-12)
        known = [token for token in each.tokens if token.counts]
        assert each.log_ratio == pytest.approx(
            sum(token.logprob_reference - token.logprob_behavior for token in known), abs=1e-12
        )


def test_a_response_is_shown_as_the_log_has_it() -> None:
    samples = SequenceSamples()
    samples.add(BLOCK)
    for each in samples.results():
        at = each.sequence_id
        of = slice(int(RUN.start_S[at]), int(RUN.start_S[at] + RUN.length_S[at]))
        assert [token.token_id for token in each.tokens] == RUN.token_id_N[of].tolist()
        assert [token.counts for token in each.tokens] == RUN.mask_N[of].tolist()
        assert [token.turn for token in each.tokens] == RUN.turn_N[of].tolist()
        assert [token.version for token in each.tokens] == RUN.version_N[of].tolist()
        assert (each.step, each.worker) == (RUN.step_S[at], f"worker-{RUN.worker_S[at]}")


@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, 63), max_size=6), turned=st.booleans(), apart=st.booleans())
def test_any_split_and_order_chooses_the_same(cuts: set[int], turned: bool, apart: bool) -> None:
    edges = [0, *sorted(cuts), 64]
    blocks = [RUN.block(first, stop) for first, stop in pairwise(edges)]
    blocks = blocks[::-1] if turned else blocks
    if apart:
        whole = SequenceSamples()
        for block in blocks:
            one = SequenceSamples()
            one.add(block)
            whole.merge(one)
        assert [(each.chosen, each.sequence_id) for each in whole.results()] == found([BLOCK])
    else:
        assert found(blocks) == found([BLOCK])


def test_the_random_ones_do_not_depend_on_how_far_apart_they_are() -> None:
    """Every eighth response is chosen as often: over many logs, each place of 40 about as often as another."""
    counts = np.zeros(40)
    run = simulated_run(RunDesign(steps=1, prompts=20, length=(1, 2)))
    block = run.block()
    for log in range(400):
        numbered = replace(block, sequence_id_S=np.arange(40) + 40 * log)
        counts[[number % 40 for chosen, number in found([numbered]) if chosen == "random"]] += 1
    expected = 400 * KEPT / 40
    # Pearson's statistic of 39 degrees of freedom: above 72.1 in one of a thousand such tests.
    assert ((counts - expected) ** 2 / expected).sum() < 72.1


def test_long_responses_are_cut_and_parts_are_not_shown() -> None:
    run = simulated_run(RunDesign(steps=1, prompts=2, samples=1, length=(LONGEST + 7, LONGEST + 7)))
    block = run.block()
    samples = SequenceSamples()
    samples.add(replace(block, whole_S=np.array([True, False])))
    assert [each.sequence_id for each in samples.results()] == [0, 0]
    assert {len(each.tokens) for each in samples.results()} == {LONGEST}
    assert {each.omitted for each in samples.results()} == {7}
