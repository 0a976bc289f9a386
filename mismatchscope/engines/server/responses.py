"""What servers say of themselves and of a response, and what is wrong with one that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import EngineError
from .logprobs import TokenLogprobs


@dataclass(frozen=True)
class ServerInfo:
    """What a server says of itself; unknown is None. `max_logprobs` is the most that it lists for a token."""

    version: str | None = None
    vocabulary: int | None = None
    max_logprobs: int | None = None
    root: str | None = None  # where it read the model from
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """A sampled response. `sampled_from` lists what was sampled from, where the server tells that apart."""

    token_ids: np.ndarray  # int32 [T]
    finish_reason: str  # "stop" or "length"
    logprobs: TokenLogprobs
    sampled_from: TokenLogprobs | None = None
    policy_version: int | None = None


@contextmanager
def parsing(url: str, kind: str) -> Iterator[None]:
    """Around taking JSON apart: what it lacks, or has in another type, becomes an `EngineError`."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        # Other errors than of a missing key quote values, which the server chose.
        missing = f": {error}" if isinstance(error, KeyError) else ""
        raise EngineError(
            f"{url} answers in another form than a server of the kind {kind} ({type(error).__name__}{missing}).",
            hint="is the kind right? vllm@, sglang@ and openai@ speak differently",
        ) from None


def check_token_ids(
    url: str, token_ids: Sequence[int], logprobs: TokenLogprobs, limit: int, vocabulary: int
) -> np.ndarray:
    """The sampled ids [T]. Raises `EngineError` for none, too many, or ones that the model does not have."""
    ids = np.array(token_ids, dtype=np.int64)
    if not 1 <= len(ids) <= limit or len(ids) != len(logprobs.logprob_T):
        counts = f"{len(ids)} token ids and {len(logprobs.logprob_T)} log-probs"
        raise EngineError(f"{url} answered {counts}, of at most {limit} tokens.")
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise EngineError(
            f"{url} sampled an id outside the vocabulary of {vocabulary}: it serves another model than --model."
        )
    return ids.astype(np.int32)


def check_finish_reason(url: str, reason: str | None) -> str:
    """Raises `EngineError` for a response that did not end of itself or by its limit."""
    if reason not in ("stop", "length"):
        raise EngineError(f"{url} broke a response off: {reason}.")
    return reason
