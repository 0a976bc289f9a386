"""Thresholds: the grammar, the three verdicts, baselines, and what must be refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope import gate
from mismatchscope.errors import ConfigError, EmptyComparisonError, NotComparableError
from mismatchscope.measures.results import Alpha, Interval, SequenceMeasures, Statistic, TokenMeasures
from mismatchscope.reports.document import Counts, Finding, Provenance, Report

SIDE = {
    "engine": "transformers",
    "model": {"weights_sha256": "w"},
    "tokenizer_sha256": "t",
    "prompts_sha256": "p",
    "sampling": {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_new_tokens": 96,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    },
}


WIDTHS = st.floats(1e-4, 0.3)


def make_report(mean=0.02, low=0.018, high=0.022, *, tokens=1000, side=SIDE, **fields) -> Report:
    tv = Statistic(
        mean=mean,
        low=low,
        high=high,
        p99=0.06,
        quantile_limits={"p99": (0.055, 0.065)},
        max=0.1,
        n=tokens,
        clusters=64,
        estimator="exact",
    )
    defaults = {
        "finding": Finding(code="no_floor", sentence="No repeat floor."),
        "evidence": "full",
        "policy": "raw",
        "counts": Counts(prompts=64, sequences=128, tokens=tokens),
        "alpha1": Alpha(
            observed_max=0.1,
            observed_upper=0.12,
            mean=Interval(value=mean, low=low, high=high, n=tokens, clusters=64),
        ),
        "token": TokenMeasures(tv=tv, prob_correlation=0.99, ratio_outside_band=0.0001),
        "sequence": SequenceMeasures(ess_fraction=0.97),
        "provenance": Provenance(behavior=side, reference=side, command="mismatchscope audit"),
    }
    return Report(**defaults | fields)


def verdict(expression: str, report: Report | None = None, baseline: Report | None = None) -> str:
    return gate.apply(report or make_report(), [expression], baseline).verdict


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("token.tv.mean > 0.01", "fail"),  # the whole interval is beyond
        ("token.tv.mean > 0.03", "pass"),
        ("token.tv.mean > 0.02", "inconclusive"),  # the threshold lies inside [0.018, 0.022]
        ("token.tv > 0.03", "pass"),  # an object stands for its mean
        ("alpha1.mean > 0.01", "fail"),  # ... or its value
        ("alpha1.mean.high > 0.021", "fail"),  # a named end is compared as it stands
        ("token.tv.p99 > 0.05", "fail"),  # a quantile has limits of its own, here [0.055, 0.065]
        ("token.tv.p99 > 0.06", "inconclusive"),
        ("token.tv.p99 > 0.065", "pass"),
        ("token.tv.p99 >= 0.065", "inconclusive"),
        ("alpha1.observed_max > 0.09", "fail"),  # 0.1 was seen
        ("alpha1.observed_max > 0.12", "inconclusive"),  # a state that was not visited may have more
        ("alpha1.observed_max < 0.1", "pass"),
        ("alpha1.observed_upper > 0.09", "fail"),  # the visited states: between 0.1 and 0.12
        ("alpha1.observed_upper > 0.11", "inconclusive"),
        ("alpha1.observed_upper > 0.12", "pass"),
        ("token.tv.max > 0.05", "fail"),
        ("token.tv.max > 0.2", "inconclusive"),
        ("token.ratio_outside_band > 0.001", "inconclusive"),  # no interval is known
        ("token.prob_correlation < 0.5", "inconclusive"),
        ("alpha1.mean.n > 999", "fail"),  # a count
        ("counts.prompts < 64", "pass"),
        ("corrections.icepop.kept_tokens < 0.9", "inconclusive"),  # no such entry in this report
        ("counts.tokens<1.001e3", "fail"),
        ("sequence.ess_fraction < 0.9", "inconclusive"),  # a point decides nothing
        ("sequence.ess_fraction<9.8e-1", "inconclusive"),
        ("sequence.pareto_k > 0.7", "inconclusive"),  # not measured
        ("token.kl.mean > 0.1", "inconclusive"),  # the group was not measured
    ],
)
def test_verdict_is_decided_on_the_bounds(expression: str, expected: str) -> None:
    assert verdict(expression) == expected


def test_overall_verdict_takes_the_worst() -> None:
    expressions = ["token.tv.p99 > 1", "token.tv.mean > 0.02"]  # a pass and an open one
    assert gate.apply(make_report(), expressions).verdict == "inconclusive"
    assert gate.apply(make_report(), [*expressions, "token.tv.p99 > 0"]).verdict == "fail"
    assert [result.expression for result in gate.apply(make_report(), expressions).gates] == expressions


def test_infinite_figures_are_compared() -> None:
    report = make_report(
        token=TokenMeasures(kl=Statistic(mean=math.inf, low=math.inf, high=math.inf, estimator="x"))
    )
    assert verdict("token.kl.mean > 0.1", report) == "fail"


class TestBaseline:
    def test_a_clear_rise_fails_and_a_clear_fall_passes(self) -> None:
        base = make_report(0.01, 0.0099, 0.0101)
        assert verdict("token.tv.mean > +10%", make_report(0.02, 0.0199, 0.0201), base) == "fail"
        assert verdict("token.tv.mean > +10%", make_report(0.005, 0.0049, 0.0051), base) == "pass"

    def test_a_change_within_the_noise_is_inconclusive(self) -> None:
        assert verdict("token.tv.mean > +10%", make_report(), make_report()) == "inconclusive"

    def test_absolute_difference(self) -> None:
        base = make_report(0.01, 0.0099, 0.0101)
        assert verdict("token.tv.mean > +0.02", make_report(), base) == "pass"
        assert verdict("token.tv.mean > +0.002", make_report(), base) == "fail"

    def test_more_prompts_are_not_asked_for_where_they_narrow_nothing(self) -> None:
        (result,) = gate.apply(make_report(), ["alpha1.observed_upper > 0.11"]).gates
        assert result.verdict == "inconclusive"
        assert "more prompts do not" in result.reason

    @pytest.mark.parametrize("path", ["alpha1.observed_max", "alpha1.observed_upper", "token.tv.max"])
    def test_a_bound_decides_nothing_against_another(self, path: str) -> None:
        assert verdict(f"{path} > +10%", make_report(), make_report()) == "inconclusive"
        assert verdict(f"{path} > -90%", make_report(), make_report()) == "inconclusive"

    def test_a_named_end_decides_nothing_against_a_baseline(self) -> None:
        """It moves from run to run like any estimate, and nothing says by how much."""
        base = make_report(0.01, 0.0099, 0.0101)
        (result,) = gate.apply(make_report(), ["token.tv.high > +10%"], base).gates
        assert result.verdict == "inconclusive" and "run to run" in result.reason

    def test_counts_are_compared_as_they_stand(self) -> None:
        more = make_report(counts=Counts(prompts=64, sequences=128, tokens=1000, rejected=3))
        assert verdict("counts.rejected > +2", more, make_report()) == "fail"
        assert verdict("counts.rejected > +3", more, make_report()) == "pass"

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"model": {"weights_sha256": "other"}}, "weights"),
            ({"tokenizer_sha256": "other"}, "tokenizer"),
            ({"prompts_sha256": "other"}, "prompts"),
            ({"sampling": SIDE["sampling"] | {"temperature": 0.7}}, "temperature"),
            ({"sampling": SIDE["sampling"] | {"min_p": 0.1}}, "min_p"),
            ({"sampling": SIDE["sampling"] | {"repetition_penalty": 1.1}}, "repetition_penalty"),
        ],
    )
    def test_other_provenance_is_refused_and_named(self, change: dict, named: str) -> None:
        with pytest.raises(NotComparableError, match=named) as caught:
            verdict("token.tv.mean > +10%", make_report(), make_report(side=SIDE | change))
        assert caught.value.exit_code == 4

    def test_a_reference_seen_through_another_temperature_is_refused(self) -> None:
        def at(temperature: float) -> Report:
            made = make_report()
            reference = made.provenance.reference | {"temperature": temperature}
            provenance = made.provenance.model_copy(update={"reference": reference})
            return made.model_copy(update={"provenance": provenance})

        with pytest.raises(NotComparableError, match="that the reference divides its logits by"):
            verdict("token.tv.mean > +10%", at(1.0), at(0.7))

    def test_another_engine_version_is_what_baselines_are_for(self) -> None:
        assert verdict("counts.tokens > +10%", make_report(), make_report(side=SIDE | {"engine": "vllm"})) == "pass"

    def test_infinite_on_both_sides_is_no_change_that_could_pass(self) -> None:
        infinite = Statistic(mean=math.inf, low=math.inf, high=math.inf, estimator="x")
        report = make_report(token=TokenMeasures(kl=infinite))
        assert verdict("token.kl.mean > +10%", report, report) == "inconclusive"

    def test_other_evidence_is_refused(self) -> None:
        with pytest.raises(NotComparableError, match="evidence level"):
            verdict("token.tv.mean > +10%", make_report(), make_report(evidence="topk"))

    def test_relative_gate_needs_a_baseline(self) -> None:
        with pytest.raises(ConfigError, match="baseline"):
            verdict("token.tv.mean > +10%")

    @given(
        value=st.floats(0.01, 1),
        width=st.floats(1e-4, 0.3),
        base=st.floats(0.01, 1),
        base_width=st.floats(1e-4, 0.3),
    )
    def test_wider_intervals_never_turn_a_verdict_around(self, value, width, base, base_width) -> None:
        """Noise may make a verdict inconclusive; it cannot make a pass of a fail."""
        ours = make_report(value, value * (1 - width), value * (1 + width))
        theirs = make_report(base, base * (1 - base_width), base * (1 + base_width))
        exact = verdict("token.tv.mean > +10%", make_report(value, value, value), make_report(base, base, base))
        assert verdict("token.tv.mean > +10%", ours, theirs) in (exact, "inconclusive")


@pytest.mark.parametrize(
    "expression",
    ["", "token.tv", "> 0.1", "token.tv > ", "token.tv == 1", "token.tv > abc", "token.tv > 0.1 x"],
)
def test_bad_grammar_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError, match="PATH OP NUMBER"):
        gate.parse(expression)


def test_a_threshold_that_nothing_reaches_is_refused() -> None:
    with pytest.raises(ConfigError, match="decides nothing"):
        gate.parse("token.tv.mean > 1e999")


def test_percentage_without_a_sign_is_ambiguous() -> None:
    with pytest.raises(ConfigError) as caught:
        gate.parse("token.kl.mean > 10%")
    assert "+10%" in caught.value.hint


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("token.tv.mean > (-0.1)", "fail"),
        ("token.tv.mean < (-0.1)", "pass"),
        ("token.tv.mean<( -1e-3 )", "pass"),
        ("token.tv.mean > (0.5)", "pass"),
    ],
)
def test_a_number_in_brackets_is_no_difference(expression: str, expected: str) -> None:
    assert verdict(expression) == expected


def test_a_threshold_below_zero_without_a_baseline_is_told_how_to_be_written() -> None:
    with pytest.raises(ConfigError, match="relative to a baseline") as caught:
        gate.check_without_baseline(["token.tv.mean < -0.1"])
    assert "token.tv.mean < (-0.1)" in caught.value.hint


@pytest.mark.parametrize("path", ["token.tvv.mean", "token.kl.meen", "alpha1", "provenance.command", "figures"])
def test_unknown_path_is_an_error_and_no_pass(path: str) -> None:
    with pytest.raises(ConfigError, match="no figure"):
        verdict(f"{path} > 0.1")


def test_misspelt_path_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        verdict("token.tv.p98 > 0.1")
    assert "token.tv.p9" in caught.value.hint


def test_empty_report_never_passes() -> None:
    with pytest.raises(EmptyComparisonError):
        verdict("token.tv.mean > 0.5", make_report(tokens=0))


def test_no_gate_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError):
        gate.apply(make_report(), [])


@given(
    number=st.floats(allow_nan=False, allow_infinity=False, min_value=0), op=st.sampled_from([">", ">=", "<", "<="])
)
def test_every_number_survives_parsing(number: float, op: str) -> None:
    assert gate.parse(f"token.tv.mean {op} {number!r}").number == number
