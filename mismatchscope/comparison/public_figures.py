"""What others have published of the gap between their two sides, by the pair of dtypes that it was measured with.

Other models, engines and prompts: such a figure places a number, it cannot say whether that number is right.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, NamedTuple

from ..reports.reading_fields import Place, PublicFigure
from .statistics import PairStatistics

Figure = Literal["abs_logprob_diff", "rms_log_ratio", "k3"]

_VIME = "github.com/vllm-project/vime/issues/64"
_ROUTING_REPLAY = "arXiv:2510.11370"
_PRIME_RL = "github.com/PrimeIntellect-ai/prime-rl/pull/2808"
_COLLECTED = "collected from public reports of 2025 and 2026"


class _Kind(NamedTuple):
    """μ's dtype, π's dtype, and whether the model routes tokens to experts."""

    mu: str
    pi: str
    experts: bool


_PUBLIC: dict[_Kind, tuple[Figure, tuple[PublicFigure, ...]]] = {
    _Kind("bfloat16", "bfloat16", experts=False): (
        "abs_logprob_diff",
        (
            PublicFigure(low=0.011, high=0.011, setup="Qwen3-4B, vLLM and Megatron, 30 steps", source=_VIME),
            PublicFigure(low=0.011, high=0.036, setup="Qwen3-4B, SGLang and Megatron, 30 steps", source=_VIME),
            PublicFigure(low=0.014, high=0.014, setup="Qwen3-1.7B, vLLM 0.12 and transformers", source=_COLLECTED),
        ),
    ),
    _Kind("bfloat16", "bfloat16", experts=True): (
        "k3",
        (
            PublicFigure(
                low=1.5e-3, high=1.5e-3, setup="Qwen3-30B-A3B, SGLang and Megatron", source=_ROUTING_REPLAY
            ),
            PublicFigure(low=5e-4, high=1.5e-3, setup="Qwen3-30B-A3B, vLLM, steps 0 to 2", source=_PRIME_RL),
        ),
    ),
    _Kind("bfloat16", "float32", experts=False): (
        "rms_log_ratio",
        (PublicFigure(low=0.03, high=0.035, setup="Qwen3-1.7B, vLLM and transformers", source=_COLLECTED),),
    ),
    _Kind("float16", "float32", experts=False): (
        "rms_log_ratio",
        (PublicFigure(low=0.004, high=0.004, setup="Qwen3-1.7B, vLLM", source=_COLLECTED),),
    ),
    _Kind("float32", "float32", experts=False): (
        "rms_log_ratio",
        (PublicFigure(low=0.002, high=0.002, setup="Qwen3-1.7B, vLLM", source=_COLLECTED),),
    ),
}

_SHORT = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_EXPERT_NAMES = re.compile(r"moe|mixtral|deepseek_?v[23]|gpt_?oss", re.IGNORECASE)


def place_of(statistics: PairStatistics, behavior: dict[str, Any], reference: dict[str, Any]) -> Place | None:
    """Where the gap lies among public ones. None where nothing is published of this kind of pair: a quantised model
    or cache, another dtype; or where the dtypes, or whether there are experts, are not known."""
    dtypes, experts = (dtype_of(behavior), dtype_of(reference)), _has_experts(behavior)
    if None in dtypes or experts is None:
        return None
    mu, pi = dtypes
    assert mu is not None
    assert pi is not None
    # The distance is the same from either side.
    found = _PUBLIC.get(_Kind(mu, pi, experts)) or _PUBLIC.get(_Kind(pi, mu, experts))
    if found is None:
        return None
    figure, public = found
    value = _value(statistics, figure)
    if value is None:
        return None
    low, high = min(each.low for each in public), max(each.high for each in public)
    return Place(
        dtypes=f"{mu} and {pi}, {'experts' if experts else 'dense'}",
        figure=figure,
        value=value,
        position="below" if value < low else "above" if value > high else "among",
        public=public,
    )


def _value(statistics: PairStatistics, figure: Figure) -> float | None:
    name = "k2" if figure == "rms_log_ratio" else figure
    mean = statistics.sums[name].mean
    if not math.isfinite(mean):
        return None
    return math.sqrt(2 * mean) if figure == "rms_log_ratio" else mean


def dtype_of(side: dict[str, Any]) -> str | None:
    """What one side computes in; None where it is not known, or where weights or cache are of another precision."""
    effective = side.get("effective") or {}
    precisions = [str(effective.get(key)) for key in ("weight_quantization", "kv_cache_dtype")]
    if effective.get("quantization") or any("8" in precision for precision in precisions):
        return None
    name = str(effective.get("dtype") or "").removeprefix("torch.")
    return _SHORT.get(name, name) or None


def _has_experts(side: dict[str, Any]) -> bool | None:
    model = side.get("model") or {}
    config = model.get("config") or {}
    for part in (config, config.get("text_config") or {}):
        for key in _EXPERT_KEYS:
            if isinstance(part.get(key), int):
                return part[key] > 1
    architecture = model.get("architecture")
    return None if architecture is None else bool(_EXPERT_NAMES.search(architecture))
