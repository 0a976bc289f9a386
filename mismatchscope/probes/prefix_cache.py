"""A prompt that is in an engine's prefix cache already, against one that is computed.

An engine in a process of its own is asked for both: it begins with an empty cache, or has just read the prompts. A
server's cache has what its other users left there: greedy completions are held against those after a reset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..collection.capabilities import capabilities_of
from ..composition import BatchComposition
from ..engines.spec import EngineSpec
from ..machine import hardware
from ..reports.text import count
from .options import changed
from .plan import Comparison, Setting
from .sides import Computation

if TYPE_CHECKING:
    from ..reports.pair_fields import Completions, ProbeConclusion

CACHE = "cache"
"""The value that asks for it."""

COMPUTED, CACHED = "prompt not cached", "prompt cached"
_FOUND, _RESET = "cache as it was", "cache reset"

_BLOCK = 32
"""Tokens of a block of vLLM's prefix cache without a GPU, the fewest it has: its own are of 128."""


def from_cache(computation: Computation) -> list[Comparison]:
    """A sequence alone, its prompt read just before or not; a prefill is computed whatever the cache has."""
    side, spec, path = computation
    if path == "prefill" or "warm" not in capabilities_of(spec).prefix_caches:
        return []
    block = 0
    if spec.name == "vllm" and not hardware()["gpus"] and "block_size" not in spec.options:
        block = _BLOCK
        spec = changed(spec, {"block_size": str(block)})
    computed = Setting(COMPUTED, side, spec, path, BatchComposition(batch_size=1), longer_than=block)
    cached = BatchComposition(batch_size=1, prefix_cache="warm")
    return [Comparison(computed, Setting(CACHED, side, spec, path, cached, longer_than=block))]


def after_a_reset(behavior: EngineSpec) -> list[Setting]:
    """Greedy completions of a server with its cache as it is found, then with an empty one."""
    if not behavior.served or "cold" not in capabilities_of(behavior).prefix_caches:
        return []
    return [
        Setting(_FOUND, "behavior", behavior, "rollout"),
        Setting(_RESET, "behavior", behavior, "rollout", BatchComposition(prefix_cache="cold")),
    ]


def of_cache(computation: str, identical: Mapping[tuple[str, str], bool]) -> Iterator[ProbeConclusion]:
    """What the cell says, of those whose two settings (setting, against) have the same bits or not."""
    from ..reports.pair_fields import ProbeConclusion

    same = identical.get((CACHED, COMPUTED))
    if same is not None:
        found = "has the same bits as" if same else "has other bits than"
        sentence = f"{computation}: a response whose prompt is in the prefix cache {found} one whose is computed."
        yield ProbeConclusion("same_from_cache" if same else "cache", sentence)


def of_resets(found: Sequence[Completions]) -> Iterator[ProbeConclusion]:
    """What the greedy completions before and after a reset say."""
    from ..reports.pair_fields import ProbeConclusion

    for completions in found:
        if completions.settings != [_FOUND, _RESET]:
            continue
        of_each = f"Greedy completions of {count(completions.prompts, 'prompt')}"
        if completions.diverging_prompts:
            diverging = f"{count(completions.diverging_prompts, 'prompt')} differently"
            why = "what the cache had is stale, or what is found there has other bits than what is computed"
            sentence = f"{of_each}: after a reset of the server's prefix cache it answers {diverging}: {why}."
            yield ProbeConclusion("cache_reset", sentence)
        else:
            sentence = f"{of_each}: the same tokens before and after a reset of the server's prefix cache."
            yield ProbeConclusion("same_after_reset", sentence)
