"""What an engine did of what it was asked for, as its trace says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..traces.schema import Manifest

_UNDECIDED = (None, "auto", "model", "", 0)
"""A setting of these leaves the choice to the engine: whatever it did is what was asked for."""


def effective_of(manifest: Manifest, keys: Sequence[str]) -> dict[str, Any]:
    """What is known of these options, and of the batches that were asked for."""
    stated = manifest.effective or {}
    composition = manifest.inputs.composition or {}
    shuffled = {"shuffle_seed": manifest.seeds["shuffle"]} if "shuffle" in (manifest.seeds or {}) else {}
    return {key: stated[key] for key in keys if key in stated} | composition | shuffled


def what_was_ignored(manifest: Manifest, keys: Sequence[str]) -> str | None:
    """`asked for threads=2, the engine has 1`; None where the engine did what it was asked for, or does not say."""
    requested, stated = manifest.settings or {}, manifest.effective or {}
    ignored = [
        f"{key}={requested[key]}, the engine has {stated[key]}"
        for key in keys
        if _decided(requested.get(key)) and key in stated and stated[key] != requested[key]
    ]
    return f"asked for {'; '.join(ignored)}" if ignored else None


def _decided(value: Any) -> bool:
    return value is False or value not in _UNDECIDED  # False is equal to 0, and no choice that is left open
