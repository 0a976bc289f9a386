"""Is a mismatch larger than rounding makes it? Rounding moves log p by a nearly constant multiple of 1 − p.

z = log ρ / (1 − p), with p the geometric mean of the two probabilities of a sampled token, is that multiple. Its
root mean square over the tokens with p < 0.9 is compared with what two sound engines of that dtype show.
"""

from __future__ import annotations

import math
from typing import Any

from ..reports.difference_fields import RoundingSize
from ..traces.schema import Manifest
from .known_effects import is_low_precision
from .pair import Pair

_USUAL = {"float32": 0.002, "float16": 0.004, "bfloat16": 0.03}
"""Root mean square of z for sound pairs of dense models. Of bfloat16: 0.023 was measured where the head is bfloat16
on both sides, and published pairs of vLLM and a trainer have a root mean square log ratio of 0.045 over all tokens.
Of float16 and float32: published runs of one engine against float32, 0.004 and 0.002."""

_LOW_PRECISION_FACTOR = 4
"""8-bit weights or caches: published runs have four times the root mean square of bfloat16."""

_MIXTURE_OF_EXPERTS = 0.6
"""A flipped route of a mixture of experts is a jump: a published 30B pair has a mean |log ratio| of 0.37."""

BEYOND = 1.5
"""Sound pairs reached 1.46 times the usual size."""

_TOKENS = 30


def rounding_size(pair: Pair) -> RoundingSize | None:
    """How many times as large the mismatch is as rounding usually makes it; None where too few tokens say so."""
    squares = pair.statistics.sums["scaled"]
    if pair.statistics.identical or squares.n < _TOKENS:
        return None
    usual = max(_usual(side.manifest) for side in (pair.mu, pair.pi))
    value = math.sqrt(squares.mean)
    return RoundingSize(value=value, usual=usual, times=value / usual, beyond=value > BEYOND * usual, n=squares.n)


def _usual(manifest: Manifest) -> float:
    """Of one side, with all that makes a gap of sound engines larger."""
    config = manifest.model.config or {}
    usual = _usual_of_dtype(manifest)
    if any(map(is_low_precision, _precisions(manifest, config))):
        usual = max(usual, _USUAL["bfloat16"] * _LOW_PRECISION_FACTOR)
    if _experts(config) > 1:
        usual = max(usual, _MIXTURE_OF_EXPERTS)
    return _magnified(usual, manifest)


def usual_of_rounding(manifest: Manifest) -> float:
    """Of one side, of rounding to its dtype alone: 8-bit numbers and routes are causes that have names."""
    return _magnified(_usual_of_dtype(manifest), manifest)


def _usual_of_dtype(manifest: Manifest) -> float:
    """An unknown dtype may be any."""
    effective = manifest.effective
    dtypes = [str(effective.get(key)) for key in ("dtype", "lm_head", "logits_dtype", "logprob_dtype")]
    known = [_USUAL[name] for dtype in dtypes for name in _USUAL if name in dtype]
    usual = max(known) if known and effective.get("dtype") in _USUAL else _USUAL["bfloat16"]
    if manifest.environment.get("cuda_matmul_tf32"):  # its products have as many bits as those of float16
        usual = max(usual, _USUAL["float16"])
    return usual


def _magnified(usual: float, manifest: Manifest) -> float:
    """A temperature below 1 magnifies what rounding does."""
    temperature = manifest.temperature
    return usual / temperature if temperature is not None and 0 < temperature < 1 else usual


def _precisions(manifest: Manifest, config: dict[str, Any]) -> list[Any]:
    effective = manifest.effective
    stated = [effective.get(key) for key in ("quantization", "weight_quantization", "kv_cache_dtype", "parameters")]
    return [*stated, config.get("quantization_config"), {"F8_E4M3": "fp8"}.get(manifest.model.dtype_stored or "")]


def _experts(config: dict[str, Any]) -> int:
    """How many experts the configuration has, by the names that model families use."""
    text = config.get("text_config") or config
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    return max((int(text.get(name) or 0) for name in names), default=0)
