"""The engine `vllm@URL`: a running `vllm serve`.

Sampled log-probs are raw, or processed where the server runs with `--logprobs-mode processed_logprobs`; those of
given tokens (`prompt_logprobs`) are always raw. `--max-logprobs -1` lets whole distributions through; the default
is 20 ids a token. Scoring goes through the prefill: forcing the decode path needs a logits processor in the server.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np

from ...errors import EngineError
from ...records import Sampling
from ..base import Capabilities
from .failures import REFUSED_STATUSES, HttpError
from .logprobs import TokenLogprobs
from .openai import OpenAIServer
from .responses import ServerInfo, parsing
from .values import UnusableValue, check_same_length, stated_text, token_id_of

_OVER_MAXIMUM = re.compile("logprobs of ([0-9]{1,9}), which is greater than max allowed: ([0-9]{1,9})(?![0-9])")
_LARGEST_VOCABULARY = 1 << 19


class VllmServer(OpenAIServer):
    name: ClassVar[str] = "vllm"
    capabilities: ClassVar[Capabilities] = Capabilities(
        evidence=("sampled", "topk", "full"), paths=("prefill",), prefix_caches=("cold",), rollout=True
    )
    cache_reset: ClassVar[str | None] = "/reset_prefix_cache"
    bytes_per_logprob: ClassVar[int] = 80
    lists_all_entries: ClassVar[bool] = True
    full_hint: ClassVar[str] = "start the server with --max-logprobs -1"
    processed_hint: ClassVar[str] = "with --logprobs-mode processed_logprobs"

    async def inspect(self, card: dict[str, Any]) -> ServerInfo:
        """The vocabulary and the most log-probs, from a request for all of a token: the refusal names both."""
        try:
            version = stated_text((await self.client.get("/version"))["version"], "its version")
        except (HttpError, KeyError, TypeError, UnusableValue) as error:
            if isinstance(error, HttpError) and error.status != 404:
                raise
            raise EngineError(
                f"{self.options.url} does not tell its version as vLLM does.", hint="openai@URL takes other servers"
            ) from None
        try:
            most_bytes = self.body_bytes(1, _LARGEST_VOCABULARY)
            wanted = {"max_tokens": 1, "prompt_logprobs": -1}
            choice = await self._complete(np.zeros(2, dtype=np.int32), wanted, most_bytes)
        except HttpError as error:
            if error.status not in REFUSED_STATUSES:
                raise
            refused = _OVER_MAXIMUM.search(error.message)
            vocabulary, most = map(int, refused.groups()) if refused else (None, None)
        else:
            with parsing(self.options.url, self.name):
                vocabulary = most = len(choice["prompt_logprobs"][1])
        with parsing(self.options.url, self.name):
            return ServerInfo(version, vocabulary, most, root=stated_text(card.get("root"), "the model's path"))

    async def force(
        self, prompt: np.ndarray, response: np.ndarray, entries: int, ids: np.ndarray | None
    ) -> TokenLogprobs:
        wanted = {"max_tokens": self.tokens_sampled_by_score, "prompt_logprobs": entries}
        given = np.concatenate([prompt, response])
        choice = await self._complete(given, wanted, self.body_bytes(len(given) + 1, entries))
        with parsing(self.options.url, self.name):
            listed = choice["prompt_logprobs"]
            check_same_length("the given tokens", tokens=given, prompt_logprobs=listed)
            listed = listed[len(prompt) :]
            sampled_T = [row[str(token)]["logprob"] for row, token in zip(listed, response.tolist(), strict=True)]
            rows = [(list(map(token_id_of, row)), [entry["logprob"] for entry in row.values()]) for row in listed]
            logprobs = TokenLogprobs.from_rows(sampled_T, rows, widest=entries + 1)
            logprobs.check(response, self.vocabulary, most_probable=True, least=min(entries, self.vocabulary))
            return logprobs

    def _transforms(self, sampling: Sampling) -> dict[str, Any]:
        # All that a model's generation_config.json may set in the server.
        return {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }
