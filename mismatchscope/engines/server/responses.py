"""What servers say of themselves and of a response, and what is wrong with one that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import EngineError
from .credentials import shown
from .logprobs import TokenLogprobs
from .values import UnusableValue, integer, token_ids

_UNUSABLE = "is the kind of the server right, and is nothing between here and it? What was finished is kept"


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
    """Around taking JSON apart: what it lacks, contradicts or has in another type becomes an `EngineError`."""
    try:
        yield
    except UnusableValue as error:
        raise EngineError(f"{url} {error}.", hint=_UNUSABLE) from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        # Other errors than of a missing key quote values, which the server chose.
        missing = f": {error}" if isinstance(error, KeyError) else ""
        raise EngineError(
            f"{url} answers in another form than a server of the kind {kind} ({type(error).__name__}{missing}).",
            hint="is the kind right? vllm@, sglang@ and openai@ speak differently",
        ) from None


def check_completion(
    url: str, ids: Any, logprobs: TokenLogprobs, limit: int, vocabulary: int, *, least: int = 0
) -> np.ndarray:
    """The sampled ids [T]. Raises `EngineError` for none, too many, or ones that the model does not have, and
    `UnusableValue` where they and their log-probs contradict each other."""
    ids = token_ids(ids)
    if not 1 <= len(ids) <= limit or len(ids) != len(logprobs.logprob_T):
        counts = f"{len(ids)} token ids and {len(logprobs.logprob_T)} log-probs"
        raise EngineError(f"{url} answered {counts}, of at most {limit} tokens.")
    if max(ids) >= vocabulary:
        raise EngineError(
            f"{url} sampled an id outside the vocabulary of {vocabulary}: it serves another model than --model."
        )
    token_T = np.array(ids, dtype=np.int32)
    if np.isneginf(logprobs.logprob_T).any():
        raise UnusableValue("contradicts itself: it sampled a token to which it gives no probability")
    logprobs.check(token_T, vocabulary, most_probable=True, least=least)
    return token_T


def check_finish_reason(url: str, reason: Any) -> str:
    """Raises `EngineError` for a response that did not end of itself or by its limit."""
    if reason not in ("stop", "length"):
        said = shown(reason) if isinstance(reason, str) else "without a reason"
        raise EngineError(f"{url} broke a response off: {said}.")
    return reason


def check_counts(counts: Any, *, prompt: int, sampled: int | None) -> None:
    """Raise `UnusableValue` where a server counts other tokens than it was given, or than it answers.

    `counts` is what it says of its usage, if anything; `sampled` is None where no tokens were asked for.
    """
    if not isinstance(counts, dict):
        return
    total = None if sampled is None else prompt + sampled
    for name, tokens in (("prompt_tokens", prompt), ("completion_tokens", sampled), ("total_tokens", total)):
        if tokens is not None and counts.get(name) is not None and integer(counts[name], name) != tokens:
            raise UnusableValue(f"contradicts itself: it counts {counts[name]} {name}, and there are {tokens}")
