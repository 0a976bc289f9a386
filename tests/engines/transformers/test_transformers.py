"""The transformers engine on tiny random models: all ways to the same log-probs agree, and the draws follow them.

Shapes: N rows, V vocabulary, T response tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tiny_models import EOS, VOCABULARY, save_model

from mismatchscope.engines.transformers.engine import TransformersEngine, TransformersOptions
from mismatchscope.errors import EngineError, ModelError, PromptsError, SpecError
from mismatchscope.records import Evidence, Request, Sampling, SequenceRecord, Task

FULL = Evidence("full")
ROLLOUT = Task("rollout", "rollout", "", "", FULL, sampling=Sampling(max_new_tokens=24, seed=1))
PREFILL = Task("prefill", "score", "", "", FULL, policy="raw")
DECODE = replace(PREFILL, path="decode")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

Load = Callable[..., TransformersEngine]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    save_model(directory / "tiny")
    save_model(directory / "wide", hidden_size=512, num_hidden_layers=1)
    return directory


@pytest.fixture(scope="module")
def load(models: Path) -> Load:
    """Engines by model and options, each loaded once."""
    loaded: dict[tuple[str, TransformersOptions], TransformersEngine] = {}

    def load_once(model: str = "tiny", **options: object) -> TransformersEngine:
        key = (model, TransformersOptions(**{"dtype": "float32"} | options))
        if key[1].device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        if key not in loaded:
            loaded[key] = TransformersEngine(str(models / model), key[1])
            loaded[key].load()
        return loaded[key]

    return load_once


def prompts(count: int, seed: int = 0) -> list[Request]:
    rng = np.random.default_rng(seed)
    return [
        Request(100 + i, i, rng.integers(1, VOCABULARY, rng.integers(1, 9)).astype(np.int32)) for i in range(count)
    ]


def roll(engine: TransformersEngine, task: Task = ROLLOUT, requests: Sequence[Request] | None = None) -> Records:
    return by_id(engine.rollout(prompts(6) if requests is None else requests, task))


Records = dict[int, SequenceRecord]


def by_id(records: object) -> Records:
    return {record.sequence_id: record for record in records}


def to_score(records: Records) -> list[Request]:
    return [
        Request(r.sequence_id, r.prompt_id, r.prompt_token_ids, None, r.response_token_ids, r.finish_reason)
        for r in sorted(records.values(), key=lambda record: record.sequence_id)
    ]


def largest_tv(left: Records, right: Records) -> float:
    assert left.keys() == right.keys()
    pairs = [
        (
            np.exp(left[i].observed.full_logprobs_RV.astype(float)),
            np.exp(right[i].observed.full_logprobs_RV.astype(float)),
        )
        for i in left
    ]
    return max(float(np.abs(p - q).sum(axis=1).max()) / 2 for p, q in pairs)


# Sampling


@pytest.mark.parametrize(
    "sampling",
    [Sampling(1, seed=2), Sampling(1, temperature=0.7, top_k=12, seed=2), Sampling(1, temperature=1.3, top_p=0.8)],
    ids=["plain", "top-k", "top-p"],
)
def test_draws_follow_the_recorded_distribution(load: Load, sampling: Sampling) -> None:
    prompt = prompts(1)[0].prompt_token_ids
    requests = [Request(i, 0, prompt) for i in range(3000)]
    records = list(load().rollout(requests, replace(ROLLOUT, sampling=sampling)))
    p_V = np.exp(records[0].observed.full_logprobs_RV[0].astype(float))
    counts_V = np.bincount([record.response_token_ids[0] for record in records], minlength=VOCABULARY)
    assert counts_V[p_V == 0].sum() == 0
    often = p_V * len(requests) >= 5
    observed = [*counts_V[often], counts_V[~often].sum()]
    expected = [*p_V[often], p_V[~often].sum()]
    observed, expected = zip(*[(o, e) for o, e in zip(observed, expected, strict=True) if e > 0], strict=True)
    assert chisquare(observed, np.array(expected) / sum(expected) * len(requests)).pvalue > 1e-3


def test_processed_and_raw_are_both_recorded_where_they_differ(load: Load) -> None:
    sampling = replace(ROLLOUT.sampling, temperature=0.8, top_k=10)
    for record in roll(load(), replace(ROLLOUT, sampling=sampling)).values():
        processed_TV, raw_TV = record.observed.full_logprobs_RV, record.raw.full_logprobs_RV
        assert (np.isfinite(processed_TV).sum(axis=1) == 10).all()
        assert np.isfinite(raw_TV).all()
        for processed_V, raw_V in zip(processed_TV.astype(float), raw_TV.astype(float), strict=True):
            best = np.argsort(raw_V)[-10:]
            scaled = raw_V[best] / 0.8
            np.testing.assert_allclose(processed_V[best], scaled - np.log(np.exp(scaled).sum()), atol=2e-6)
    assert all(record.raw is None for record in roll(load()).values())


def test_greedy_takes_the_most_probable_token_with_certainty(load: Load) -> None:
    for record in roll(load(), replace(ROLLOUT, sampling=Sampling(8, temperature=0))).values():
        np.testing.assert_array_equal(record.response_token_ids, record.raw.full_logprobs_RV.argmax(axis=1))
        assert (record.observed.logprob_T == 0).all() and (record.raw.logprob_T < 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_draws_do_not_depend_on_the_company_in_the_batch(load: Load, device: str) -> None:
    engine = load(device=device)
    together = roll(engine)
    reversed_batch = roll(engine, requests=prompts(6)[::-1])
    for request in prompts(6):
        (alone,) = engine.rollout([request], ROLLOUT)
        for other in (together, reversed_batch):
            np.testing.assert_array_equal(alone.response_token_ids, other[request.sequence_id].response_token_ids)


def test_a_response_ends_with_the_stop_token_or_at_its_length(load: Load) -> None:
    records = roll(load(), replace(ROLLOUT, sampling=Sampling(40, seed=3)), prompts(24)).values()
    assert {record.finish_reason for record in records} == {"stop", "length"}
    for record in records:
        stops = record.response_token_ids == EOS
        assert not stops[:-1].any() and stops[-1] == (record.finish_reason == "stop")
        assert len(record.response_token_ids) == 40 or stops[-1]
        assert "".join(record.response_pieces).endswith("<eos>") == (record.finish_reason == "stop")


def test_a_response_stops_at_the_longest_context(load: Load) -> None:
    prompt = np.full(120, 5, dtype=np.int32)
    (record,) = load().rollout([Request(0, 0, prompt)], replace(ROLLOUT, sampling=Sampling(24, seed=4)))
    assert len(record.response_token_ids) == 8 and record.finish_reason == "length"


# Scoring


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
    rollout = roll(load(device=device))
    engine = load(**options, device=device)
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


@pytest.mark.parametrize("architecture", ["gemma2", "granite", "mixture"])
def test_other_architectures(tmp_path: Path, architecture: str) -> None:
    """Soft-capped logits, scaled logits, routed experts: decoding and a packed prefill agree."""
    from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, Qwen3MoeConfig

    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "eos_token_id": EOS,
        "pad_token_id": None,
        "initializer_range": 0.3,
    }
    config = {
        "gemma2": lambda: Gemma2Config(**shape, final_logit_softcapping=2.0, sliding_window=4),
        "granite": lambda: GraniteConfig(**shape, logits_scaling=3.0),
        "mixture": lambda: Qwen3MoeConfig(**shape, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    }[architecture]()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    engine = TransformersEngine(str(tmp_path), TransformersOptions(dtype="float32", padding="packed", attn="eager"))
    engine.load()
    rollout = roll(engine)
    assert next(iter(rollout.values())).response_pieces is None  # no tokenizer was saved
    assert largest_tv(rollout, by_id(engine.score(to_score(rollout), PREFILL))) <= 1e-5
    assert largest_tv(rollout, by_id(engine.score(to_score(rollout), DECODE))) == 0


# Facts


def test_facts_tell_what_the_engine_ended_up_with(load: Load) -> None:
    facts = load("wide", dtype="autocast", attn="eager", lm_head="float32", train_mode=True).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["settings"]["dtype"] == facts["effective"]["dtype"] == "autocast"
    assert facts["effective"]["attn"] == "eager" and facts["effective"]["lm_head"] == "float32"
    assert facts["model"]["vocabulary_size"] == VOCABULARY and facts["model"]["dtype_stored"] == "F32"
    assert facts["eos_token_ids"] == [EOS] and facts["max_length"] == 128
    assert facts["environment"]["torch"] == torch.__version__
    assert load().facts()["effective"]["dtype"] == "float32"
    checkpointing = load(train_mode=True, gradient_checkpointing=True).facts()["effective"]
    assert checkpointing["gradient_checkpointing"] and not facts["effective"]["gradient_checkpointing"]


# Refusals


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"logprob_chunk": -1}, "logprob_chunk=-1"),
        ({"gradient_checkpointing": True}, "train mode alone"),
    ],
)
def test_impossible_options(options: dict[str, object], why: str) -> None:
    with pytest.raises(SpecError, match=why) as caught:
        TransformersOptions(**options)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("options", "error"),
    [({"device": "abacus"}, SpecError), ({"device": "cuda:99"}, SpecError), ({"attn": "nonsense"}, ModelError)],
)
def test_options_that_this_machine_or_model_lacks(models: Path, options: dict[str, str], error: type) -> None:
    with pytest.raises(error, match=next(iter(options.values()))):
        TransformersEngine(str(models / "tiny"), TransformersOptions(**options)).load()


def load_from(directory: Path, **options: object) -> None:
    TransformersEngine(str(directory), TransformersOptions(**options)).load()


def test_broken_checkpoints(tmp_path: Path) -> None:
    from safetensors.torch import load as tensors_of
    from safetensors.torch import save as bytes_of

    directory = save_model(tmp_path / "model")
    weights = directory / "model.safetensors"
    whole = weights.read_bytes()
    tensors = tensors_of(whole)
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not a readable safetensors"):
        load_from(directory)
    dropped = tensors.pop("model.layers.1.mlp.up_proj.weight")
    weights.write_bytes(bytes_of(tensors, metadata={"format": "pt"}))
    with pytest.raises(ModelError, match=r"lacks 1 of the model's tensors, model\.layers\.1\.mlp\.up_proj\.weight"):
        load_from(directory)
    tensors["model.layers.1.mlp.up_proj.weight"] = dropped[:3].clone()
    weights.write_bytes(bytes_of(tensors, metadata={"format": "pt"}))
    with pytest.raises(ModelError):
        load_from(directory)
    weights.write_bytes(whole)
    config = (directory / "config.json").read_text()
    (directory / "config.json").write_text(config.replace('"qwen3"', '"qwen99"'))
    with pytest.raises(ModelError, match="qwen99"):
        load_from(directory)


def test_tokenizer_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not match the vocabulary"):
        load_from(save_model(tmp_path, vocab_size=32))


def test_a_model_that_changes_its_logits_or_mixes_packed_sequences(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Qwen3ForCausalLM, Qwen3Model

    forward = Qwen3ForCausalLM.forward

    def scaled(self: object, **inputs: object) -> object:
        output = forward(self, **inputs)
        output.logits = output.logits * 2
        return output

    with monkeypatch.context() as patch:
        patch.setattr(Qwen3ForCausalLM, "forward", scaled)
        with pytest.raises(ModelError, match="between its hidden states and its logits"):
            load_from(models / "tiny")

    backbone = Qwen3Model.forward

    def contiguous(self: object, position_ids: torch.Tensor, **inputs: object) -> object:
        return backbone(self, position_ids=torch.arange(position_ids.shape[1])[None], **inputs)

    monkeypatch.setattr(Qwen3Model, "forward", contiguous)
    load_from(models / "tiny")
    with pytest.raises(ModelError, match="packed"):
        load_from(models / "tiny", padding="packed")


def test_impossible_requests(load: Load) -> None:
    engine, good = load(), prompts(1)[0]
    bad = replace(good, sequence_id=1, prompt_id=41, prompt_token_ids=np.array([VOCABULARY], dtype=np.int32))
    with pytest.raises(PromptsError, match="prompt 41"):
        next(iter(engine.rollout([good, bad], ROLLOUT)))
    with pytest.raises(EngineError, match="no response"):
        list(engine.score([good], PREFILL))
    for response, why in (([1, VOCABULARY], "outside the vocabulary"), ([1] * 128, "the model takes 128")):
        request = replace(good, response_token_ids=np.array(response, dtype=np.int32))
        with pytest.raises(ModelError, match=why):
            list(engine.score([request], PREFILL))


def test_out_of_memory_says_what_to_change(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = load()
    monkeypatch.setattr(engine._lm, "hidden", fail)
    with pytest.raises(EngineError, match="batch_size=32") as caught:
        list(engine.rollout(prompts(1), ROLLOUT))
    assert "batch_size=16" in caught.value.hint


def test_a_bad_prompt_is_named_before_anything_runs(load: Load) -> None:
    """`check` sees all requests at once, however many batches they would fill."""
    engine, good = load(), prompts(3)
    engine.check(good, ROLLOUT)
    too_long = replace(good[0], prompt_id=41, prompt_token_ids=np.zeros(500, dtype=np.int32))
    with pytest.raises(PromptsError, match="prompt 41"):
        engine.check([*good, too_long], ROLLOUT)
    with pytest.raises(EngineError, match="no response"):
        engine.check(good, PREFILL)
