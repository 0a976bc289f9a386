"""Draw tokens: the transforms between logits and the distribution sampled from, and the draw itself.

Shapes: B rows of a batch, V vocabulary, T response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError
from ...records import Sampling


def process_logits(logits_BV: Tensor, sampling: Sampling, *, at_once: bool = False) -> Tensor:
    """Temperature, then top-k, then top-p (the order of transformers and vLLM); excluded tokens become -inf.

    With `at_once` top-p counts the mass of all ids, not of those that top-k left, and of ids that tie with the k-th
    the first ones are kept, so that there are k: as SGLang does it. Temperature 0 is greedy: all the mass on the
    first most probable token.
    """
    logits_BV = logits_BV.float()
    if sampling.temperature == 0:
        best_B1 = logits_BV.argmax(dim=1, keepdim=True)
        return torch.full_like(logits_BV, -torch.inf).scatter(1, best_B1, 0.0)
    logits_BV = logits_BV / sampling.temperature
    if at_once and sampling.truncates:
        return _cut_at_once(logits_BV, sampling)
    if 0 < sampling.top_k < logits_BV.shape[1]:
        kth_B1 = logits_BV.topk(sampling.top_k, dim=1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)
    if sampling.top_p < 1:
        ordered_BV, token_BV = logits_BV.sort(dim=1, descending=True, stable=True)
        p_BV = ordered_BV.softmax(dim=1, dtype=torch.float64)
        excluded_BV = p_BV.cumsum(dim=1) - p_BV >= sampling.top_p
        excluded_BV[:, 0] = False
        logits_BV = logits_BV.masked_fill(
            torch.empty_like(excluded_BV).scatter(1, token_BV, excluded_BV), -torch.inf
        )
    return logits_BV


def _cut_at_once(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    ordered_BV, token_BV = logits_BV.sort(dim=1, descending=True, stable=True)
    excluded_BV = torch.zeros_like(token_BV, dtype=torch.bool)
    if sampling.top_p < 1:
        p_BV = ordered_BV.softmax(dim=1, dtype=torch.float64)
        excluded_BV = p_BV.cumsum(dim=1) - p_BV >= sampling.top_p
    if sampling.top_k > 0:
        excluded_BV[:, sampling.top_k :] = True
    excluded_BV[:, 0] = False
    return logits_BV.masked_fill(torch.empty_like(excluded_BV).scatter(1, token_BV, excluded_BV), -torch.inf)


def uniforms(seed: int, sequence_ids: Sequence[int], length: int) -> np.ndarray:
    """One number in [0, 1) per sequence and position [B, T], from (seed, sequence id) alone."""
    return np.stack([np.random.default_rng([seed, sequence_id]).random(length) for sequence_id in sequence_ids])


def draw(logp_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Inverse-CDF draw in float64: the first token whose cumulated probability exceeds the uniform number.

    A token of probability 0 is never drawn: the cumulated sum does not move there. `EngineError` on NaN log-probs.
    """
    cdf_BV = logp_BV.exp().cumsum(dim=1, dtype=torch.float64)
    total_B = cdf_BV[:, -1]
    if not torch.isfinite(total_B).all():
        raise EngineError(
            "the model's logits are not finite, so nothing can be sampled from them",
            hint="try a wider type: dtype=float32 (float16 overflows at 65504)",
        )
    # The product may round up to the total, beyond which there is no token.
    level_B = torch.minimum(uniform_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    return torch.searchsorted(cdf_BV, level_B[:, None], right=True).squeeze(1)
