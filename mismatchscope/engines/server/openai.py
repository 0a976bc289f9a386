"""The engine `openai@URL`: any server with OpenAI's /v1/completions that takes token ids and gives them back.

OpenAI's own form names tokens by their text, from which the ids that were sampled cannot be told. Asked for are
therefore two fields that vLLM introduced and others took over: `return_token_ids`, and
`return_tokens_as_token_ids`, which names tokens as `token_id:306`. A server that knows neither is refused.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...errors import CapabilityError, EngineError
from ...records import Sampling
from ..base import Capabilities
from .credentials import shown
from .engine import ServerEngine
from .logprobs import TokenLogprobs
from .responses import Completion, ServerInfo, check_completion, check_counts, check_finish_reason, parsing
from .values import UnusableValue, check_same_length, stated_text, token_id_of

_PREFIX = "token_id:"


class OpenAIServer(ServerEngine):
    name: ClassVar[str] = "openai"
    capabilities: ClassVar[Capabilities] = Capabilities(
        evidence=("sampled", "topk"), paths=("prefill",), rollout=True
    )
    bytes_per_logprob: ClassVar[int] = 40
    full_hint: ClassVar[str] = "a server of vLLM or SGLang, or --evidence sampled"
    processed_hint: ClassVar[str] = "--temperature 1 --top-p 1 --top-k 0"
    lists_all_entries: ClassVar[bool] = False  # some servers list fewer than they are asked for
    tokens_sampled_by_score: ClassVar[int] = 1  # few servers can be asked for none

    async def inspect(self, card: dict[str, Any]) -> ServerInfo:
        return ServerInfo(root=stated_text(card.get("root"), "the model's path"))

    async def sample(
        self, prompt: np.ndarray, sampling: Sampling, limit: int, seed: int, entries: int
    ) -> Completion:
        wanted = {"max_tokens": limit, "seed": seed, "logprobs": max(1, entries)} | self._transforms(sampling)
        choice = await self._complete(prompt, wanted, self.body_bytes(limit, max(1, entries), given=len(prompt)))
        with parsing(self.options.url, self.name):
            listed, token_ids = choice["logprobs"], choice.get("token_ids")
            if token_ids is None:
                token_ids = self._ids(listed["tokens"])
            _check_named(listed["tokens"], token_ids)
            tops = listed.get("top_logprobs")
            # Where none are wanted, the one that has to be asked for still tells whether the others are right.
            rows = [self._row(top) for top in tops] if entries or _names_ids(tops) else None
            logprobs = TokenLogprobs.from_rows(listed["token_logprobs"], rows, widest=max(1, entries) + 1)
            least = min(entries, self.vocabulary) if self.lists_all_entries else 0
            ids = check_completion(self.options.url, token_ids, logprobs, limit, self.vocabulary, least=least)
            return Completion(ids, check_finish_reason(self.options.url, choice["finish_reason"]), logprobs)

    async def force(
        self, prompt: np.ndarray, response: np.ndarray, entries: int, ids: np.ndarray | None
    ) -> TokenLogprobs:
        given = np.concatenate([prompt, response])
        wanted = {"max_tokens": self.tokens_sampled_by_score, "logprobs": max(1, entries), "echo": True}
        choice = await self._complete(given, wanted, self.body_bytes(len(given) + 1, max(1, entries)))
        with parsing(self.options.url, self.name):
            listed, scored = choice["logprobs"], slice(len(prompt), len(given))
            if self._ids(listed["tokens"])[: len(given)] != given.tolist():
                raise CapabilityError(
                    f"{self.options.url} does not echo the log-probs of given tokens, so it cannot score.",
                    hint="score with another engine, or with a server of vLLM or SGLang",
                )
            check_same_length("positions", tokens=listed["tokens"], logprobs=listed["token_logprobs"])
            tops = listed["top_logprobs"] if entries else listed["tokens"]
            check_same_length("positions", tokens=listed["tokens"], lists=tops)
            rows = [self._row(top) for top in tops[scored]] if entries else None
            logprobs = TokenLogprobs.from_rows(listed["token_logprobs"][scored], rows, widest=max(1, entries) + 1)
            logprobs.check(response, self.vocabulary, most_probable=True)
            return logprobs

    def _transforms(self, sampling: Sampling) -> dict[str, Any]:
        if sampling.top_k:
            raise CapabilityError(
                "OpenAI's API has no top_k: a server may take it or drop it, and does not say which.",
                hint="--top-k 0, or name the kind of the server: vllm@ or sglang@",
            )
        return {"temperature": sampling.temperature, "top_p": sampling.top_p}

    async def _complete(self, prompt: np.ndarray, wanted: dict[str, Any], most_bytes: int) -> dict[str, Any]:
        """The only choice of a completion, in an answer of at most `most_bytes`."""
        body = {
            "model": self.served_name,
            "prompt": prompt.tolist(),
            "n": 1,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        completion = await self.client.post("/v1/completions", body | wanted, most_bytes=most_bytes)
        with parsing(self.options.url, self.name):
            model, choices = completion.get("model", self.served_name), completion["choices"]
            if not isinstance(model, str) or model not in self.served_names:
                raise EngineError(
                    f"{self.options.url} answers with the model {shown(str(model)[:100])} in place of "
                    f"{self.served_name}.",
                    hint="something between here and the server sends requests elsewhere",
                )
            if len(choices) != 1 or choices[0].get("index") not in (None, 0):
                raise UnusableValue("answers other choices than the one that it was asked for")
            choice = choices[0]
            given, sampled = choice.get("prompt_token_ids"), choice.get("token_ids")
            if given is not None and (given != prompt.tolist() or set(map(type, given)) != {int}):
                raise EngineError(f"{self.options.url} ran other tokens than the prompt that it was given.")
            check_counts(
                completion.get("usage"),
                prompt=len(prompt),
                sampled=len(sampled) if isinstance(sampled, list) else None,
            )
        return choice

    def _row(self, top: dict[str, float]) -> tuple[list[int], list[float | None]]:
        if not isinstance(top, dict):
            raise UnusableValue("lists the most probable ids otherwise than in a table")
        return self._ids(list(top)), list(top.values())

    def _ids(self, tokens: list[str]) -> list[int]:
        if not all(map(_is_name, tokens)):
            raise CapabilityError(
                f"{self.options.url} names tokens by their text alone: which ids were sampled cannot be told, "
                "because tokenising the text again may give others.",
                hint="a server of vLLM or SGLang gives ids",
            )
        return [token_id_of(token, _PREFIX) for token in tokens]


def _names_ids(tops: Any) -> bool:
    return isinstance(tops, list) and all(isinstance(top, dict) and all(map(_is_name, top)) for top in tops)


def _is_name(token: Any) -> bool:
    return isinstance(token, str) and token.startswith(_PREFIX)


def _check_named(tokens: list[str], token_ids: list[int]) -> None:
    """Raise `UnusableValue` where tokens have other names than their ids; one that is a text tells nothing."""
    check_same_length("the response", token_ids=token_ids, tokens=tokens)
    for token, token_id in zip(tokens, token_ids, strict=True):
        if _is_name(token) and token_id_of(token, _PREFIX) != token_id:
            raise UnusableValue("contradicts itself: token_ids are others than logprobs.tokens")
