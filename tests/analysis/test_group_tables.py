"""Sums of a log by label: equal to formulas on single tokens, for any split and order of its responses."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_runs import RunDesign, SimulatedRun, simulated_run

from mismatchscope.analysis.block import LogBlock
from mismatchscope.analysis.group_rows import groups_of
from mismatchscope.analysis.groups import GroupSums
from mismatchscope.analysis.segments import segments_of
from mismatchscope.measures.intervals import clustered_mean
from mismatchscope.measures.log_results import GroupRow, Groups

RUN = simulated_run(RunDesign(steps=6, prompts=8, lags=(0, 1, 2), turns=3, workers=3, error=0.3))


def summed(run: SimulatedRun, edges: list[int], order: list[int]) -> GroupSums:
    """Slices of the run, each in an accumulator of its own, merged in some order."""
    bounds = [0, *edges, len(run.length_S)]
    total = GroupSums()
    for index in order:
        if bounds[index] < bounds[index + 1]:
            part = GroupSums()
            part.add(run.block(bounds[index], bounds[index + 1]))
            total.merge(pickle.loads(pickle.dumps(part)))
    return total


def tables(sums: GroupSums) -> dict[str, Groups]:
    return {table.by: table for table in groups_of(sums)}


WHOLE = tables(summed(RUN, [], [0]))


def labels_by_token(by: str) -> np.ndarray:
    """Of each token of the run that counts, as a table calls it."""
    sequence_N = np.repeat(np.arange(len(RUN.length_S)), RUN.length_S)
    kept_N = RUN.mask_N
    counts_S = np.bincount(sequence_N[kept_N], minlength=len(RUN.length_S))
    lag_N = RUN.step_S[sequence_N] + 2 - RUN.version_N
    length_S = [f"{2**k} – {2 ** (k + 1) - 1}" for k in np.log2(counts_S).astype(int)]
    position_N = np.arange(len(sequence_N)) - RUN.start_S[sequence_N]
    edges, names = [0, 1, 4, 16, 64], ["0", "1 – 3", "4 – 15", "16 – 63", "64 – 255"]
    probability_N = np.exp(RUN.logp_mu_N)
    of_probability = ["μ < 0.01", "μ 0.01 – 0.1", "μ 0.1 – 0.5", "μ 0.5 – 0.9", "μ 0.9 – 0.99", "μ ≥ 0.99"]
    found = {
        "step": RUN.step_S[sequence_N],
        "version": RUN.version_N,
        "lag": lag_N,
        "worker": np.array([f"worker-{worker}" for worker in RUN.worker_S])[sequence_N],
        "environment": np.array(RUN.design.environments)[RUN.environment_S][sequence_N],
        "turn": RUN.turn_N,
        "length": np.array(length_S)[sequence_N],
        "position": np.array(names)[np.searchsorted(edges, position_N, side="right") - 1],
        "logprob": np.array(of_probability)[
            np.searchsorted([0.01, 0.1, 0.5, 0.9, 0.99], probability_N, side="right")
        ],
        "rank": (RUN.worker_S % 2)[sequence_N],
    }[by]
    return found.astype(str)[kept_N]


@pytest.mark.parametrize("by", WHOLE)
def test_a_row_is_the_formula_on_its_tokens(by: str) -> None:
    label_N, kept_N = labels_by_token(by), RUN.mask_N
    sequence_N = np.repeat(np.arange(len(RUN.length_S)), RUN.length_S)[kept_N]
    prompt_N = RUN.prompt_S[sequence_N]
    d_N = (RUN.logp_pi_N - RUN.logp_mu_N)[kept_N]
    moved_N = np.abs(np.exp(RUN.logp_pi_N) - np.exp(RUN.logp_mu_N))[kept_N]
    rows = {row.label: row for row in WHOLE[by].rows}
    assert set(rows) == set(label_N.tolist())
    for label, row in rows.items():
        of = label_N == label
        assert (row.tokens, row.sequences) == (of.sum(), len(set(sequence_N[of].tolist())))
        assert row.prompts == len(set(prompt_N[of].tolist()))
        assert row.observed_max == pytest.approx(moved_N[of].max(), rel=1e-9)
        for name, value_N in {
            "tv": np.maximum(0, 1 - np.exp(d_N)),
            "kl": np.expm1(d_N) - d_N,
            "abs_logprob_diff": np.abs(d_N),
            "ratio": np.exp(d_N),
        }.items():
            expected = clustered_mean(value_N[of], prompt_N[of], bounds=(0, 1) if name == "tv" else (0, np.inf))
            assert_alike(getattr(row, name), expected)


def assert_alike(ours: object, expected: object) -> None:
    for name in ("value", "low", "high", "n", "clusters"):
        assert getattr(ours, name) == pytest.approx(getattr(expected, name), rel=1e-6, abs=1e-12), name


def test_whole_responses_have_their_ess_and_log_ratio() -> None:
    (row, *_) = WHOLE["environment"].rows
    of_S = RUN.environment_S == 0
    sequence_N = np.repeat(np.arange(len(RUN.length_S)), RUN.length_S)
    log_ratio_S = np.bincount(sequence_N, (RUN.logp_pi_N - RUN.logp_mu_N) * RUN.mask_N)[of_S]
    weight_S = np.exp(log_ratio_S)
    assert row.label == RUN.design.environments[1] or row.label == RUN.design.environments[0]
    row = next(row for row in WHOLE["environment"].rows if row.label == RUN.design.environments[0])
    assert row.ess_fraction == pytest.approx(weight_S.sum() ** 2 / (len(weight_S) * np.sum(weight_S**2)))
    assert row.log_ratio is not None and row.log_ratio.value == pytest.approx(log_ratio_S.mean())
    assert WHOLE["lag"].rows[0].log_ratio is None


@given(cut=st.lists(st.integers(0, len(RUN.length_S)), max_size=4), seed=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_any_split_and_order_gives_the_same_tables(cut: list[int], seed: int) -> None:
    edges = sorted(cut)
    order = np.random.default_rng(seed).permutation(len(edges) + 1).tolist()
    sums = summed(RUN, edges, order)
    found = tables(sums)
    assert list(found) == list(WHOLE)
    for by, table in found.items():
        assert table.omitted == 0
        for ours, expected in zip(table.rows, WHOLE[by].rows, strict=True):
            assert (ours.label, ours.tokens, ours.differs) == (expected.label, expected.tokens, expected.differs)
            assert_alike(ours.tv, expected.tv)
    assert_alike(sums.prompt_effect.result().intraclass, summed(RUN, [], [0]).prompt_effect.result().intraclass)
    ours, whole = sums.length_scaling.result(), summed(RUN, [], [0]).length_scaling.result()
    assert ours is not None and whole is not None
    assert ours.exponent.value == pytest.approx(whole.exponent.value, rel=1e-6)


def block_without(block: LogBlock, *names: str) -> LogBlock:
    keep = {name: column for name, column in block.by_row.items() if name not in names}
    tokens = {name: column for name, column in block.by_token.items() if name not in names}
    return replace(block, by_row=keep, by_token=tokens)


def test_a_log_without_labels_has_the_tables_that_need_none() -> None:
    block = block_without(
        RUN.block(),
        "step",
        "trainer_version",
        "worker",
        "environment",
        "rank",
        "reward",
        "turns",
        "versions",
        "entropy",
    )
    sums = GroupSums()
    sums.add(block)
    assert set(tables(sums)) == {"length", "position", "logprob"}


def test_a_token_that_pi_gives_no_probability_makes_its_rows_infinite_not_wrong() -> None:
    block = RUN.block()
    logp_R = block.logp_R["reference"].copy()
    logp_R[0] = -np.inf
    sums = GroupSums()
    sums.add(replace(block, logp_R=block.logp_R | {"reference": logp_R}))
    rows: tuple[GroupRow, ...] = tables(sums)["step"].rows
    assert rows[0].kl.value == np.inf and np.isfinite(rows[1].kl.value)  # type: ignore[arg-type]
    assert rows[0].tv.value is not None and rows[0].tv.value <= 1
    assert rows[0].log_ratio is not None and rows[0].log_ratio.value == -np.inf


def test_segments_hold_every_token_that_counts_once() -> None:
    segments = segments_of(RUN.block(3, 40))
    assert segments.sum_UF[:, 0].min() > 0
    np.testing.assert_array_equal(segments.sum_SF[:, 0], segments.block.length_S)
