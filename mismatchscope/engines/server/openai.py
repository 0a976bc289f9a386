"""The engine `openai@URL`: any server with OpenAI's /v1/completions that takes token ids and gives them back.

OpenAI's own form names tokens by their text, from which the ids that were sampled cannot be told. Asked for are
therefore two fields that vLLM introduced and others took over: `return_token_ids`, and
`return_tokens_as_token_ids`, which names tokens as `token_id:306`. A server that knows neither is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from ...errors import CapabilityError, EngineError
from ...records import Sampling
from ..base import Capabilities
from .engine import ServerEngine
from .logprobs import TokenLogprobs
from .responses import Completion, ServerInfo, check_finish_reason, check_token_ids, parsing

_PREFIX = "token_id:"


class OpenAIServer(ServerEngine):
    name: ClassVar[str] = "openai"
    capabilities: ClassVar[Capabilities] = Capabilities(
        evidence=("sampled", "topk"), paths=("prefill",), rollout=True
    )
    bytes_per_logprob: ClassVar[int] = 40
    full_hint: ClassVar[str] = "a server of vLLM or SGLang, or --evidence sampled"
    processed_hint: ClassVar[str] = "--temperature 1 --top-p 1 --top-k 0"
    tokens_sampled_by_score: ClassVar[int] = 1  # few servers can be asked for none

    async def inspect(self, card: dict[str, Any]) -> ServerInfo:
        return ServerInfo(root=card.get("root"))

    async def sample(
        self, prompt: np.ndarray, sampling: Sampling, limit: int, seed: int, entries: int
    ) -> Completion:
        choice = await self._complete(
            prompt, {"max_tokens": limit, "seed": seed, "logprobs": max(1, entries)} | self._transforms(sampling)
        )
        with parsing(self.options.url, self.name):
            listed = choice["logprobs"]
            token_ids = choice.get("token_ids")
            if token_ids is None:
                token_ids = self._ids(listed["tokens"])
            rows = [self._row(top) for top in listed["top_logprobs"]] if entries else None
            logprobs = TokenLogprobs.from_rows(listed["token_logprobs"], rows)
            ids = check_token_ids(self.options.url, token_ids, logprobs, limit, self.vocabulary)
            return Completion(ids, check_finish_reason(self.options.url, choice["finish_reason"]), logprobs)

    async def force(
        self, prompt: np.ndarray, response: np.ndarray, entries: int, ids: np.ndarray | None
    ) -> TokenLogprobs:
        given = np.concatenate([prompt, response])
        wanted = {"max_tokens": self.tokens_sampled_by_score, "logprobs": max(1, entries), "echo": True}
        choice = await self._complete(given, wanted)
        with parsing(self.options.url, self.name):
            listed, scored = choice["logprobs"], slice(len(prompt), len(given))
            if self._ids(listed["tokens"])[: len(given)] != given.tolist():
                raise CapabilityError(
                    f"{self.options.url} does not echo the log-probs of given tokens, so it cannot score.",
                    hint="score with another engine, or with a server of vLLM or SGLang",
                )
            rows = [self._row(top) for top in listed["top_logprobs"][scored]] if entries else None
            return TokenLogprobs.from_rows(listed["token_logprobs"][scored], rows)

    def _transforms(self, sampling: Sampling) -> dict[str, Any]:
        if sampling.top_k:
            raise CapabilityError(
                "OpenAI's API has no top_k: a server may take it or drop it, and does not say which.",
                hint="--top-k 0, or name the kind of the server: vllm@ or sglang@",
            )
        return {"temperature": sampling.temperature, "top_p": sampling.top_p}

    async def _complete(self, prompt: np.ndarray, wanted: dict[str, Any]) -> dict[str, Any]:
        """The only choice of a completion."""
        body = {
            "model": self.served_name,
            "prompt": prompt.tolist(),
            "n": 1,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        completion = await self.client.post("/v1/completions", body | wanted)
        with parsing(self.options.url, self.name):
            model, choice = completion.get("model", self.served_name), completion["choices"][0]
            if model not in self.served_names:
                raise EngineError(
                    f"{self.options.url} answers with the model {model} in place of {self.served_name}.",
                    hint="something between here and the server sends requests elsewhere",
                )
            if choice.get("prompt_token_ids") not in (None, prompt.tolist()):
                raise EngineError(f"{self.options.url} ran other tokens than the prompt that it was given.")
        return choice

    def _row(self, top: dict[str, float]) -> tuple[list[int], list[float]]:
        return self._ids(top), list(top.values())

    def _ids(self, tokens: Iterable[str]) -> list[int]:
        if not all(token.startswith(_PREFIX) for token in tokens):
            raise CapabilityError(
                f"{self.options.url} names tokens by their text alone: which ids were sampled cannot be told, "
                "because tokenising the text again may give others.",
                hint="a server of vLLM or SGLang gives ids",
            )
        return [int(token.removeprefix(_PREFIX)) for token in tokens]
