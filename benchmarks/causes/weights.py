"""Other weights: those after some updates of training, an adapter, an expert, eight bits.

Updates are real ones: a few steps of AdamW on a part of the corpus, made once for each model and part of the
benchmark, and kept. A severity scales them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from architectures import PAD, LanguageModel, load
from kernels import rounded
from policy import Policy, Weights
from safetensors.torch import load_file, save_file

Tensor = torch.Tensor
HEAD = "lm_head.weight"
UPDATE_STEPS = 6
ADAPTER_RANK = 4


def update_of(model: str, part: str, cache: Path) -> Weights:
    """What a few steps of training change, by parameter."""
    file = cache / "updates" / f"{model}-{part}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(_trained_update(load(model, cache), part), file)
    return load_file(file)


def _trained_update(model: LanguageModel, part: str) -> dict[str, Tensor]:
    from arithmetic_corpus import draw_problem, draw_response

    rng = random.Random(f"update {part}")
    network = model.network
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0)
    with torch.enable_grad():
        for _ in range(UPDATE_STEPS):
            problems = [draw_problem(rng, held_out=False) for _ in range(12)]
            # Answers of the shorter half: training that changes what the model does, as a reward would.
            texts = [min((draw_response(p, rng) for _ in range(4)), key=len) for p in problems]
            rows = [model.ids(p.prompt + text) for p, text in zip(problems, texts, strict=True)]
            longest = max(map(len, rows))
            ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
            labels = ids.masked_fill(ids == PAD, -100)
            network(input_ids=ids, labels=labels, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return {name: (value.data - before[name]).contiguous() for name, value in network.named_parameters()}


def moved(
    policy: Policy, update: Weights, amount: float, keep: Callable[[str], bool] = lambda name: True
) -> Weights:
    """The model's parameters plus an amount of an update, and the head with the embedding where they are tied."""
    parameters = policy.parameters
    changed = {name: parameters[name].data + amount * step for name, step in update.items() if keep(name)}
    if policy.tied and policy.embedding_name in changed:
        changed[HEAD] = changed[policy.embedding_name]
    return stored(policy, changed)


def stored(policy: Policy, weights: Weights) -> Weights:
    """As a checkpoint of the model's dtype has them."""
    return {name: rounded(value, policy.checkpoint_precision) for name, value in weights.items()}


def low_rank(update: Weights) -> Weights:
    """The part of an update that an adapter can hold: a few directions of each projection of attention and MLP."""
    result = {}
    for name, step in update.items():
        if is_projection(name) and step.ndim == 2:
            u, s, v = torch.linalg.svd(step, full_matrices=False)
            result[name] = (u[:, :ADAPTER_RANK] * s[:ADAPTER_RANK]) @ v[:ADAPTER_RANK]
    return result


def is_projection(name: str) -> bool:
    return name.endswith(("proj.weight", "query_key_value.weight", "dense.weight", "4h.weight", "to_h.weight"))


def eight_bits(policy: Policy, layers: int, per_channel: bool) -> Weights:
    """Projections of the first layers as fp8 (e4m3), scaled by tensor or by output channel."""
    result = {}
    for name, parameter in policy.parameters.items():
        if ".layers." not in name or int(name.split(".layers.")[1].split(".")[0]) >= layers:
            continue
        if (is_projection(name) or ".experts." in name) and parameter.ndim >= 2:
            result[name] = to_eight_bits(parameter.data, per_channel)
    return result


def to_eight_bits(value: Tensor, per_channel: bool = False) -> Tensor:
    """The nearest numbers of fp8 e4m3 under a scale of the whole tensor, or of each row."""
    largest = value.abs().amax(-1, keepdim=True) if per_channel else value.abs().amax()
    scale = (largest / 448.0).clamp(min=1e-12)
    return (value / scale).to(torch.float8_e4m3fn).float() * scale
