"""Every alarm: a pair that must raise it, and the nearest one that must not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
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


@pytest.mark.parametrize(("share", "raised"), [(-1.05, True), (-0.95, False), (0.95, False), (1.05, True)])
def test_the_mean_ratio_may_be_off_by_its_own_interval_and_no_more(
    tmp_path: Path, share: float, raised: bool
) -> None:
    """Prompts in symmetric pairs have no skew, so that the interval is Student's."""
    prompts, spread = 16, 0.1
    error = spread * np.sqrt(prompts / (prompts - 1)) / np.sqrt(prompts)
    mean = 1 + share * stats.t.ppf(0.99995, prompts - 1) * error
    ratios = mean + spread * np.tile([-1.0, 1.0], prompts // 2)
    alarm = found(pair_with_ratios(tmp_path, [np.full(3, ratio) for ratio in ratios])).get("mean_ratio")
    assert (alarm is not None) == raised
    if alarm is not None:
        assert alarm.evidence["mean"] == pytest.approx(mean)
        assert alarm.evidence["expected"] == 1.0


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


def test_a_mean_ratio_of_one_less_the_leak_is_expected(tmp_path: Path) -> None:
    """The ratios are 0.7 and 0.9: far from 1, and 1 − leak in the mean. Unseen, the leak explains nothing."""
    leak = 0.2
    p_pi_S = np.tile([0.35, 0.45], 8)
    mu = full_trace(tmp_path / "mu", [np.tile([0.5, 0.5, 0.0], (4, 1))] * 16)
    pi = full_trace(tmp_path / "pi", [np.tile([p, 0.8 - p, leak], (4, 1)) for p in p_pi_S], role="reference")
    codes = found(pair_of(mu, pi))
    assert "support_leak" in codes and "mean_ratio" not in codes
    ratio_ST = [np.full(4, p / 0.5) for p in p_pi_S]
    assert "mean_ratio" in found(pair_with_ratios(tmp_path / "sampled", ratio_ST))


def tilted(directory: Path, slope: float, *, tokens: int = 200, noise: float = 0.0) -> Pair:
    """π's log-odds are `slope` times μ's, plus `noise` that is uncorrelated with them."""
    odds_N = np.linspace(-3, 3, tokens)
    # A quadratic of symmetric odds has no correlation with them.
    shape_N = odds_N**2 - (odds_N**2).mean()
    odds_pi_N = slope * odds_N + noise * shape_N / shape_N.std()
    order_N = np.random.default_rng(0).permutation(tokens)
    logp_mu_N, logp_pi_N = (-np.logaddexp(0, -odds)[order_N] for odds in (odds_N, odds_pi_N))
    return sampled_pair(directory, np.array_split(logp_mu_N, 10), np.array_split(logp_pi_N, 10))


def temperature_alarm(pair: Pair) -> Alarm | None:
    return found(pair).get("temperature")


@pytest.mark.parametrize(
    ("slope", "raised"), [(0.965, True), (0.975, False), (1.0, False), (1.025, False), (1.035, True)]
)
def test_a_slope_three_hundredths_off_is_a_temperature(tmp_path: Path, slope: float, raised: bool) -> None:
    alarm = temperature_alarm(tilted(tmp_path, slope))
    assert (alarm is not None) == raised
    if alarm is not None:
        assert alarm.evidence["slope"] == pytest.approx(slope)
        assert alarm.evidence["explained"] == pytest.approx(1.0)


@pytest.mark.parametrize(("tokens", "raised"), [(199, False), (200, True)])
def test_a_temperature_needs_two_hundred_tokens(tmp_path: Path, tokens: int, raised: bool) -> None:
    assert (temperature_alarm(tilted(tmp_path, 0.7, tokens=tokens)) is not None) == raised


@pytest.mark.parametrize(("explained", "raised"), [(0.55, True), (0.45, False)])
def test_a_slope_that_explains_less_than_half_is_no_temperature(
    tmp_path: Path, explained: float, raised: bool
) -> None:
    signal = 0.3 * np.linspace(-3, 3, 200).std()
    pair = tilted(tmp_path, 0.7, noise=signal * np.sqrt((1 - explained) / explained))
    assert pair.statistics.log_odds_difference.correlation**2 == pytest.approx(explained)
    assert (temperature_alarm(pair) is not None) == raised


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
    mu = sampled_trace(tmp_path / "mu", [np.full(4, -1.0)] * 3, **facts)
    pi = sampled_trace(tmp_path / "pi", [np.full(4, -1.1)] * 3, role="reference", **facts)
    codes = found(pair_of(mu, pi, **vars(Context.of(mu, pi, None))))
    assert ("off_policy_tokens" in codes) == raised
    # Every ratio is exp(−0.1), which says nothing where the tokens are not μ's.
    assert ("mean_ratio" in codes) != raised


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
