"""Which sequences share a batch: the same ones every time the same task runs, whatever a killed run left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from ...composition import BatchComposition
from ...errors import ConfigError
from ...records import Request


def plan_batches(requests: Sequence[Request], composition: BatchComposition) -> list[list[Request]]:
    """Cut the requests into batches as the composition says, in the order in which they are to run.

    Raises `ConfigError` for explicit batches that do not hold every request exactly once, and `ValueError` for a
    composition that gives neither batches nor their size.
    """
    if composition.batches is not None:
        by_id = {request.sequence_id: request for request in requests}
        check_batches(composition.batches, by_id)
        return [[by_id[sequence_id] for sequence_id in batch] for batch in composition.batches]
    if composition.batch_size is None:
        raise ValueError("a composition without a batch size")
    ordered = list(requests)
    if composition.shuffle_seed is not None:
        permutation = np.random.default_rng(composition.shuffle_seed).permutation(len(ordered))
        ordered = [ordered[index] for index in permutation]
    if composition.order == "length":
        ordered.sort(key=_length, reverse=True)  # stable: what is equally long stays shuffled
    size = composition.batch_size
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def within(requests: Sequence[Request], extent: tuple[int, int]) -> list[Request]:
    """The first sequences and the first tokens of each, as many as `extent` has of either (0: all).

    One sequence of every prompt comes before a second one of any.
    """
    sequences, tokens = extent
    seen: Counter[int] = Counter()
    turns = []
    for request in requests:
        turns.append(seen[request.prompt_id])
        seen[request.prompt_id] += 1
    ordered = [requests[index] for index in sorted(range(len(requests)), key=turns.__getitem__)]
    return [_cut(request, tokens) for request in ordered[: sequences or None]]


def _cut(request: Request, tokens: int) -> Request:
    """The first tokens of prompt and response, one of the response at least."""
    prompt, response = request.prompt_token_ids, request.response_token_ids
    if not tokens or prompt is None or response is None:
        return request
    prompt = prompt[: max(1, tokens - 1)]
    response = response[: max(1, tokens - len(prompt))]
    return replace(request, prompt_token_ids=prompt, response_token_ids=response)


def check_batches(batches: Sequence[Sequence[int]], sequence_ids: Collection[int]) -> None:
    """Raise `ConfigError` unless the batches hold each of these sequences exactly once and no other."""
    counts = Counter(sequence_id for batch in batches for sequence_id in batch)
    for problem, found in (
        ("lack", sorted(set(sequence_ids) - counts.keys())),
        ("name sequences that the task does not have,", sorted(counts.keys() - set(sequence_ids))),
        ("name more than once", sorted(sequence_id for sequence_id, count in counts.items() if count > 1)),
    ):
        if found:
            listed = ", ".join(map(str, found[:8])) + (" …" if len(found) > 8 else "")
            raise ConfigError(
                f"The explicit batches {problem} {listed} ({len(found)} in all).",
                hint="every sequence of the task belongs into exactly one batch",
            )


def _length(request: Request) -> int:
    """Tokens, or characters of a prompt that is not tokenised yet."""
    prompt = request.prompt_token_ids if request.prompt_token_ids is not None else str(request.prompt)
    return len(prompt) + (0 if request.response_token_ids is None else len(request.response_token_ids))
