"""On which sampling keys do two sides differ? Asked of two traces, and of a report and its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DRAWS = ("seed", "max_new_tokens")
"""Keys that decide which tokens are drawn and how many, not from which law."""


def sampling_differences(
    ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None
) -> dict[str, tuple[Any, Any]]:
    """Every key of a manifest's `sampling` that both sides state and state differently, with its two values.

    A side whose sampling is unknown contradicts none. An empty bias is none.
    """
    if ours is None or theirs is None:
        return {}
    pairs = {key: (ours[key], theirs[key]) for key in sorted(ours.keys() & theirs.keys())}
    return {key: pair for key, pair in pairs.items() if (pair[0] or None) != (pair[1] or None)}
