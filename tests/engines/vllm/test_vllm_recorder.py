"""Recording in memory that is used again gives what recording in fresh memory does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mismatchscope.engines.common.capture import Recorder
from mismatchscope.engines.vllm.recorder import Normaliser, StepRecorder
from mismatchscope.records import Evidence, Request

LENGTHS, VOCABULARY = (5, 9, 1, 7), 13


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


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence("sampled"),
        Evidence("topk", k=4),
        Evidence("full"),
        Evidence("full", fraction=0.4, seed=3),
        Evidence("full", fraction=1e-9),
    ],
    ids=["sampled", "top-4", "full", "a share", "none"],
)
def test_a_step_recorder_keeps_what_a_recorder_keeps(evidence: Evidence) -> None:
    generator = torch.Generator().manual_seed(0)
    requests = [Request(10 + row, row) for row in range(len(LENGTHS))]
    recorders = [kind(evidence, requests, max(LENGTHS)) for kind in (StepRecorder, Recorder)]
    normalise = Normaliser()
    for position in range(max(LENGTHS)):
        row_N = np.array([row for row, length in enumerate(LENGTHS) if position < length][::-1])
        logp_NV = normalise(torch.randn(len(row_N), VOCABULARY, generator=generator))
        token_N = torch.randint(VOCABULARY, (len(row_N),), generator=generator)
        for recorder, rows in zip(recorders, (logp_NV, logp_NV.clone()), strict=True):
            recorder.add(row_N, np.full_like(row_N, position), rows, token_N)
    for row, length in enumerate(LENGTHS):
        left, right = (vars(recorder.finish(row, length)) for recorder in recorders)
        assert left.keys() == right.keys()
        for name, value in left.items():
            if name == "full_logprobs_RV" and value is not None:
                assert value.flags.c_contiguous
            np.testing.assert_array_equal(value, right[name], err_msg=name)
