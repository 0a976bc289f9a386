"""What results of experiments rule out: the table is of known causes and experiments, and never of all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.diagnosis.catalogue import ROUNDING, causes, experiments
from mismatchscope.diagnosis.decisions import DECISIONS, Decision, causes_of_setting, decision, ruled_out_on_average

CAUSES = [*causes(), ROUNDING]


@pytest.mark.parametrize(("experiment", "result"), DECISIONS)
def test_a_result_is_of_a_known_experiment_and_of_known_causes_and_leaves_some(
    experiment: str, result: str
) -> None:
    found = decision(experiment, result)
    assert experiment in experiments()
    assert found.excluded <= set(CAUSES)
    assert found.kept is None or found.kept <= set(CAUSES)
    assert 0 < len(found.over(CAUSES)) < len(CAUSES)


@given(st.sampled_from(sorted(DECISIONS)), st.lists(st.sampled_from(CAUSES), unique=True))
def test_a_result_removes_causes_and_keeps_the_order_of_the_others(
    key: tuple[str, str], suspected: list[str]
) -> None:
    left = decision(*key).over(suspected)
    assert left == [cause for cause in suspected if cause in left]
    assert decision(*key).over(left) == left


def test_a_result_that_nobody_knows_says_nothing() -> None:
    assert decision("context", "unclear") == Decision()


def test_one_token_contexts_part_weights_from_attention() -> None:
    suspected = ["rope", "stale_weights", "attention_scale", "norm"]
    assert decision("context", "vanishes").over(suspected) == ["rope", "attention_scale"]
    # A sink takes its part of the softmax from one key as well.
    assert decision("context", "stays").over(suspected) == ["stale_weights", "attention_scale", "norm"]


def test_a_path_that_closes_the_gap_leaves_what_the_experiment_of_the_path_does() -> None:
    of_the_path = causes_of_setting("path", None)
    assert decision("path", "most").over(CAUSES) == [cause for cause in CAUSES if cause in of_the_path]
    assert {"chunked_prefill", "window", "stale_prefix"} < of_the_path


def test_an_fp8_cache_can_have_the_same_bits_in_decode_as_in_prefill() -> None:
    assert decision("path", "none").over(["fp8_cache", "recurrent_state"]) == ["fp8_cache"]


def test_several_candidates_that_close_a_gap_are_all_left() -> None:
    assert decision("rescore", "rope or norm").over(["head", "norm", "rope"]) == ["norm", "rope"]


def test_an_experiment_is_worth_what_its_results_rule_out() -> None:
    alike = dict.fromkeys(("rope", "norm", "stale_weights"), 1.0)
    # "vanishes" leaves rope alone and "stays" the two others; by its three results it rules out 2, 1 and 3 of them.
    assert ruled_out_on_average("context", alike) == pytest.approx(0.9 * (2 + 1 + 1) / 9 + 0.1 * 2 / 3)
    # Two of three results are none that rope has.
    assert ruled_out_on_average("repeat", {"rope": 1.0}) == pytest.approx(0.1 * 2 / 3)
    assert ruled_out_on_average("cache", {"rope": 1.0}) == 0


def test_an_experiment_is_worth_more_for_causes_that_are_likelier() -> None:
    few = ruled_out_on_average("repeat", {"rope": 9.0, "dropout": 1.0})
    assert few < ruled_out_on_average("repeat", {"rope": 5.0, "dropout": 5.0})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("attention_scale", "2.0", frozenset({"attention_scale"})),
        ("weight_quantization", "fp8_per_tensor", frozenset({"fp8_weights"})),
        ("hf_overrides", '{"rope_parameters":{"rope_theta":5e5}}', frozenset({"rope"})),
        ("kv_cache_dtype", "fp8", {"fp8_cache"}),
        ("hf_overrides", '{"rope_theta": 5000}', {"rope"}),
        ("hf_overrides", '{"sliding_window": 16, "rms_norm_eps": 1e-3}', {"window", "norm"}),
        ("train_mode", "true", {"dropout"}),
        ("seed", "1", set()),
    ],
)
def test_a_setting_is_the_cause_of(key: str, value: str, expected: set[str]) -> None:
    assert causes_of_setting(key, value) == expected
