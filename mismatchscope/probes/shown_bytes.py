"""How much engines will show of the inside of a model at most, before any does."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from ..collection.capabilities import declared_by
from ..config import AuditSettings, parse_size
from ..engines.common.stages import ROUTING, kind_of
from ..errors import ConfigError
from ..prompts.rows import Prompt
from .plan import Look, Plan

_ELEMENT = 4  # float32, the widest that a stage is computed in
_WIDE = 6  # stages of a layer that are as wide as the model: norms, attention, MLP and the stream
_AROUND = 2  # embedding and last norm
_TEMPLATE = 64  # tokens that a chat template adds to a prompt

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What models call the number of their experts."""
_CHOSEN = ("num_experts_per_tok", "moe_k", "moe_topk")


def shown_bytes(plan: Plan, model: str, prompts: Sequence[Prompt], settings: AuditSettings) -> int | None:
    """Of all looks of a plan. None where there are none, or the model's configuration is not at hand.

    A token of a prompt has a byte at least, so that there are no more of them than bytes and what a template adds.
    """
    hidden, layers = declared_by(model, "hidden_size"), declared_by(model, "num_hidden_layers")
    if not plan.looks or not isinstance(hidden, int) or not isinstance(layers, int):
        return None
    experts, chosen = declared_by(model, *EXPERTS) or 0, declared_by(model, *_CHOSEN) or 0
    routed = experts + 2 * chosen
    every = layers * (_WIDE * hidden + routed) + _AROUND * hidden + (declared_by(model, "vocab_size") or 0)
    new, samples = settings.sampling.max_new_tokens, settings.sampling.samples
    lengths = sorted((_longest(prompt) + new for prompt in prompts), reverse=True)
    lengths = [length for length in lengths for _ in range(samples)]
    return _ELEMENT * sum(
        _tokens(look, lengths) * (layers * routed if _is_of_routing(look) else every) for look in plan.looks
    )


def check_room(plan: Plan, model: str, prompts: Sequence[Prompt], settings: AuditSettings) -> None:
    """Raise `ConfigError` where what is shown of every token, and kept, may need more than the budget."""
    if all(look.extent[0] for look in plan.looks):
        return  # bounded by itself
    needed = shown_bytes(plan, model, prompts, settings)
    if needed is not None and needed > parse_size(settings.budget):
        raise ConfigError(
            f"What the engines show may need up to {needed / 2**30:.3g} GiB, more than the budget of "
            f"{settings.budget}.",
            hint=f"--budget {math.ceil(needed / 2**30)}GiB, or fewer --limit, --samples or --max-new-tokens",
        )


def _longest(prompt: Prompt) -> int:
    if prompt.token_ids is not None:
        return len(prompt.token_ids)
    text = prompt.prompt if isinstance(prompt.prompt, str) else json.dumps(prompt.prompt, ensure_ascii=False)
    return len(text.encode()) + _TEMPLATE


def _tokens(look: Look, lengths: Sequence[int]) -> int:
    """`lengths` fall."""
    sequences, tokens = look.extent
    seen = lengths[:sequences] if sequences else lengths
    return sum(min(length, tokens) if tokens else length for length in seen)


def _is_of_routing(look: Look) -> bool:
    return bool(look.stages) and all(kind_of(stage) in ROUTING for stage in look.stages)
