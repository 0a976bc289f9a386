"""What corrections do to a simulated log: split and order do not matter, by step and over all of it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_rows import log_batch, sampled_rows
from simulated_runs import RunDesign, simulated_run

from mismatchscope.analysis.analyze import analyze
from mismatchscope.analysis.block import LogBlock
from mismatchscope.analysis.corrections import LogCorrections
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.errors import UsageError

RUN = simulated_run(RunDesign(steps=6, prompts=12, pool=30, error=0.4, drift=1.0, lags=(0, 1, 2)), seed=1)


def analysed(*blocks: LogBlock, asked: tuple[str, ...] = ()) -> LogCorrections:
    found = LogCorrections(AnalysisSettings(corrections=asked))
    for block in blocks:
        found.add(block)
    return found


def close(one, other) -> None:
    """Equal results, but for the rounding of sums."""
    assert type(one) is type(other)
    if isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12, nan_ok=True)
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for each, theirs in zip(one, other, strict=True):
            close(each, theirs)
    elif hasattr(one, "__dataclass_fields__"):
        for name in one.__dataclass_fields__:
            close(getattr(one, name), getattr(other, name))
    else:
        assert one == other


def test_any_split_and_order_gives_the_same() -> None:
    whole = analysed(RUN.block())
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(6)
        parts = [pickle.loads(pickle.dumps(analysed(RUN.block(24 * i, 24 * i + 24)))) for i in order]
        for part in parts[1:]:
            parts[0].merge(part)
        for name in ("corrections", "sweeps", "series"):
            close(getattr(parts[0], name)(), getattr(whole, name)())


def test_figures_are_those_of_the_tokens() -> None:
    found = {(each.name, *each.parameters.values()): each for each in analysed(RUN.block()).corrections()}
    ratio_N = np.exp(RUN.logp_pi_N - RUN.logp_mu_N)
    tis = found["token_tis", 2.0]
    assert tis.mean_weight == pytest.approx(np.minimum(ratio_N, 2).mean())
    assert tis.mean_weight_low < tis.mean_weight < tis.mean_weight_high
    assert tis.mean_ratio == pytest.approx(ratio_N.mean())
    icepop = found["icepop", 0.5, 5.0]
    assert icepop.kept_tokens_low < icepop.kept_tokens < icepop.kept_tokens_high
    log_ratio_S = np.add.reduceat(RUN.logp_pi_N - RUN.logp_mu_N, RUN.start_S)
    mis = found["sequence_mis", 2.0]
    assert mis.mean_ratio == pytest.approx(np.exp(log_ratio_S).mean())
    assert mis.kept_sequences == pytest.approx(np.mean(np.exp(log_ratio_S) <= 2))
    assert found["m2po", 0.04].kept_tokens < 1


def test_m2po_is_shown_at_the_thresholds_that_are_asked_for() -> None:
    asked = ("m2po:threshold=0.01", "m2po", "m2po:threshold=0.2")
    halves = [analysed(RUN.block(72 * i, 72 * i + 72), asked=asked) for i in range(2)]
    halves[0].merge(pickle.loads(pickle.dumps(halves[1])))
    found = {
        each.parameters["threshold"]: each.kept_tokens for each in halves[0].corrections() if each.name == "m2po"
    }
    assert list(found) == [0.04, 0.01, 0.2]
    assert found[0.01] < found[0.04] < found[0.2]


def test_series_are_the_steps_one_by_one() -> None:
    series = {(each.name, each.by, *each.parameters.values()): each for each in analysed(RUN.block()).series()}
    tis = series["token_tis", "step", 2.0]
    assert tis.labels == tuple(range(6)) and tis.omitted == 0
    for step in range(6):
        alone = analysed(RUN.block(24 * step, 24 * step + 24)).corrections()[0]
        assert tis.mean_weight[step] == pytest.approx(alone.mean_weight)
        assert tis.kept_tokens[step] == pytest.approx(alone.kept_tokens)
        assert tis.clipped_mass[step] == pytest.approx(alone.clipped_mass)
        assert tis.ess_fraction[step] == pytest.approx(alone.ess_fraction)
    assert tis.clipped_mass[-1] > tis.clipped_mass[0]  # the run drifts


def test_what_was_asked_for_and_cannot_be_shown_is_said(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_batches([log_batch(**sampled_rows(12)).rows]), tmp_path / "log.parquet")

    def remark(*asked: str) -> str:
        report = analyze([tmp_path], AnalysisSettings(corrections=asked), processes=1)
        assert report.log is not None
        return next(each for each in report.log.remarks if each.startswith("corrections that this log cannot show"))

    assert "trust_region" not in remark()
    assert "ppo_clip, gspo_clip (needs log-probs of π_θ and advantages)" in remark()
    asked = remark("trust_region_mask_max:threshold=0.1")
    assert "trust_region_mask_max (needs the KL of every state" in asked and "mask_mean" not in asked


def test_decoupled_weights_are_told_apart_by_lag() -> None:
    block = RUN.block()
    theta = np.minimum(block.logp_R["reference"] + 0.02, -1e-9)
    by_row = {**block.by_row, "policy_version": block.by_row["trainer_version"] - block.sequence_id_S % 3}
    three = replace(block, logp_R={**block.logp_R, "target": theta}, by_row=by_row)
    series = {(each.name, each.by): each for each in analysed(three).series()}
    assert series["decoupled_ppo", "lag"].labels == (0, 1, 2)
    assert "ppo_clip" in analysed(three).left_out() and "advantages" in analysed(three).left_out()["ppo_clip"]


@pytest.mark.parametrize("none", [np.nan, 1.0], ids=["missing", "above 0"])
def test_no_rule_takes_the_target_of_some_responses_and_the_old_policy_of_others(none: float) -> None:
    block = RUN.block()
    half_R = np.repeat(np.arange(len(block.recorded_S)) % 2 == 0, block.recorded_S)
    theta_R = np.where(half_R, np.minimum(block.logp_R["reference"] + 0.02, -1e-9), none)
    mixed = analysed(replace(block, logp_R={**block.logp_R, "target": theta_R}))
    named = [each.name for each in (*mixed.corrections(), *mixed.series(), *mixed.sweeps())]
    assert "ipo_mask" not in named and "token_tis" in named
    assert mixed.left_out()["ipo_mask"] == "needs log-probs of π_θ of all responses or none"
    whole = analysed(replace(block, logp_R={**block.logp_R, "target": block.logp_R["reference"]}))
    assert "ipo_mask" in [each.name for each in whole.corrections()]


def test_rules_that_lack_a_column_are_left_out_with_the_reason() -> None:
    found = analysed(RUN.block())
    assert found.left_out()["ppo_clip"] == "needs log-probs of π_θ and advantages"
    assert "full distributions" in found.left_out()["trust_region_mask_max"]
    names = {each.name for each in found.corrections()}
    assert not names & set(found.left_out())
    assert {"token_tis", "largest_k3_rejection", "ipo_mask", "error_rejection", "m2po"} <= names
    assert LogCorrections(AnalysisSettings()).corrections() == ()


def test_what_is_asked_for_is_added_once() -> None:
    asked = ("verl.decoupled_geo_rs", "icepop:low=0.8,high=1.25", "token_tis:cap=2")
    names = [(each.name, each.parameters) for each in analysed(RUN.block(), asked=asked).corrections()]
    assert ("icepop", {"low": 0.8, "high": 1.25}) in names and ("verl.decoupled_geo_rs", {}) in names
    assert names.count(("token_tis", {"cap": 2.0})) == 1
    with pytest.raises(UsageError):
        analysed(asked=("icpop",))


def test_responses_that_lost_a_token_are_left_out() -> None:
    block = RUN.block(0, 10)
    whole_S = np.arange(10) % 2 == 0
    some = analysed(replace(block, whole_S=whole_S)).corrections()[0]
    ratio_N = np.exp(block.logp_pi_N - block.logp_mu_N)[np.repeat(whole_S, block.length_S)]
    assert some.mean_weight == pytest.approx(np.minimum(ratio_N, 2).mean())
    assert analysed(replace(block, whole_S=np.zeros(10, dtype=bool))).corrections() == ()


@pytest.mark.slow
def test_intervals_of_the_mean_weight_hold_as_often_as_they_say() -> None:
    """At 95 %, of 40 runs whose truth is near the mean of far more tokens."""
    design = RunDesign(steps=4, prompts=16, samples=2, length=(8, 24), error=0.8, prompt_spread=0.5)
    large = simulated_run(replace(design, steps=400), seed=99)
    truth = np.minimum(np.exp(large.logp_pi_N - large.logp_mu_N), 2.0).mean()
    missed = 0
    for seed in range(40):
        found = analysed(simulated_run(design, seed=seed).block()).corrections()[0]
        missed += not found.mean_weight_low <= truth <= found.mean_weight_high
    assert missed <= 6


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_a_tolerance_that_no_mean_tv_has_is_refused(tolerance: float) -> None:
    with pytest.raises(UsageError, match="tolerance of the mean TV"):
        AnalysisSettings(tolerance=tolerance)
