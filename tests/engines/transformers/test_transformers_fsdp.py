"""FSDP2 under two ranks: the numbers of one process, on every rank, or why not. And a router in float32."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_engine import PREFILL, ROLLOUT, Load, by_id, largest_tv, roll, to_score

from mismatchscope.demo import model_path
from mismatchscope.engines.runtime.tasks import check_capabilities
from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.errors import CapabilityError, EngineError, ModelError, SpecError


def open_engine(model: Path | str, **options: object) -> TransformersEngine:
    engine = TransformersEngine(str(model), TransformersOptions(**{"device": "cpu"} | options))
    engine.load()
    return engine


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"train_mode": True, "gradient_checkpointing": True, "logprob_chunk": 7}])
def test_two_ranks_have_the_bits_of_one_process(load: Load, models: Path, options: dict[str, object]) -> None:
    """Half precision over float32 weights is what rounding a checkpoint that has these values gives."""
    asked = to_score(roll(load()))
    whole = by_id(load(dtype="bfloat16", **options).score(asked, PREFILL))
    engine = open_engine(models / "tiny", dtype="bfloat16", fsdp=2, **options)
    try:
        facts = engine.facts()["effective"]
        assert (facts["dtype"], facts["lm_head"], facts["fsdp"]) == ("bfloat16", "bfloat16", 2)
        assert largest_tv(by_id(engine.score(asked, PREFILL)), whole) == 0
        assert largest_tv(by_id(engine.score(asked, PREFILL)), whole) == 0, "and once more"
        ranks = engine._lm._others.pids()
        os.kill(ranks[0], signal.SIGKILL)
        with pytest.raises(EngineError, match="rank 1 of FSDP2's 2 was killed by SIGKILL"):
            list(engine.score(asked, PREFILL))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_one_rank_is_enough(load: Load, models: Path) -> None:
    asked = to_score(roll(load()))
    engine = open_engine(models / "tiny", dtype="bfloat16", fsdp=1)
    try:
        whole = by_id(load(dtype="bfloat16").score(asked, PREFILL))
        assert largest_tv(by_id(engine.score(asked, PREFILL)), whole) == 0
    finally:
        engine.close()


def test_what_is_sharded_does_not_decode(models: Path) -> None:
    engine = TransformersEngine(str(models / "tiny"), TransformersOptions(fsdp=2))
    with pytest.raises(CapabilityError, match="does not sample"):
        check_capabilities(engine, ROLLOUT)


@pytest.mark.parametrize("other", [{"compile": True}, {"device_map": "auto"}])
def test_what_does_not_go_with_shards(other: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="do not go together"):
        TransformersOptions(fsdp=2, **other)


def test_a_router_in_float32_sends_tokens_where_float32_scores_do(load: Load) -> None:
    engine = open_engine(model_path("moe"), dtype="bfloat16", router="float32")
    assert engine.facts()["effective"] | {"dtype": "bfloat16", "router": "float32"} == engine.facts()["effective"]
    rng = np.random.default_rng(0)
    for router in engine._lm.routers:
        hidden = torch.from_numpy(rng.standard_normal((64, 256))).bfloat16()
        with torch.inference_mode():
            _, weights, chosen = router(hidden)
        scores = hidden.double().numpy() @ router.weight.detach().double().numpy().T
        expected = np.argsort(-scores, axis=1)[:, : chosen.shape[1]]
        np.testing.assert_array_equal(chosen.numpy(), expected)
        shares = np.exp(np.take_along_axis(scores, expected, axis=1))
        np.testing.assert_allclose(weights.numpy(), shares / shares.sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_dense_model_has_no_router(models: Path) -> None:
    with pytest.raises(ModelError, match="Qwen3ForCausalLM has no router"):
        open_engine(models / "tiny", router="float32")


def test_what_acts_on_cuda_alone_is_refused_elsewhere(models: Path) -> None:
    with pytest.raises(SpecError, match="acts on CUDA alone"):
        open_engine(models / "tiny", reduced_precision_reduction=False)
