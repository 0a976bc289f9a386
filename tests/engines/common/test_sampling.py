"""The distribution sampled from and the draw, against transformers' own warpers and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mismatchscope.engines.common.capture import log_softmax
from mismatchscope.engines.common.sampling import draw, process_logits, uniforms
from mismatchscope.errors import EngineError
from mismatchscope.records import Sampling


def random_logits(rows: int = 16, vocabulary: int = 50) -> torch.Tensor:
    return 3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.8), (7, 0.9), (500, 0.01)])
def test_transforms_are_those_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    expected_BV = warpers(None, random_logits())
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    torch.testing.assert_close(process_logits(random_logits(), sampling), expected_BV, rtol=0, atol=0)


def test_greedy_puts_all_the_mass_on_the_first_best_token() -> None:
    logits_BV = torch.tensor([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]])
    logp_BV = log_softmax(process_logits(logits_BV, Sampling(temperature=0.0)))
    assert logp_BV.exp().tolist() == [[0, 1, 0], [1, 0, 0]]


def test_draw_inverts_the_cumulated_distribution() -> None:
    logp_BV = log_softmax(random_logits(200, 30))
    uniform_B = uniforms(3, range(200), 1)[:, 0]
    for token, logp_V, uniform in zip(
        draw(logp_BV, torch.from_numpy(uniform_B)).tolist(), logp_BV.double().tolist(), uniform_B, strict=True
    ):
        p_V = [math.exp(logp) for logp in logp_V]
        below = math.fsum(p_V[:token]) / math.fsum(p_V)
        assert below - 1e-6 <= uniform < below + p_V[token] + 1e-6


def test_draw_never_takes_an_excluded_token() -> None:
    logits_BV = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]] * 3)
    uniform_B = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(log_softmax(logits_BV), uniform_B).tolist() == [1, 3, 3]


def test_draw_refuses_logits_that_are_not_finite() -> None:
    with pytest.raises(EngineError, match="not finite") as caught:
        draw(torch.full((1, 4), torch.nan), torch.tensor([0.5], dtype=torch.float64))
    assert "float32" in caught.value.hint


def test_uniforms_belong_to_the_sequence_alone() -> None:
    alone, together = uniforms(5, [7], 10), uniforms(5, [3, 9, 7], 40)
    np.testing.assert_array_equal(alone[0], together[2, :10])
    assert not (together[0] == together[1]).any()


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.8), (5, 1.0), (7, 0.6), (3, 0.99)])
def test_at_once_top_p_counts_what_top_k_leaves_out(top_k: int, top_p: float) -> None:
    sampling = Sampling(temperature=0.7, top_k=top_k, top_p=top_p)
    logits_BV = random_logits()
    found_BV = process_logits(logits_BV, sampling, at_once=True)
    for logit_V, found_V in zip(logits_BV / 0.7, found_BV, strict=True):
        p_V = logit_V.double().softmax(dim=0)
        ranked = sorted(range(len(p_V)), key=lambda token: -float(p_V[token]))
        within = [i for i in range(len(ranked)) if i == 0 or top_p == 1 or float(p_V[ranked[:i]].sum()) < top_p]
        kept = {ranked[i] for i in within if not top_k or i < top_k}
        assert set(torch.isfinite(found_V).nonzero()[:, 0].tolist()) == kept


def test_at_once_as_many_tied_ids_are_kept_as_asked_for() -> None:
    tied_BV = torch.zeros(2, 6)
    assert torch.isfinite(process_logits(tied_BV, Sampling(top_k=4), at_once=True)).sum(dim=1).tolist() == [4, 4]
    assert torch.isfinite(process_logits(tied_BV, Sampling(top_k=4))).sum(dim=1).tolist() == [6, 6]
