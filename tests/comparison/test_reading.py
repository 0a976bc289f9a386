"""Where the figures lie among public ones, and what a response adds up to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_traces import pair_with_ratios, sampled_pair

from mismatchscope.comparison.pair import Pair
from mismatchscope.comparison.reading import reading_of
from mismatchscope.reports.document import Finding
from mismatchscope.reports.reading_fields import Reading

DENSE = {"architecture": "Qwen3ForCausalLM"}


def side(dtype: str | None, model: dict[str, Any] | None = None, **effective: Any) -> dict[str, Any]:
    return {"model": DENSE if model is None else model, "effective": {"dtype": dtype} | effective}


def reading(pair: Pair, mu: dict[str, Any], pi: dict[str, Any]) -> Reading:
    return reading_of(pair, Finding(code="no_floor", sentence=""), mu, pi, "mismatchscope audit")


def noise(directory: Path, spread: float) -> Pair:
    """A pair whose every |Δ log p| is `spread`."""
    sign_ST = np.random.default_rng(0).choice([-1.0, 1.0], (30, 40))
    return sampled_pair(directory, list(np.full((30, 40), -2.0)), list(-2.0 + spread * sign_ST))


@pytest.mark.parametrize(("spread", "position"), [(0.001, "below"), (0.02, "among"), (0.2, "above")])
def test_bf16_is_placed_by_mean_abs_difference(tmp_path: Path, spread: float, position: str) -> None:
    place = reading(noise(tmp_path, spread), side("bfloat16"), side("torch.bfloat16")).place
    assert (place.figure, place.position) == ("abs_logprob_diff", position)
    assert place.value == pytest.approx(spread)
    assert all(each.source for each in place.public)


def test_against_float32_it_is_placed_by_rms_from_either_side(tmp_path: Path) -> None:
    pair = noise(tmp_path, 0.032)
    for sides in (("bf16", "float32"), ("float32", "bf16")):
        place = reading(pair, *map(side, sides)).place
        assert (place.figure, place.position) == ("rms_log_ratio", "among")
        assert place.value == pytest.approx(0.032)


def test_a_model_of_experts_has_figures_of_its_own(tmp_path: Path) -> None:
    pair = noise(tmp_path, 0.02)
    experts = {"config": {"text_config": {"num_experts": 128}}}
    place = reading(pair, side("bfloat16", experts), side("bfloat16", experts)).place
    assert (place.figure, place.dtypes) == ("k3", "bfloat16 and bfloat16, experts")
    assert reading(pair, side("bfloat16", {"architecture": "MixtralForCausalLM"}), side("bfloat16")).place == place


@pytest.mark.parametrize(
    ("mu", "pi"),
    [
        (side("bfloat16"), side(None)),
        (side("bfloat16", {}), side("bfloat16")),  # with experts or without?
        (side("float8"), side("bfloat16")),
        (side("bfloat16", kv_cache_dtype="fp8_e4m3"), side("bfloat16")),
        (side("bfloat16", quantization="awq"), side("bfloat16")),
        (side("bfloat16", weight_quantization="fp8_per_tensor"), side("bfloat16")),
    ],
)
def test_where_nothing_is_published_nothing_is_placed(
    tmp_path: Path, mu: dict[str, Any], pi: dict[str, Any]
) -> None:
    assert reading(noise(tmp_path, 0.02), mu, pi).place is None


def test_of_many_responses_the_middle_of_the_ratios_is_shown(tmp_path: Path) -> None:
    """40 responses of two tokens with ρ(y) = 1.01, 1.02, …, 1.40: 5 % lie beyond either end."""
    ratio_S = 1 + np.arange(1, 41) / 100
    found = reading(pair_with_ratios(tmp_path, [np.array([1.0, r]) for r in ratio_S]), side("bf16"), side("bf16"))
    response = found.per_response
    assert (response.responses, response.mean_length, response.sum_tv) == (40, 2.0, 0.0)
    assert (response.ratio_low, response.ratio_high) == pytest.approx((1.03, 1.38), abs=0.011)
    assert found.outside_band == pytest.approx(20.5 / 80, abs=0.01)  # 1.20 itself may round to either side


def test_of_few_responses_all_are_shown(tmp_path: Path) -> None:
    pair = pair_with_ratios(tmp_path, [np.array([r]) for r in (0.5, 1.0, 3.0)])
    response = reading(pair, side("bf16"), side("bf16")).per_response
    assert (response.ratio_low, response.ratio_high) == pytest.approx((0.5, 3.0))


def test_of_tokens_that_are_not_its_own_no_ratio_is_claimed(tmp_path: Path) -> None:
    pair = pair_with_ratios(tmp_path, [np.array([0.5, 1.0])], on_policy=False)
    assert reading(pair, side("bf16"), side("bf16")).per_response is None
