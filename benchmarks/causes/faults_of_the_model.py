"""Faults of how π is computed: weights, attention, routing, noise. They change a run, and so every later token."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from bench import Bench
from plants import plant
from policy import Attention, Tensor
from weights import HEAD, eight_bits, low_rank, moved, stored, to_eight_bits

EXPERTS = ("moe",)
AMOUNT = (0.01, 10.0)


@plant("bf16 head", "head_precision", stacks=("bf16, fp32 heads", "fp32"))
def bf16_head(bench: Bench, strength: float) -> None:
    bench.differ(bench.run.but(head="bf16"))


@plant("temperature of the trainer", "temperature", strengths=(0.0005, 0.4))
def temperature(bench: Bench, strength: float) -> None:
    factor = np.exp(strength * bench.rng.choice([-1, 1]))
    head = bench.policy.head_weight.data * float(factor)
    bench.detail["temperature"] = float(1 / factor)
    bench.differ(bench.run.but(weights={HEAD: head}))


@plant("stale weights", "stale_weights", strengths=AMOUNT)
def stale_weights(bench: Bench, strength: float) -> None:
    """A sync was left out once: steps after the first update are sampled by the weights of one update before."""
    stale_S = bench.metadata["step"] > 0
    bench.differ(bench.run.but(weights=moved(bench.policy, bench.update(), strength)), on=stale_S)


@plant("half-done sync", "stale_weights", strengths=AMOUNT)
def half_sync(bench: Bench, strength: float) -> None:
    names = sorted(bench.update())
    stale = set(bench.rng.choice(names, max(1, len(names) // 2), replace=False))
    weights = moved(bench.policy, bench.update(), strength, lambda name: name in stale)
    bench.differ(bench.run.but(weights=weights), on=bench.metadata["step"] > 0)


@plant("staleness", "staleness", strengths=AMOUNT)
def staleness(bench: Bench, strength: float) -> None:
    lag_S = bench.metadata["lag"]
    for lag in np.unique(lag_S[lag_S > 0]):
        weights = moved(bench.policy, bench.update(), strength * float(lag))
        bench.differ(bench.run.but(weights=weights), on=lag_S == lag)


@plant("one worker", "worker", strengths=AMOUNT)
def worker(bench: Bench, strength: float) -> None:
    worker_S = bench.metadata["worker"]
    bad = bench.rng.choice(np.unique(worker_S))
    bench.differ(bench.run.but(weights=moved(bench.policy, bench.update(), strength)), on=worker_S == bad)


@plant("adapter", "adapter", strengths=AMOUNT)
def adapter(bench: Bench, strength: float) -> None:
    """An adapter that starts at zero and is not loaded, or scaled otherwise: the gap grows with the step."""
    step_S = bench.metadata["step"]
    change = low_rank(bench.update())
    for step in np.unique(step_S[step_S > 0]):
        weights = moved(bench.policy, change, strength * float(step))
        bench.differ(bench.run.but(weights=weights), on=step_S == step)


@plant("weights that changed in the response", "weights_changed_in_response", strengths=AMOUNT)
def version_flip(bench: Bench, strength: float) -> None:
    """An update in flight: what was sampled before it has the older weights, at another place in each response."""
    older = moved(bench.policy, bench.update(), strength)
    flip_S = bench.rng.uniform(0.2, 0.8, bench.sequences) * bench.rows.lengths
    before_N = bench.position_N < flip_S[bench.sequence_N]
    if bench.rng.random() < 0.5:  # the cache of keys and values is kept
        cut_S = [start + int(flip) for start, flip in zip(bench.rows.start_S, flip_S, strict=True)]
        bench.differ(bench.run.but(prefix=(older, cut_S)), on=~before_N)
    bench.differ(bench.run.but(weights=older), on=before_N)


@plant("stale prefix cache", "stale_prefix", strengths=(0.1, 30.0))
def stale_prefix(bench: Bench, strength: float) -> None:
    """Blocks of 8 tokens of the prompt, of some prompts, are from before an update."""
    older = moved(bench.policy, bench.update(), strength)
    prompts = np.unique(bench.draws.prompt_S)
    chosen = bench.rng.choice(prompts, max(1, len(prompts) // 2), replace=False)
    cached_S = np.isin(bench.draws.prompt_S, chosen)
    cut_S = [start // 8 * 8 if cached else 0 for start, cached in zip(bench.rows.start_S, cached_S, strict=True)]
    bench.metadata["cached_tokens"] = np.array(cut_S)
    bench.differ(bench.run.but(prefix=(older, cut_S)), on=cached_S)


@plant("stale head", "head", strengths=AMOUNT)
def stale_head(bench: Bench, strength: float) -> None:
    source = bench.policy.embedding_name if bench.policy.tied else HEAD
    head = bench.policy.head_weight.data + strength * bench.update()[source]
    bench.differ(bench.run.but(weights=stored(bench.policy, {HEAD: head})))


@plant("rows of the vocabulary", "vocabulary_rows", strengths=(0.002, 2.0))
def vocabulary_rows(bench: Bench, strength: float) -> None:
    """A shard of the head, 48 rows of those in use, is not the trained one."""
    used = np.unique(bench.draws.token_N)
    rows = torch.tensor(bench.rng.choice(used, min(48, len(used) // 4), replace=False))
    head = bench.policy.head_weight.data.clone()
    noise = torch.randn(len(rows), head.shape[1], generator=_generator(bench)) * head.std()
    head[rows] += strength * noise
    bench.differ(bench.run.but(weights={HEAD: head}))


@plant("padded vocabulary", "padded_vocabulary", strengths=(1e-3, 1e5))
def padded_vocabulary(bench: Bench, strength: float) -> None:
    """Rows beyond the vocabulary have logits of a constant; `strength` is the sum of their exponentials."""
    bench.differ(bench.run.but(padding_logits=float(np.log(strength))))


@plant("fp8 weights", "fp8_weights")
def fp8_weights(bench: Bench, strength: float) -> None:
    count = bench.policy.network.config.num_hidden_layers
    layers = int(bench.rng.integers(1, count + 1))
    weights = eight_bits(bench.policy, layers, bool(bench.rng.integers(2)))
    bench.differ(bench.run.but(weights=weights))


@plant("fp8 cache", "fp8_cache")
def fp8_cache(bench: Bench, strength: float) -> None:
    """The cache holds every key and value in eight bits; the prefill of the prompt used its own, unrounded."""
    bench.differ(bench.run.but(attention=Attention(stored=to_eight_bits)), on=bench.position_N > 0)


@plant("norm epsilon", "norm", strengths=(1e-6, 1.0))
def norm(bench: Bench, strength: float) -> None:
    bench.differ(bench.run.but(epsilon=bench.policy.epsilon + strength))


@plant("dropout", "dropout", strengths=(1e-4, 0.3))
def dropout(bench: Bench, strength: float) -> None:
    torch.manual_seed(int(bench.rng.integers(2**31)))
    bench.differ(bench.run.but(dropout=strength))


@plant("rope base", "rope", strengths=(0.001, 3.0))
def rope_base(bench: Bench, strength: float) -> None:
    def other(frequencies: Tensor) -> Tensor:
        share = torch.arange(len(frequencies)) / len(frequencies)
        return frequencies * torch.exp(-strength * share)

    bench.differ(bench.run.but(attention=Attention(frequencies=other)))


@plant("rope scaling", "rope", strengths=(0.0005, 1.0))
def rope_scaling(bench: Bench, strength: float) -> None:
    bench.differ(bench.run.but(attention=Attention(frequencies=lambda f: f / (1 + strength))))


@plant("sliding window", "window")
def window(bench: Bench, strength: float) -> None:
    bench.differ(bench.run.but(attention=Attention(window=int(bench.rng.integers(28, 80)))))


@plant("chunk boundary", "chunked_prefill")
def chunk(bench: Bench, strength: float) -> None:
    boundary = int(bench.rng.integers(40, 72))
    lost = int(bench.rng.choice([1, 2, 4, 8, 16, 32]))
    bench.differ(bench.run.but(attention=Attention(boundary=boundary, lost=lost)))


@plant("attention scale", "attention_scale", strengths=(0.001, 1.0))
def attention_scale(bench: Bench, strength: float) -> None:
    factor = float(np.exp(strength * bench.rng.choice([-1, 1])))
    bench.differ(bench.run.but(attention=Attention(scale=factor)))


@plant("soft cap", "attention_scale", strengths=(0.005, 1.0))
def soft_cap(bench: Bench, strength: float) -> None:
    bench.differ(bench.run.but(attention=Attention(soft_cap=5.0 / strength)))


@plant("attention sink", "attention_scale", strengths=(0.0005, 100.0))
def sink(bench: Bench, strength: float) -> None:
    bench.differ(bench.run.but(attention=Attention(sink=float(np.log(strength)))))


@plant("routing flips", "routing", strengths=(0.001, 2.0), models=EXPERTS)
def routing_flips(bench: Bench, strength: float) -> None:
    noise = _noise(bench, strength)

    def route(logits: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        changed = logits + noise(logits)
        return changed, logits

    bench.differ(bench.run.but(route=route))


@plant("routes without weights", "routing_replay", strengths=(0.001, 2.0), models=EXPERTS)
def routes_without_weights(bench: Bench, strength: float) -> None:
    """The experts are μ's, and how they are weighed is computed again, by a router that is a little off."""
    noise = _noise(bench, strength)
    bench.differ(bench.run.but(route=lambda logits, layer: (logits, logits + noise(logits))))


@plant("routes of another row", "routing_replay", models=EXPERTS)
def routes_of_another_row(bench: Bench, strength: float) -> None:
    """Some rows take the experts that a neighbour's tokens took at the same places."""

    def route(logits: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        shift = max(1, len(logits) // 3 + 7)
        return logits.roll(shift, 0), logits

    bench.differ(bench.run.but(route=route), on=bench.some(0.1, 0.5))


@plant("one wrong expert", "expert", strengths=(0.003, 1.0), models=EXPERTS)
def wrong_expert(bench: Bench, strength: float) -> None:
    layer, expert = int(bench.rng.integers(4)), int(bench.rng.integers(8))
    weights: dict[str, Any] = {}
    for name, value in bench.policy.parameters.items():
        if f".layers.{layer}." in name and ".experts." in name:
            changed = value.data.clone()
            changed[expert] = (1 - strength) * changed[expert] + strength * changed[(expert + 1) % 8]
            weights[name] = changed
    bench.differ(bench.run.but(weights=stored(bench.policy, weights)))


def _noise(bench: Bench, strength: float) -> Any:
    generator = _generator(bench)
    return lambda logits: strength * torch.randn(logits.shape, generator=generator)


def _generator(bench: Bench) -> torch.Generator:
    return torch.Generator().manual_seed(int(bench.rng.integers(2**31)))
