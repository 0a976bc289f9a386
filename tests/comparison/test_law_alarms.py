"""Is the mean ratio that of tokens drawn from μ, and are one side's log-odds a multiple of the other's?

The full table, of 500 audits a row, is benchmarks/results/calibration_alarms.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats
from written_traces import full_trace, pair_of, pair_with_ratios, sampled_pair

from mismatchscope.comparison.law_alarms import ratio_alarm, temperature_alarm
from mismatchscope.comparison.log_odds import LogOddsFit
from mismatchscope.comparison.pair import Pair
from mismatchscope.reports.document import Alarm


def alarm_of(alarms: Iterator[Alarm]) -> Alarm | None:
    return next(alarms, None)


def ratios(mean: float, spread: float, prompts: int = 16, tokens: int = 200) -> list[np.ndarray]:
    """Prompts in symmetric pairs have no skew, so that the interval is Student's."""
    return [np.full(tokens, mean + spread * sign) for sign in np.tile([-1.0, 1.0], prompts // 2)]


@pytest.mark.parametrize(("share", "raised"), [(-1.05, True), (-0.95, False), (0.95, False), (1.05, True)])
def test_the_mean_ratio_may_be_off_by_its_own_interval_and_no_more(
    tmp_path: Path, share: float, raised: bool
) -> None:
    prompts, spread = 16, 0.1
    error = spread * np.sqrt(prompts / (prompts - 1)) / np.sqrt(prompts)
    mean = 1 + share * stats.t.ppf(0.99995, prompts - 1) * error
    alarm = alarm_of(ratio_alarm(pair_with_ratios(tmp_path, ratios(mean, spread))))
    assert (alarm is not None) == raised
    if alarm is not None:
        assert alarm.evidence["mean"] == pytest.approx(mean)
        assert alarm.evidence["expected"] == 1.0
        assert ("π has mass where μ has none" in alarm.message) == (share < 0)


def test_a_low_mean_is_none_where_a_few_unseen_tokens_could_hold_the_rest(tmp_path: Path) -> None:
    """One token in 200 has nearly a fourth of π's mass: a few more of them may not have been drawn."""
    tail = np.append(np.full(199, 0.7), 40.0)
    pair = pair_with_ratios(tmp_path, [tail * (1 + sign * 1e-3) for sign in np.tile([-1.0, 1.0], 8)])
    mean = pair.statistics.sums["ratio"].interval(confidence=0.9999)
    assert mean.high is not None and mean.high < 0.91
    assert alarm_of(ratio_alarm(pair)) is None


@pytest.mark.parametrize(("off", "raised"), [(9e-6, False), (1.2e-5, True), (3e-4, True)])
def test_a_mean_ratio_is_never_said_to_be_1_and_not_1(tmp_path: Path, off: float, raised: bool) -> None:
    alarm = alarm_of(ratio_alarm(pair_with_ratios(tmp_path, ratios(1 + off, 1e-9))))
    assert (alarm is not None) == raised
    if alarm is not None:
        said, expected = alarm.message.removeprefix("The mean ratio is ").partition(":")[0].split(", not ")
        assert (float(said), float(expected)) == (pytest.approx(1 + off, abs=5e-6), 1.0)
        assert said != expected


def test_a_mean_ratio_of_one_less_the_leak_is_expected(tmp_path: Path) -> None:
    """The ratios are 0.7 and 0.9: far from 1, and 1 − leak in the mean. Unseen, the leak explains nothing."""
    leak = 0.2
    p_pi_S = np.tile([0.35, 0.45], 8)
    mu = full_trace(tmp_path / "mu", [np.tile([0.5, 0.5, 0.0], (40, 1))] * 16)
    pi = full_trace(tmp_path / "pi", [np.tile([p, 0.8 - p, leak], (40, 1)) for p in p_pi_S], role="reference")
    assert alarm_of(ratio_alarm(pair_of(mu, pi))) is None
    ratio_ST = [np.full(40, p / 0.5) for p in p_pi_S]
    assert alarm_of(ratio_alarm(pair_with_ratios(tmp_path / "sampled", ratio_ST))) is not None


def tilted(directory: Path, slope: float, *, tokens: int = 200, noise: float = 0.0) -> Pair:
    """π's log-odds are `slope` times μ's, plus `noise` that is uncorrelated with them."""
    odds_N = np.linspace(-3, 3, tokens)
    # A quadratic of symmetric odds has no correlation with them.
    shape_N = odds_N**2 - (odds_N**2).mean()
    odds_pi_N = slope * odds_N + noise * shape_N / shape_N.std()
    order_N = np.random.default_rng(0).permutation(tokens)
    logp_mu_N, logp_pi_N = (-np.logaddexp(0, -odds)[order_N] for odds in (odds_N, odds_pi_N))
    return sampled_pair(directory, np.array_split(logp_mu_N, 10), np.array_split(logp_pi_N, 10))


@pytest.mark.parametrize(
    ("slope", "raised"), [(0.965, True), (0.997, False), (1.0, False), (1.003, False), (1.035, True)]
)
def test_log_odds_in_proportion_are_a_temperature(tmp_path: Path, slope: float, raised: bool) -> None:
    alarm = alarm_of(temperature_alarm(tilted(tmp_path, slope)))
    assert (alarm is not None) == raised
    if alarm is not None:
        assert alarm.evidence["factor"] == pytest.approx(slope)
        assert alarm.evidence["explained"] == pytest.approx(1.0)
        assert f"{slope:.3g} times" in alarm.message
        assert ("the reference divided" in alarm.message) == (slope > 1)


@pytest.mark.parametrize(("tokens", "raised"), [(199, False), (200, True)])
def test_a_temperature_needs_two_hundred_tokens(tmp_path: Path, tokens: int, raised: bool) -> None:
    assert (alarm_of(temperature_alarm(tilted(tmp_path, 0.7, tokens=tokens))) is not None) == raised


@pytest.mark.parametrize(("noise", "raised"), [(0.2, True), (0.4, False)])
def test_a_line_that_explains_little_is_no_temperature(tmp_path: Path, noise: float, raised: bool) -> None:
    pair = tilted(tmp_path, 0.9, noise=noise)
    fit = pair.statistics.log_odds
    assert fit is not None and fit.correlation > 0.9
    assert (fit.explained > 0.3) == raised
    assert (alarm_of(temperature_alarm(pair)) is not None) == raised


def test_the_line_is_that_of_the_definition(tmp_path: Path) -> None:
    """Against a regression that holds all tokens at once, with the cluster-robust error written out."""
    rng = np.random.default_rng(2)
    odds_N, prompt_N = rng.uniform(-5, 5, 600), np.repeat(np.arange(12), 50)
    other_N = 1.1 * odds_N + rng.normal(0, 0.5, 600) + rng.normal(0, 0.2, 12)[prompt_N]
    columns = [np.split(-np.logaddexp(0, -odds), 12) for odds in (odds_N, other_N)]
    mean_N, difference_N = (odds_N + other_N) / 2, other_N - odds_N
    m_N, d_N = mean_N - mean_N.mean(), difference_N - difference_N.mean()
    slope = (m_N @ d_N) / (m_N @ m_N)
    score_C = np.bincount(prompt_N, m_N * (d_N - slope * m_N))
    error = np.sqrt((score_C @ score_C) * 12 / 11) / (m_N @ m_N)
    fit = sampled_pair(tmp_path, *columns).statistics.log_odds
    assert fit is not None and fit.n == 600
    assert fit.slope == pytest.approx(slope)
    assert fit.t == pytest.approx(slope / error)
    assert fit.explained == pytest.approx(np.corrcoef(mean_N, difference_N)[0, 1] ** 2)
    assert fit.correlation == pytest.approx(np.corrcoef(odds_N, other_N)[0, 1])


def test_the_factor_inverts_the_slope() -> None:
    factor = 1.7
    fit = LogOddsFit(n=1, slope=2 * (factor - 1) / (factor + 1), t=1.0, explained=1.0, correlation=1.0)
    assert fit.factor == pytest.approx(factor)


@pytest.fixture
def calibration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    for name in ("alarm_designs", "calibration_alarms"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import calibration_alarms

    return calibration_alarms


@pytest.mark.parametrize("prompts", [8, 24])
def test_the_faults_that_an_alarm_names_raise_it_and_no_others(calibration: ModuleType, prompts: int) -> None:
    audits = 8
    for design in calibration.DESIGNS:
        row = calibration.calibrate(design, prompts, audits, seed=1)
        if design in calibration.TEMPERATURES:
            assert row.temperature == 1.0, design
        elif design not in calibration.INVISIBLE:
            assert row.temperature <= 1 / audits, design
        if design in calibration.SOUND or design.startswith(
            ("π at", "μ at", "other weights", "raw μ drawn at τ = 0.6, raw")
        ):
            assert row.mean_ratio == 0.0, design
        if prompts == 24 and design.startswith(("50 % zeros", "raw μ drawn at τ = 0.6, π", "top-p")):
            assert row.mean_ratio >= 0.5, design
