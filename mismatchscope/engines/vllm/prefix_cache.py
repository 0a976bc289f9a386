"""vLLM's prefix cache: whether it can have anything of a prompt, and whether it had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import CapabilityError, EngineError
from ..common.tokenized import TokenizedRequest


def check_prefix_cache(config: Any, requests: Sequence[TokenizedRequest]) -> None:
    """Raise `CapabilityError` where no prompt can be found in the cache: it has whole blocks of tokens, and the
    last token of a prompt is always computed."""
    if not config.enable_prefix_caching:
        raise CapabilityError("vLLM runs without a prefix cache.", hint="vllm:enable_prefix_caching=true")
    if max(len(request.prompt_token_ids) for request in requests) <= config.block_size:
        raise CapabilityError(
            f"vLLM caches prompts in blocks of {config.block_size} tokens, and no prompt has more.",
            hint="vllm:block_size=32, or longer prompts",
        )


def check_hit(config: Any, output: Any) -> None:
    """Raise `EngineError` for a request whose prompt should have been in the cache, and was not."""
    if len(output.prompt_token_ids) > config.block_size and not output.num_cached_tokens:
        raise EngineError("vLLM read a prompt again that its prefix cache should have had")
