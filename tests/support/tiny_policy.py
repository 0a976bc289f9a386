"""A language model of a few thousand numbers in numpy, to plant the causes of a mismatch in.

Weights are random, so its text says nothing, but it has what real ones have: attention with rotary positions,
norms, a head, entropy that varies from state to state, and two ways to round.

Shapes: B sequences, T tokens, H hidden, V vocabulary, D width of an attention head.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from mismatchscope.diagnosis.evidence import Floor, TokenEvidence

HEADS, WIDTH, HIDDEN, VOCABULARY, LAYERS = 2, 16, 32, 96, 2


@dataclass(frozen=True, eq=False)
class Model:
    """Weights by name, and the settings that a side may have wrong."""

    weights: dict[str, np.ndarray]
    rounding: str | None = None
    rope_base: float = 100.0
    scale: float = WIDTH**-0.5
    window: int | None = None
    cap: float | None = None
    epsilon: float = 1e-6
    temperature: float = 1.0
    dropout: float = 0.0
    seed: int = 0

    def but(self, **changes: Any) -> Model:
        return replace(self, **changes)

    def with_weights(self, size: float, *names: str, seed: int = 1) -> Model:
        """The same with these tensors, by default all, moved by `size` of their root mean square."""
        rng = np.random.default_rng(seed)
        changed = {
            name: value + size * value.std() * rng.normal(size=value.shape)
            for name, value in self.weights.items()
            if not names or any(name.startswith(each) for each in names)
        }
        return replace(self, weights=self.weights | changed)


@cache
def model(seed: int = 0) -> Model:
    rng = np.random.default_rng(seed)
    weights = {"embed": rng.normal(size=(VOCABULARY, HIDDEN)), "head": rng.normal(size=(VOCABULARY, HIDDEN)) * 0.5}
    for layer in range(LAYERS):
        for name, shape in (
            ("q", (HIDDEN, HIDDEN)),
            ("k", (HIDDEN, HIDDEN)),
            ("v", (HIDDEN, HIDDEN)),
            ("o", (HIDDEN, HIDDEN)),
            ("up", (HIDDEN, 2 * HIDDEN)),
            ("down", (2 * HIDDEN, HIDDEN)),
        ):
            weights[f"{layer}.{name}"] = rng.normal(size=shape) * shape[0] ** -0.5 * (1.5 if name in "qk" else 1.0)
    return Model(weights)


def bfloat16(value: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(value, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


@dataclass
class Cache:
    """Keys and values of what was computed so far."""

    pads_B: np.ndarray
    keys: list[np.ndarray] = field(default_factory=lambda: [np.zeros(0)] * LAYERS)
    values: list[np.ndarray] = field(default_factory=lambda: [np.zeros(0)] * LAYERS)
    length: int = 0


def logp_of(model: Model, token_BT: np.ndarray, cache: Cache) -> np.ndarray:
    """Log-probs of what comes after each of these tokens [B, T, V], which are added to the cache."""
    sequences, tokens = token_BT.shape
    rng = np.random.default_rng((model.seed, cache.length))
    rounded = bfloat16 if model.rounding else lambda value: value
    place_T = cache.length + np.arange(tokens)
    position_BT = place_T - cache.pads_B[:, None]
    distance_TU = place_T[:, None] - np.arange(cache.length + tokens)
    visible_BTU = (distance_TU >= 0) & (np.arange(cache.length + tokens) >= cache.pads_B[:, None])[:, None]
    if model.window is not None:
        visible_BTU = visible_BTU & (distance_TU < model.window)
    hidden_BTH = model.weights["embed"][token_BT]
    for layer in range(LAYERS):
        normed_BTH = rounded(_norm(hidden_BTH, model.epsilon))
        q, k, v = (
            (normed_BTH @ model.weights[f"{layer}.{name}"]).reshape(sequences, tokens, HEADS, WIDTH)
            for name in "qkv"
        )
        q, k = (_rotated(each, position_BT, model.rope_base) for each in (q, k))
        if cache.length:
            k = np.concatenate([cache.keys[layer], k], axis=1)
            v = np.concatenate([cache.values[layer], v], axis=1)
        cache.keys[layer], cache.values[layer] = k, v
        score = np.einsum("bthd,buhd->bhtu", q, k) * model.scale
        if model.cap is not None:
            score = model.cap * np.tanh(score / model.cap)
        score = np.where(visible_BTU[:, None], score, -1e30)
        share = np.exp(score - score.max(axis=-1, keepdims=True))
        share = share / share.sum(axis=-1, keepdims=True)
        if model.rounding == "second":
            share = rounded(share)
        seen_BTH = np.einsum("bhtu,buhd->bthd", share, v).reshape(sequences, tokens, HIDDEN)
        hidden_BTH = hidden_BTH + rounded(seen_BTH @ model.weights[f"{layer}.o"])
        up = _norm(hidden_BTH, model.epsilon) @ model.weights[f"{layer}.up"]
        up = up / (1 + np.exp(-up))
        if model.rounding == "second":
            up = rounded(up)
        down_BTH = up @ model.weights[f"{layer}.down"]
        if model.dropout:
            down_BTH = down_BTH * (rng.random(down_BTH.shape) > model.dropout) / (1 - model.dropout)
        hidden_BTH = rounded(hidden_BTH + down_BTH)
    logit_BTV = _norm(hidden_BTH, model.epsilon) @ model.weights["head"].T / model.temperature
    cache.length += tokens
    logit_BTV = logit_BTV - logit_BTV.max(axis=-1, keepdims=True)
    return logit_BTV - np.log(np.exp(logit_BTV).sum(axis=-1, keepdims=True))


def _norm(value: np.ndarray, epsilon: float) -> np.ndarray:
    return value / np.sqrt((value**2).mean(axis=-1, keepdims=True) + epsilon)


def _rotated(value: np.ndarray, position_BT: np.ndarray, base: float) -> np.ndarray:
    angle = position_BT[..., None, None] * base ** (-np.arange(WIDTH // 2) / (WIDTH // 2))
    first, second = value[..., : WIDTH // 2], value[..., WIDTH // 2 :]
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=-1
    )


@dataclass(frozen=True, eq=False)
class Responses:
    """Left-padded prompts and what was sampled after them."""

    prompt_BP: np.ndarray
    pads_B: np.ndarray
    response_BT: np.ndarray
    prompt_B: np.ndarray


@cache
def responses(prompts: int = 12, samples: int = 4, tokens: int = 96, seed: int = 0) -> Responses:
    """Drawn from the sound model in its first rounding."""
    rng = np.random.default_rng(seed)
    length_C = rng.integers(6, 25, size=prompts)
    longest = int(length_C.max())
    prompt_CP = rng.integers(VOCABULARY, size=(prompts, longest))
    prompt_B = np.repeat(np.arange(prompts), samples)
    pads_B = (longest - length_C)[prompt_B]
    sampler, cache = model().but(rounding="first"), Cache(pads_B)
    logp_BV = logp_of(sampler, prompt_CP[prompt_B], cache)[:, -1]
    drawn: list[np.ndarray] = []
    for _ in range(tokens):
        gumbel_BV = rng.gumbel(size=logp_BV.shape)
        drawn.append((logp_BV + gumbel_BV).argmax(axis=-1))
        logp_BV = logp_of(sampler, drawn[-1][:, None], cache)[:, 0]
    return Responses(prompt_CP[prompt_B], pads_B, np.stack(drawn, axis=1), prompt_B)


def scored(model: Model, responses: Responses) -> np.ndarray:
    """Log-probs at each response token [B, T, V]."""
    whole_BT = np.concatenate([responses.prompt_BP, responses.response_BT], axis=1)
    logp_BTV = logp_of(model, whole_BT[:, :-1], Cache(responses.pads_B))
    return logp_BTV[:, responses.prompt_BP.shape[1] - 1 :]


def evidence(
    mu: np.ndarray, pi: np.ndarray, responses: Responses, *, floor: float | None = None, **more: Any
) -> TokenEvidence:
    """Of log-probs [B, T, V], or of sampled tokens [B, T], float32 as engines hand them over."""
    sequences, tokens = responses.response_BT.shape
    index = responses.response_BT[..., None]
    columns = [
        (np.take_along_axis(logp, index, axis=-1)[..., 0] if logp.ndim == 3 else logp)
        .astype(np.float32)
        .astype(np.float64)
        .ravel()
        for logp in (mu, pi)
    ]
    before_BT = np.concatenate([responses.prompt_BP[:, -1:], responses.response_BT[:, :-1]], axis=1)
    return TokenEvidence(
        *columns,
        sequence_N=np.repeat(np.arange(sequences), tokens),
        position_N=np.tile(np.arange(tokens), sequences),
        prompt_S=responses.prompt_B,
        token_N=responses.response_BT.ravel(),
        previous_N=before_BT.ravel(),
        prompt_length_S=responses.prompt_BP.shape[1] - responses.pads_B,
        floor=None if floor is None else Floor(floor, "repeat"),
        **more,
    )
