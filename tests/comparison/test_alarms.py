"""Every alarm: a pair that must raise it, and the nearest one that must not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from written_traces import full_trace, pair_of, pair_with_ratios, sampled_pair, sampled_trace

from mismatchscope.comparison.alarms import find_alarms
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import Pair
from mismatchscope.measures.results import Interval
from mismatchscope.records import Sampling
from mismatchscope.reports.document import Alarm, Counts, Floor, Floors
from mismatchscope.traces import ModelFacts

COUNTS = Counts(prompts=2, sequences=4, tokens=64)


def found(pair: Pair, counts: Counts = COUNTS, floors: Floors | None = None) -> dict[str, Alarm]:
    every = find_alarms(pair, counts, floors or Floors())
    assert len({alarm.code for alarm in every}) == len(every)
    return {alarm.code: alarm for alarm in every}


def quiet_pair(directory: Path, **context: object) -> Pair:
    return pair_with_ratios(directory, [np.full(4, ratio) for ratio in (0.9, 1.1, 0.9, 1.1)], **context)


def test_a_sound_pair_raises_none(tmp_path: Path) -> None:
    assert found(quiet_pair(tmp_path)) == {}


def leaking(directory: Path, leak: float) -> Pair:
    """Half of μ's mass is on each of two ids; π has `leak` on a third, and the ratio is 1 − leak everywhere."""
    mu = full_trace(directory / "mu", [np.tile([0.5, 0.5, 0.0], (4, 1))] * 3)
    p_V = [(1 - leak) / 2, (1 - leak) / 2, leak]
    return pair_of(mu, full_trace(directory / "pi", [np.tile(p_V, (4, 1))] * 3, role="reference"))


@pytest.mark.parametrize(("leak", "raised"), [(2e-6, True), (5e-7, False)])
def test_a_leak_above_a_millionth_is_told(tmp_path: Path, leak: float, raised: bool) -> None:
    alarm = found(leaking(tmp_path, leak)).get("support_leak")
    assert (alarm is not None) == raised
    if alarm is not None:
        assert alarm.evidence["leak"] == pytest.approx(leak, rel=1e-3)


@pytest.mark.parametrize(("logp", "raised"), [(-np.inf, True), (-300.0, False)])
def test_a_drawn_token_is_impossible_only_at_probability_0(tmp_path: Path, logp: float, raised: bool) -> None:
    mu = [np.full(4, -1.0)] * 3
    alarm = found(sampled_pair(tmp_path, mu, [np.array([-1.0, logp, -1.0, logp]), *mu[1:]])).get(
        "impossible_tokens"
    )
    assert (alarm is not None) == raised
    if alarm is not None:
        assert alarm.evidence["tokens"] == 2


@pytest.mark.parametrize(
    ("policy", "temperature", "raised"), [("raw", 0.7, True), ("raw", 1.0, False), ("processed", 0.7, False)]
)
def test_tokens_are_off_policy_for_the_raw_policy_of_a_sampler_that_transforms(
    tmp_path: Path, policy: str, temperature: float, raised: bool
) -> None:
    facts = {"policy": policy, "sampling": Sampling(temperature=temperature)}
    mu = sampled_trace(tmp_path / "mu", [np.full(200, -1.0)] * 3, **facts)
    pi = sampled_trace(tmp_path / "pi", [np.full(200, -1.1)] * 3, role="reference", **facts)
    codes = found(pair_of(mu, pi, **vars(Context.of(mu, pi, None))))
    assert ("off_policy_tokens" in codes) == raised
    # Every ratio is exp(−0.1), which says nothing where the tokens are not μ's.
    assert ("mean_ratio" in codes) != raised


def test_of_tokens_that_a_third_policy_drew_no_ratio_is_expected(tmp_path: Path) -> None:
    mu = sampled_trace(tmp_path / "mu", [np.full(200, -1.0)] * 3)
    pi = sampled_trace(tmp_path / "pi", [np.full(200, -1.1)] * 3, role="reference")
    assert "mean_ratio" in found(pair_of(mu, pi))
    assert "mean_ratio" not in found(pair_of(mu, pi, weighted=True, drawn_by=mu))


@pytest.mark.parametrize(("other", "raised"), [("v", True), ("w", False), (None, False)])
def test_weights_differ_where_both_are_known_to(tmp_path: Path, other: str | None, raised: bool) -> None:
    mu = sampled_trace(tmp_path / "mu", [np.full(4, -1.0)] * 3)
    model = ModelFacts(name="tiny", weights_sha256=other, vocabulary_size=16)
    pi = sampled_trace(tmp_path / "pi", [np.full(4, -1.0)] * 3, role="reference", model=model)
    assert ("weights" in found(pair_of(mu, pi))) == raised


@pytest.mark.parametrize(
    ("sides", "says"),
    [
        ((None, None), None),
        ((("a", 8), ("a", 8)), None),
        ((("a", 8), None), "One side ran the model with an adapter"),
        ((("a", 8), ("b", 8)), "different adapters on the same base"),
        ((("a", 8), ("a", 16)), "the same adapter weights in another way"),
    ],
)
@pytest.mark.parametrize("base", ["w", "v", None])
def test_adapters_differ_over_the_same_base(
    tmp_path: Path, sides: tuple[tuple[str, int] | None, ...], says: str | None, base: str | None
) -> None:
    traces = []
    for role, weights, side in zip(("behavior", "reference"), ("w", base), sides, strict=True):
        adapter = None if side is None else {"weights_sha256": side[0], "config": {"lora_alpha": side[1]}}
        model = ModelFacts(name="tiny", weights_sha256=weights, vocabulary_size=16, adapter=adapter)
        traces.append(sampled_trace(tmp_path / role, [np.full(4, -1.0)] * 3, role=role, model=model))
    alarm = found(pair_of(*traces)).get("adapter")
    assert (alarm is not None) == (says is not None and base == "w")
    assert alarm is None or says in alarm.message


FLOOR = Floor(observed_max=0.1, mean=Interval(0.01), identical=False)


@pytest.mark.parametrize(
    ("floors", "missing"),
    [
        (Floors(), None),
        (Floors(behavior=FLOOR, reference=FLOOR), None),
        (Floors(behavior=FLOOR), "reference"),
        (Floors(reference=FLOOR), "behaviour"),
    ],
)
def test_a_floor_is_one_sided_where_exactly_one_was_measured(
    tmp_path: Path, floors: Floors, missing: str | None
) -> None:
    alarm = found(quiet_pair(tmp_path), floors=floors).get("one_sided_floor")
    assert (alarm is not None) == (missing is not None)
    if alarm is not None:
        assert alarm.message.startswith(f"The {missing} was not measured")


@pytest.mark.parametrize(("index", "raised"), [(1.0, True), (3.0, False)])
def test_weights_are_heavy_from_the_tail_index_on_that_breaks_their_variance(
    tmp_path: Path, index: float, raised: bool
) -> None:
    """Quantiles of a Pareto distribution, whose k is 1 / `index`."""
    ratios = ((np.arange(400) + 0.5) / 400) ** (-1 / index)
    pair = pair_with_ratios(tmp_path, [[ratio] for ratio in ratios])
    assert pair.figures.sequence.pareto_k == pytest.approx(1 / index, abs=0.15)
    alarm = found(pair).get("heavy_weights")
    assert (alarm is not None) == raised


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"unmatched_behavior": 3}, "unmatched"),
        ({"unmatched_reference": 1}, "unmatched"),
        ({"rejected": 2}, "rejected"),
    ],
)
def test_rows_that_are_not_compared_are_told_with_their_number(
    tmp_path: Path, change: dict[str, int], code: str
) -> None:
    codes = found(quiet_pair(tmp_path), COUNTS.model_copy(update=change))
    assert set(codes) == {code}
    assert set(change.values()) <= set(codes[code].evidence.values())
    assert codes[code].severity == ("error" if code == "rejected" else "warning")


def test_remarks_of_the_alignment_are_passed_on(tmp_path: Path) -> None:
    mu = sampled_trace(tmp_path / "mu", [np.full(4, -1.0)] * 3)
    other = sampled_trace(tmp_path / "pi", [np.full(4, -1.0)] * 3, role="reference", tokenizer_sha256="u")
    pair = pair_of(mu, other)
    assert found(pair)["alignment"].message == pair.notes[0]
    assert "tokenizer" in pair.notes[0]


def test_one_is_not_many(tmp_path: Path) -> None:
    counts = Counts(
        prompts=1, prompt_ids=64, sequences=64, tokens=99, rejected=1, partial_sequences=1, unmatched_behavior=1
    )
    alarms = found(quiet_pair(tmp_path), counts)
    for code in ("equal_prompts", "unmatched", "rejected"):
        assert not re.search(r"\b1 (distinct )?(prompts|sequences|rows|responses)\b", alarms[code].message)
        assert alarms[code].message.endswith(".")


def test_whoever_compares_raw_policies_is_not_told_to(tmp_path: Path) -> None:
    pair = leaking(tmp_path, 0.1)
    assert "--policy raw" in (found(pair)["support_leak"].remedy or "")
    raw = replace(pair, context=replace(pair.context, policy="raw"))
    assert "--policy" not in (found(raw)["support_leak"].remedy or "")


def test_exact_figures_are_named_only_where_there_are_some(tmp_path: Path) -> None:
    alarm = found(quiet_pair(tmp_path, on_policy=False))["off_policy_tokens"]
    assert "exact figures" not in (alarm.remedy or "")


def test_of_equals_no_noise_counts_as_mismatch(tmp_path: Path) -> None:
    floors = Floors(reference=Floor(observed_max=0.0, mean=Interval(0.0), identical=True))
    assert "one_sided_floor" in found(quiet_pair(tmp_path / "apart"), floors=floors)
    same = sampled_pair(tmp_path / "same", [np.full(4, -1.0)] * 3, [np.full(4, -1.0)] * 3)
    assert "one_sided_floor" not in found(same, floors=floors)
