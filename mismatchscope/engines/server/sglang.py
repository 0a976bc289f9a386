"""The engine `sglang@URL`: a running `python -m sglang.launch_server`, through its own /generate.

Sampled log-probs are those after the temperature and before top-k and top-p, or raw where the server runs with
SGLANG_RETURN_ORIGINAL_LOGPROB=1. What top-k and top-p leave is told as well (`return_sampling_mask`) for a finite
top-k. Those of given tokens are always raw, and may be asked for at given ids. Scoring goes through the prefill.

A server with `--enable-deterministic-inference` draws from the seeds it is given; any other ignores them.
"""

from __future__ import annotations

import base64
import re
from typing import Any, ClassVar

import numpy as np

from ...errors import CapabilityError, EngineError
from ...records import Sampling
from ..base import Capabilities
from .engine import ServerEngine
from .failures import REFUSED_STATUSES, HttpError
from .logprobs import TokenLogprobs
from .responses import Completion, ServerInfo, check_finish_reason, check_token_ids, parsing

LARGEST_TOP_K = 4096
"""The largest top-k whose support SGLang tells."""

# What of its settings changes numbers. The rest stays there: it includes keys.
_SETTINGS = (
    "dtype",
    "kv_cache_dtype",
    "quantization",
    "attention_backend",
    "prefill_attention_backend",
    "decode_attention_backend",
    "sampling_backend",
    "device",
    "tp_size",
    "dp_size",
    "ep_size",
    "chunked_prefill_size",
    "max_running_requests",
    "disable_radix_cache",
    "disable_cuda_graph",
    "enable_deterministic_inference",
    "rl_on_policy_target",
    "speculative_algorithm",
)
_BOUND = re.compile(r"logit_bias must has keys in \[0, (\d+)\]")


class SglangServer(ServerEngine):
    name: ClassVar[str] = "sglang"
    capabilities: ClassVar[Capabilities] = Capabilities(
        evidence=("sampled", "topk", "full"), paths=("prefill",), rollout=True
    )
    bytes_per_logprob: ClassVar[int] = 11  # float32 and int32 in base64
    full_hint: ClassVar[str] = "a version of SGLang that tells its vocabulary, as 0.5.23 does"
    processed_hint: ClassVar[str] = f"--top-k between 1 and {LARGEST_TOP_K}"
    lists_given_ids: ClassVar[bool] = True
    max_top_k_with_support: ClassVar[int] = LARGEST_TOP_K
    top_p_first: ClassVar[bool] = True

    async def inspect(self, card: dict[str, Any]) -> ServerInfo:
        """The vocabulary is named in the refusal of a bias for an id that no model has; the model never sees it.

        More log-probs than ids, or an id outside the vocabulary, would end the server.
        """
        info = await self._either("/model_info", "/get_model_info")
        settings = await self._either("/server_info", "/get_server_info")
        vocabulary = None
        try:
            await self._generate(
                np.zeros(1, dtype=np.int32), {"max_new_tokens": 1, "logit_bias": {"2147483647": 0.0}}, {}
            )
        except HttpError as error:
            if error.status not in REFUSED_STATUSES:
                raise
            bound = _BOUND.search(error.message)
            vocabulary = int(bound[1]) + 1 if bound else None
        with parsing(self.options.url, self.name):
            self._weight_version = info.get("weight_version")
            known = {key: settings[key] for key in _SETTINGS if settings.get(key) is not None}
            return ServerInfo(
                settings.get("version"), vocabulary, vocabulary, root=info["model_path"], settings=known
            )

    async def sample(
        self, prompt: np.ndarray, sampling: Sampling, limit: int, seed: int, entries: int
    ) -> Completion:
        parameters = {
            "max_new_tokens": limit,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "sampling_seed": seed,
        }
        with_support = sampling.temperature > 0 and 0 < sampling.top_k <= LARGEST_TOP_K
        wanted: dict[str, Any] = {"return_logprob": True, "top_logprobs_num": entries}
        wanted |= {"return_sampling_mask": True, "sampling_logprobs_mode": "support"} if with_support else {}
        meta = await self._generate(prompt, parameters, wanted)
        with parsing(self.options.url, self.name):
            logprob_T = [logprob for logprob, *_ in meta["output_token_logprobs"]]
            token_ids = [token_id for _, token_id, *_ in meta["output_token_logprobs"]]
            logprobs = TokenLogprobs.from_rows(logprob_T, _rows(meta, "output") if entries else None)
            ids = check_token_ids(self.options.url, token_ids, logprobs, limit, self.vocabulary)
            reason = check_finish_reason(self.options.url, meta["finish_reason"]["type"])
            sampled_from = _support(meta, token_ids) if with_support else None
            return Completion(ids, reason, logprobs, sampled_from, self._policy_version(meta))

    async def force(
        self, prompt: np.ndarray, response: np.ndarray, entries: int, ids: np.ndarray | None
    ) -> TokenLogprobs:
        wanted: dict[str, Any] = {"return_logprob": True, "top_logprobs_num": 0 if ids is not None else entries}
        # The log-prob of a token belongs to the position before it.
        wanted |= {"logprob_start_len": len(prompt) - 1}
        wanted |= {"token_ids_logprob": ids.tolist()} if ids is not None else {}
        meta = await self._generate(np.concatenate([prompt, response]), {"max_new_tokens": 0}, wanted)
        with parsing(self.options.url, self.name):
            scored = meta["input_token_logprobs"][-len(response) :]
            if [token_id for _, token_id, *_ in scored] != response.tolist():
                raise EngineError(f"{self.options.url} scored other tokens than it was given.")
            self._policy_version(meta)
            rows = None
            if ids is not None:
                rows = [_pairs(row) for row in meta["input_token_ids_logprobs"]][-len(response) :]
            elif entries:
                rows = _rows(meta, "input")[-len(response) :]
            return TokenLogprobs.from_rows([logprob for logprob, *_ in scored], rows)

    async def _generate(
        self, prompt: np.ndarray, parameters: dict[str, Any], wanted: dict[str, Any]
    ) -> dict[str, Any]:
        """What /generate tells of its response."""
        compact = ("return_flat_raw_top_logprobs", "return_flat_raw_output_top_logprobs")
        body = {"input_ids": prompt.tolist(), "sampling_params": parameters} | wanted
        if wanted.get("top_logprobs_num"):
            body |= dict.fromkeys((*compact, "return_flat_raw_top_logprobs_b64"), True)
        response = await self.client.post("/generate", body)
        with parsing(self.options.url, self.name):
            return response["meta_info"]

    def _policy_version(self, meta: dict[str, Any]) -> int | None:
        """The number that a trainer gave its weights. Raises `EngineError` where they changed without one."""
        version = meta.get("weight_version")
        if isinstance(version, str) and version.isdigit():
            return int(version)
        if version != self._weight_version:
            raise EngineError(
                f"The weights that {self.options.url} serves changed during the run, from "
                f"{self._weight_version!r} to {version!r}.",
                hint="number the versions of the weights, and they are kept apart",
            )
        return None

    async def _either(self, path: str, older: str) -> dict[str, Any]:
        try:
            return await self.client.get(path)
        except HttpError as error:
            if error.status != 404:
                raise
        try:
            return await self.client.get(older)
        except HttpError as error:
            if error.status != 404:
                raise
            raise EngineError(
                f"{self.options.url} knows no {path} as SGLang does.", hint="openai@URL takes other servers"
            ) from None


def _pairs(row: list[list[Any]] | None) -> tuple[list[int], list[float | None]]:
    """(log-prob, id, text) as ids and log-probs; a position without any is null."""
    return [entry[1] for entry in row or ()], [entry[0] for entry in row or ()]


def _rows(meta: dict[str, Any], side: str) -> list[tuple[Any, Any]]:
    """The most probable ids and their log-probs at each position; older servers list them one by one."""
    key = f"{side}_top_logprobs"
    if f"{key}_shape" not in meta:
        return [_pairs(row) for row in meta[key]]
    ids_TN = _decode(meta[f"{key}_idx_flat_b64"], "<i4", meta[f"{key}_shape"])
    logprobs_TN = _decode(meta[f"{key}_val_flat_b64"], "<f4", meta[f"{key}_shape"])
    return [((), ())] * meta[f"{key}_null_prefix"] + list(zip(ids_TN, logprobs_TN, strict=True))


def _decode(text: str, dtype: str, shape: list[int]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype).reshape(shape)


def _support(meta: dict[str, Any], token_ids: list[int]) -> TokenLogprobs:
    """What was left to draw from at each token, and with which probabilities."""
    if "output_token_sampling_mask" not in meta:
        raise CapabilityError(
            "This version of SGLang does not tell what top-k leaves (return_sampling_mask).",
            hint="--top-k 0, or a newer SGLang",
        )
    rows = list(zip(meta["output_token_sampling_mask"], meta["output_token_sampling_logprobs"], strict=True))
    logprob_T = [logprobs[ids.index(token)] for (ids, logprobs), token in zip(rows, token_ids, strict=True)]
    return TokenLogprobs.from_rows(logprob_T, rows, exhaustive=True)
