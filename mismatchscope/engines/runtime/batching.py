"""Which sequences share a batch: the same ones every time the same task runs, whatever a killed run left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ...records import Request


def plan_batches(
    requests: Sequence[Request],
    batch_size: int,
    shuffle_seed: int | None = None,
    order: Literal["given", "length"] = "given",
) -> list[list[Request]]:
    """Cut the requests, in the order given, into batches; the last may be smaller.

    A `shuffle_seed` permutes them first: the same sequences in other company, which is what shows whether an
    engine's numbers depend on the batch. Order "length" then puts the longest first, so that batches are of a kind.
    """
    if batch_size < 1:
        raise ValueError(f"a batch of {batch_size} sequences")
    ordered = list(requests)
    if shuffle_seed is not None:
        ordered = [ordered[index] for index in np.random.default_rng(shuffle_seed).permutation(len(ordered))]
    if order == "length":
        ordered.sort(key=_length, reverse=True)  # stable: what is equally long stays shuffled
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def _length(request: Request) -> int:
    """Tokens, or characters of a prompt that is not tokenised yet."""
    prompt = request.prompt_token_ids if request.prompt_token_ids is not None else str(request.prompt)
    return len(prompt) + (0 if request.response_token_ids is None else len(request.response_token_ids))
