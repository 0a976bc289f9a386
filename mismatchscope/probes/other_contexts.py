"""The sequences of a trace in other contexts: the last tokens alone, another beginning, a chat template or none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MismatchScopeError
from ..records import Observed, Request, SequenceRecord
from .plan import OtherTokens

if TYPE_CHECKING:
    from ..traces.reader import Trace

_STATES = 256
"""Of the states of all responses, so many are computed after shorter contexts: a random sample."""

_CONTENTS = ("seven", "7?", "Why", "(a).")
"""Messages that begin and end in different ways: what the chat has in common around them is the template's."""


@dataclass(frozen=True)
class LastTokens(OtherTokens):
    """A random sample of states, each a sequence of its own: the last `tokens` before it, or all where there are
    fewer, and the one token drawn there. The number of a sequence is that of the state in the trace."""

    tokens: int
    states: int = _STATES

    @property
    def label(self) -> str:
        return "one token" if self.tokens == 1 else f"last {self.tokens} tokens"

    def missing(self, drawn: Trace) -> str | None:
        return None

    def records(self, drawn: Trace) -> Iterator[SequenceRecord]:
        total = drawn.manifest.counts.tokens
        chosen_N = np.zeros(total, dtype=bool)
        chosen_N[np.random.default_rng(0).permutation(total)[: self.states]] = True
        start = 0
        for record in drawn.records():
            length = len(record.response_token_ids)
            for position in np.flatnonzero(chosen_N[start : start + length]).tolist():
                yield self._at(record, position, start + position)
            start += length

    def _at(self, record: SequenceRecord, position: int, number: int) -> SequenceRecord:
        here, before = slice(position, position + 1), record.response_token_ids[:position]
        seen = record.observed
        return replace(
            record,
            sequence_id=number,
            prompt_token_ids=np.concatenate([record.prompt_token_ids, before])[-self.tokens :],
            response_token_ids=record.response_token_ids[here],
            observed=Observed(
                seen.logprob_T[here],
                None if seen.topk_ids_TK is None else seen.topk_ids_TK[here],
                None if seen.topk_logprobs_TK is None else seen.topk_logprobs_TK[here],
            ),
        )


@dataclass(frozen=True)
class Bos(OtherTokens):
    """The sequences with one BOS token more or less before them: `times` 2 or 0."""

    times: int

    @property
    def label(self) -> str:
        return "BOS doubled" if self.times else "BOS missing"

    def missing(self, drawn: Trace) -> str | None:
        bos = _bos_token_id(drawn)
        if bos is None:
            return "nothing says which token is the model's BOS"
        column: Any = drawn.read_sequences(["prompt_token_ids"])["prompt_token_ids"]
        prompts: list[list[int]] = column.to_pylist()
        if not all(prompt[:1] == [bos] for prompt in prompts):
            return f"not every prompt begins with the BOS token, {bos}"
        if not self.times and any(len(prompt) == 1 for prompt in prompts):
            return "a prompt has no other token than BOS"
        return None

    def records(self, drawn: Trace) -> Iterator[SequenceRecord]:
        for record in drawn.records():
            bos, rest = record.prompt_token_ids[:1], record.prompt_token_ids[1:]
            yield replace(record, prompt_token_ids=np.concatenate([bos] * self.times + [rest]))


@dataclass(frozen=True)
class AddedBos(OtherTokens):
    """The sequences with the model's BOS token before them, where none begins with it."""

    @property
    def label(self) -> str:
        return "BOS added"

    def missing(self, drawn: Trace) -> str | None:
        bos = _bos_token_id(drawn)
        if bos is None:
            return "nothing says which token is the model's BOS"
        begin = any(record.prompt_token_ids[:1].tolist() == [bos] for record in drawn.records())
        return f"a prompt begins with the BOS token, {bos}, already" if begin else None

    def records(self, drawn: Trace) -> Iterator[SequenceRecord]:
        bos = np.array([_bos_token_id(drawn)], dtype=np.int32)
        for record in drawn.records():
            yield replace(record, prompt_token_ids=np.concatenate([bos, record.prompt_token_ids]))


def _bos_token_id(drawn: Trace) -> int | None:
    config: dict[str, Any] = drawn.manifest.model.config or {}
    found = (config.get("text_config") or config).get("bos_token_id")
    return found if isinstance(found, int) else None


@dataclass(frozen=True)
class Template(OtherTokens):
    """The sequences with the tokens of the chat template of `model` around each prompt, as one message of a user's,
    or without those that are there."""

    model: str
    added: bool

    @property
    def label(self) -> str:
        return "template added" if self.added else "template dropped"

    def missing(self, drawn: Trace) -> str | None:
        around = _template_tokens(self.model)
        if isinstance(around, str):
            return around
        within = [_is_within(record.prompt_token_ids.tolist(), *around) for record in drawn.records()]
        if self.added:
            return "a prompt is in the chat template already" if any(within) else None
        return None if all(within) else "not every prompt is in the chat template"

    def records(self, drawn: Trace) -> Iterator[SequenceRecord]:
        around = _template_tokens(self.model)
        assert not isinstance(around, str), "it is missing"
        before, after = around
        bos = _bos_token_id(drawn)
        for record in drawn.records():
            prompt: list[int] = record.prompt_token_ids.tolist()
            if self.added:
                twice = bos is not None and prompt[:1] == before[:1] == [bos]
                prompt = [*before, *prompt[twice:], *after]
            else:
                prompt = prompt[len(before) : len(prompt) - len(after)]
            yield replace(record, prompt_token_ids=np.array(prompt, dtype=np.int32))


def _is_within(prompt: list[int], before: list[int], after: list[int]) -> bool:
    """Whether a prompt has these tokens around it, and one at least between them."""
    ends = prompt[: len(before)] == before and prompt[len(prompt) - len(after) :] == after
    return ends and len(prompt) > len(before) + len(after)


@cache
def _template_tokens(model: str) -> tuple[list[int], list[int]] | str:
    """What the chat template puts before and after a message of a user's; why that is not known."""
    try:
        from ..engines.common.checkpoint import Tokenizer
        from ..engines.common.location import locate

        tokenizer = Tokenizer(locate(model, weights=False))
        chats = [
            tokenizer.encode(Request(0, 0, prompt=[{"role": "user", "content": content}])).tolist()
            for content in _CONTENTS
        ]
    except ModuleNotFoundError as error:
        return f"the chat template needs {error.name}, which is not here"
    except MismatchScopeError as error:
        return error.message
    before, after = _in_common(chats), _in_common([chat[::-1] for chat in chats])[::-1]
    return (before, after) if before or after else "the chat template puts no token around a message"


def _in_common(chats: list[list[int]]) -> list[int]:
    """The tokens with which all begin."""
    same = [len(set(tokens)) == 1 for tokens in zip(*chats, strict=False)]
    return chats[0][: [*same, False].index(False)]
