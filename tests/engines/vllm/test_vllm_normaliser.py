"""Normalising in memory that is used again."""

from __future__ import annotations

import pytest
import torch

from mismatchscope.engines.vllm.normaliser import Normaliser


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [2, 1000, 151_936])
def test_log_probs_are_normalised(dtype: torch.dtype, vocabulary: int) -> None:
    normalise = Normaliser()
    for rows in (3, 5, 2):
        logits = (torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(rows)) * 6).to(dtype)
        logits[0, 1:] = -torch.inf  # one token alone is left
        before = logits.clone()
        expected = logits.double() - torch.logsumexp(logits.double(), dim=1, keepdim=True)
        torch.testing.assert_close(normalise(logits).double(), expected, atol=3e-6, rtol=0)
        assert torch.equal(logits, before)
