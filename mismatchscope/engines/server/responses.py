"""What servers say of themselves and of a response, and what is wrong with an answer that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import EngineError
from .listed import Listed


@dataclass(frozen=True)
class Served:
    """What a server says of itself; unknown is None. `cap` is the most log-probs that it lists for a token."""

    version: str | None = None
    vocabulary: int | None = None
    cap: int | None = None
    root: str | None = None  # where it read the model from
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A sampled response. `drawn_from` lists what was sampled from, where the server tells that apart."""

    token_ids: np.ndarray  # int32 [T]
    finish_reason: str  # "stop" or "length"
    listed: Listed
    drawn_from: Listed | None = None
    policy_version: int | None = None


@contextmanager
def understanding(url: str, kind: str) -> Iterator[None]:
    """Around taking an answer apart: what it lacks, or has in another type, becomes an `EngineError`."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise EngineError(
            f"{url} answers in another form than a server of the kind {kind} ({type(error).__name__}: {error}).",
            hint="is the kind right? vllm@, sglang@ and openai@ speak differently",
        ) from None


def response_ids(url: str, token_ids: Sequence[int], listed: Listed, limit: int, vocabulary: int) -> np.ndarray:
    """The sampled ids [T]. Raises `EngineError` for none, too many, or ones that the model does not have."""
    ids = np.array(token_ids, dtype=np.int64)
    if not 1 <= len(ids) <= limit or len(ids) != len(listed.logprob_T):
        raise EngineError(
            f"{url} answered {len(ids)} token ids and {len(listed.logprob_T)} log-probs, of at most {limit} tokens."
        )
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise EngineError(
            f"{url} sampled an id outside the vocabulary of {vocabulary}: it serves another model than --model."
        )
    return ids.astype(np.int32)


def finish_reason(url: str, reason: str | None) -> str:
    """Raises `EngineError` for a response that did not end of itself or by its limit."""
    if reason not in ("stop", "length"):
        raise EngineError(f"{url} broke a response off: {reason}.")
    return reason
