"""The transformers engine scores: all ways to the same log-probs agree.

Shapes: N rows, V vocabulary, T response tokens, H hidden.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_engine import (
    DECODE,
    DEVICES,
    PREFILL,
    ROLLOUT,
    Load,
    by_id,
    largest_tv,
    roll,
    to_score,
)

from mismatchscope.records import Evidence


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("model", "dtype"), [("tiny", "float32"), ("wide", "bfloat16")])
def test_forced_decoding_repeats_the_rollout_bit_for_bit(load: Load, model: str, dtype: str, device: str) -> None:
    engine = load(model, dtype=dtype, device=device)
    rollout = roll(engine)
    assert len({len(record.response_token_ids) for record in rollout.values()}) > 1  # rows leave at different times
    forced = by_id(engine.score(to_score(rollout), DECODE))
    for sequence_id, record in rollout.items():
        np.testing.assert_array_equal(forced[sequence_id].observed.logprob_T, record.observed.logprob_T)
        np.testing.assert_array_equal(
            forced[sequence_id].observed.full_logprobs_RV, record.observed.full_logprobs_RV
        )
        assert forced[sequence_id].finish_reason == record.finish_reason


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attn": "eager"},
        {"padding": "left"},
        {"padding": "left", "attn": "eager"},
        {"padding": "packed"},
        {"padding": "packed", "attn": "eager"},
        {"logprob_chunk": 0},
        {"logprob_chunk": 7},
        {"lm_head": "float32"},
        {"train_mode": True},
        {"train_mode": True, "gradient_checkpointing": True},
    ],
    ids=lambda options: ",".join(f"{key}={value}" for key, value in options.items()) or "plain",
)
def test_every_forward_agrees_with_decoding_in_float32(load: Load, options: dict[str, object], device: str) -> None:
    rollout = roll(load(device=device))
    scored = by_id(load(**options, device=device).score(to_score(rollout), PREFILL))
    assert largest_tv(rollout, scored) <= 1e-5
    for sequence_id, record in rollout.items():
        np.testing.assert_allclose(scored[sequence_id].observed.logprob_T, record.observed.logprob_T, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [{"compile": True}, {"attn": "flex"}], ids=["compile", "flex"])
def test_compiled_forwards_agree_in_float32(load: Load, options: dict[str, object], device: str) -> None:
    rollout = roll(load("large heads", device=device))
    engine = load("large heads", **options, device=device)
    assert engine.facts()["effective"]["compile"] == options.get("compile", False)
    assert largest_tv(rollout, by_id(engine.score(to_score(rollout), PREFILL))) <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "autocast"])
def test_prefill_is_the_models_own_forward(load: Load, models: Path, dtype: str) -> None:
    """An independent oracle: the model's plain forward, a sequence at a time, in float64 from its logits on."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(
        models / "wide", dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32
    )
    for request in to_score(roll(load())):
        (record,) = load("wide", dtype=dtype).score([request], PREFILL)
        ids = torch.from_numpy(np.concatenate([request.prompt_token_ids, request.response_token_ids])).long()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "autocast"):
            logits_NV = network(ids[None]).logits[0].double()
        expected_TV = logits_NV.log_softmax(dim=1)[len(request.prompt_token_ids) - 1 : -1]
        # The head runs on the response alone, so a bfloat16 kernel may round a logit of 4 the other way (2**-6).
        atol = 1e-5 if dtype == "float32" else 0.05
        np.testing.assert_allclose(record.observed.full_logprobs_RV, expected_TV, atol=atol)


def test_float32_head_takes_the_logits_out_of_bfloat16(load: Load) -> None:
    requests = to_score(roll(load()))
    exact = by_id(load("wide", dtype="bfloat16", lm_head="float32").score(requests, PREFILL))
    rounded = by_id(load("wide", dtype="bfloat16").score(requests, PREFILL))
    assert 1e-5 < largest_tv(exact, rounded) < 0.05
    engine = load("wide", dtype="bfloat16", lm_head="float32")
    hidden_NH = torch.randn(3, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight_VH = engine._lm.network.lm_head.weight.double()
    expected_NV = (hidden_NH.double() @ weight_VH.T).detach()
    torch.testing.assert_close(engine._lm.logits(hidden_NH).double(), expected_NV, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("path", ["decode", "prefill"])
@pytest.mark.parametrize(("temperature", "top_k"), [(0.7, 0), (0.7, 10), (0.0, 0)])
def test_a_processed_policy_is_scored_through_its_transforms(
    load: Load, path: str, temperature: float, top_k: int
) -> None:
    sampling = replace(ROLLOUT.sampling, temperature=temperature, top_k=top_k)
    rollout = roll(load(), replace(ROLLOUT, sampling=sampling))
    task = replace(PREFILL, path=path, policy="processed", sampling=sampling)
    assert largest_tv(rollout, by_id(load().score(to_score(rollout), task))) <= 1e-5


def test_top_k_evidence_bounds_the_tail_of_the_full_distribution(load: Load) -> None:
    top = roll(load(), replace(ROLLOUT, evidence=Evidence("topk", k=4)))
    requests = [
        replace(
            request,
            observed_ids_TK=top[request.sequence_id].observed.topk_ids_TK,
            kth_logprob_T=top[request.sequence_id].observed.topk_logprobs_TK[:, -1],
        )
        for request in to_score(top)
    ]
    full = by_id(load().score(requests, PREFILL))
    for path in ("decode", "prefill"):
        task = replace(PREFILL, path=path, evidence=Evidence("topk", k=4))
        for record in load().score(requests, task):
            mine, whole = record.observed, full[record.sequence_id].observed
            np.testing.assert_array_equal(mine.topk_ids_TK, top[record.sequence_id].observed.topk_ids_TK)
            for position, token in enumerate(record.response_token_ids):
                p_V = np.exp(whole.full_logprobs_RV[position].astype(float))
                ids = mine.topk_ids_TK[position].tolist()
                np.testing.assert_allclose(np.exp(mine.topk_logprobs_TK[position]), p_V[ids], atol=1e-5)
                kth = np.exp(top[record.sequence_id].observed.topk_logprobs_TK[position, -1])
                rest = [min(p, kth) for a, p in enumerate(p_V) if a not in (*ids, token)]
                assert mine.tail_overlap_T[position] == pytest.approx(sum(rest), abs=1e-5)
