"""Is a mismatch larger than rounding makes it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_traces import pair_of, sampled_trace

from mismatchscope.comparison.rounding_size import rounding_size
from mismatchscope.reports.difference_fields import RoundingSize
from mismatchscope.traces import ModelFacts


def size_of(directory: Path, z: float, tokens: int = 64, **manifest: Any) -> RoundingSize | None:
    """Of a pair whose log ratios are ± z · (1 − p) at every token."""
    p_N = np.linspace(0.05, 0.85, tokens)
    shift_N = z * (1 - p_N) * np.tile([1.0, -1.0], tokens // 2) / 2
    mu = sampled_trace(directory / "mu", np.array_split(np.log(p_N) - shift_N, 4), **manifest)
    pi = sampled_trace(directory / "pi", np.array_split(np.log(p_N) + shift_N, 4), role="reference", **manifest)
    return rounding_size(pair_of(mu, pi))


BF16: dict[str, Any] = {"effective": {"dtype": "bfloat16"}}
FP32: dict[str, Any] = {"effective": {"dtype": "float32", "lm_head": "float32"}}
EXPERTS: dict[str, Any] = {**BF16, "model": ModelFacts(name="moe", config={"num_experts": 8})}


@pytest.mark.parametrize(
    ("manifest", "usual"),
    [
        (BF16, 0.03),
        (FP32, 0.002),
        ({"effective": {"dtype": "float16"}}, 0.004),
        ({"effective": {}}, 0.03),
        ({"effective": {"dtype": "autocast", "lm_head": "float32"}}, 0.03),
        ({"effective": {"dtype": "bfloat16", "kv_cache_dtype": "fp8"}}, 0.12),
        ({"effective": {"dtype": "bfloat16", "weight_quantization": "fp8_per_channel"}}, 0.12),
        ({"effective": {"dtype": "bfloat16", "weight_quantization": "none"}}, 0.03),
        ({**FP32, "environment": {"cuda_matmul_tf32": True}}, 0.004),
        (EXPERTS, 0.6),
        ({**BF16, "temperature": 0.5}, 0.06),
    ],
)
def test_it_is_held_against_what_is_usual_for_the_pair(
    tmp_path: Path, manifest: dict[str, Any], usual: float
) -> None:
    for name, z in (("rounding", 1.4 * usual), ("beyond", 1.6 * usual)):
        size = size_of(tmp_path / name, z, **manifest)
        assert size is not None and size.n == 64
        assert size.usual == pytest.approx(usual)
        assert size.value == pytest.approx(z, rel=1e-3)
        assert size.times == pytest.approx(z / usual, rel=1e-3)
        assert size.beyond == (name == "beyond")


@pytest.mark.parametrize(("tokens", "z"), [(28, 1.0), (64, 0.0)])
def test_it_is_unknown_for_few_tokens_and_none_for_equal_bits(tmp_path: Path, tokens: int, z: float) -> None:
    assert size_of(tmp_path, z, tokens, **BF16) is None
