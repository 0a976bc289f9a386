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
from .logprobs import LEAST_MASS, TokenLogprobs
from .responses import Completion, ServerInfo, check_completion, check_counts, check_finish_reason, parsing
from .values import UnusableValue, check_same_length, integer, stated_text
from .values import token_ids as checked_ids

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
_BOUND = re.compile(r"logit_bias must has keys in \[0, ([0-9]{1,9})\]")
_VERSION = re.compile("[0-9]{1,18}")
_BYTES_PER_GIVEN_ID = 40


class SglangServer(ServerEngine):
    name: ClassVar[str] = "sglang"
    capabilities: ClassVar[Capabilities] = Capabilities(
        evidence=("sampled", "topk", "full"), paths=("prefill",), prefix_caches=("cold",), rollout=True
    )
    cache_reset: ClassVar[str | None] = "/flush_cache"
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
                np.zeros(1, dtype=np.int32),
                {"max_new_tokens": 1, "logit_bias": {"2147483647": 0.0}},
                {},
                self.body_bytes(1, 0),
            )
        except HttpError as error:
            if error.status not in REFUSED_STATUSES:
                raise
            bound = _BOUND.search(error.message)
            vocabulary = int(bound[1]) + 1 if bound else None
        with parsing(self.options.url, self.name):
            self._weight_version = stated_text(info.get("weight_version"), "the version of its weights")
            return ServerInfo(
                stated_text(settings.get("version"), "its version"),
                vocabulary,
                vocabulary,
                root=stated_text(info["model_path"], "the model's path"),
                settings=_stated_settings(settings),
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
        listed = max(entries, sampling.top_k if with_support else 0)
        most_bytes = self.body_bytes(limit, listed, given=len(prompt))
        response = await self._generate(prompt, parameters, wanted, most_bytes)
        with parsing(self.options.url, self.name):
            meta = response["meta_info"]
            logprob_T, token_ids = _tokens(meta["output_token_logprobs"])
            check_counts(meta, prompt=len(prompt), sampled=len(token_ids))
            if response.get("output_ids", token_ids) != token_ids:
                raise UnusableValue("contradicts itself: output_ids are others than output_token_logprobs")
            rows = _rows(meta, "output", len(token_ids), entries) if entries else None
            logprobs = TokenLogprobs.from_rows(logprob_T, rows, widest=entries)
            ids = check_completion(
                self.options.url, token_ids, logprobs, limit, self.vocabulary, least=min(entries, self.vocabulary)
            )
            reason = check_finish_reason(self.options.url, meta["finish_reason"]["type"])
            sampled_from = _support(meta, ids, sampling.top_k, self.vocabulary) if with_support else None
            return Completion(ids, reason, logprobs, sampled_from, self._policy_version(meta))

    async def force(
        self, prompt: np.ndarray, response: np.ndarray, entries: int, ids: np.ndarray | None
    ) -> TokenLogprobs:
        wanted: dict[str, Any] = {"return_logprob": True, "top_logprobs_num": 0 if ids is not None else entries}
        # The log-prob of a token belongs to the position before it.
        wanted |= {"logprob_start_len": len(prompt) - 1}
        wanted |= {"token_ids_logprob": ids.tolist()} if ids is not None else {}
        given = np.concatenate([prompt, response])
        listed = max(entries, 0 if ids is None else len(ids) * _BYTES_PER_GIVEN_ID // self.bytes_per_logprob)
        most_bytes = self.body_bytes(len(response) + 1, listed, given=len(given))
        answer = await self._generate(given, {"max_new_tokens": 0}, wanted, most_bytes)
        with parsing(self.options.url, self.name):
            meta = answer["meta_info"]
            check_counts(meta, prompt=len(given), sampled=None)
            logprob_T, token_ids = _tokens(meta["input_token_logprobs"])
            if token_ids[-len(response) :] != response.tolist():
                raise EngineError(f"{self.options.url} scored other tokens than it was given.")
            self._policy_version(meta)
            rows = None
            if ids is not None:
                check_same_length(
                    "positions", tokens=token_ids, input_token_ids_logprobs=meta["input_token_ids_logprobs"]
                )
                rows = [_pairs(row) for row in meta["input_token_ids_logprobs"]][-len(response) :]
            elif entries:
                rows = _rows(meta, "input", len(token_ids), entries)[-len(response) :]
            widest = entries if ids is None else len(ids)
            logprobs = TokenLogprobs.from_rows(logprob_T[-len(response) :], rows, widest=widest)
            logprobs.check(response, self.vocabulary, most_probable=ids is None, least=min(widest, self.vocabulary))
            return logprobs

    async def _generate(
        self, prompt: np.ndarray, parameters: dict[str, Any], wanted: dict[str, Any], most_bytes: int
    ) -> dict[str, Any]:
        """What /generate answers, in at most `most_bytes`."""
        compact = ("return_flat_raw_top_logprobs", "return_flat_raw_output_top_logprobs")
        body = {"input_ids": prompt.tolist(), "sampling_params": parameters} | wanted
        if wanted.get("top_logprobs_num"):
            body |= dict.fromkeys((*compact, "return_flat_raw_top_logprobs_b64"), True)
        response = await self.client.post("/generate", body, most_bytes=most_bytes)
        with parsing(self.options.url, self.name):
            if not isinstance(response, dict):
                raise UnusableValue("answers another number of responses than the one that it was asked for")
            return response

    def _policy_version(self, meta: dict[str, Any]) -> int | None:
        """The number that a trainer gave its weights. Raises `EngineError` where they changed without one."""
        version = stated_text(meta.get("weight_version"), "the version of its weights")
        if version is not None and _VERSION.fullmatch(version):
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


def _stated_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Those that change numbers."""
    return {key: _stated(settings[key], key) for key in _SETTINGS if settings.get(key) is not None}


def _stated(value: Any, key: str) -> Any:
    if isinstance(value, bool):
        return value
    return integer(value, key, least=-1) if isinstance(value, int) else stated_text(value, key)


def _tokens(listed: list[list[Any]]) -> tuple[list[float | None], list[int]]:
    """Of (log-prob, id, text) at each position, the log-probs and the ids."""
    ids = checked_ids([token_id for _, token_id, *_ in listed])
    return [logprob for logprob, *_ in listed], list(ids)


def _pairs(row: list[list[Any]] | None) -> tuple[list[int], list[float | None]]:
    """(log-prob, id, text) as ids and log-probs; a position without any is null."""
    return [entry[1] for entry in row or ()], [entry[0] for entry in row or ()]


def _rows(meta: dict[str, Any], side: str, positions: int, entries: int) -> list[tuple[Any, Any]]:
    """The most probable ids and their log-probs at each position; older servers list them one by one."""
    key = f"{side}_top_logprobs"
    if f"{key}_shape" not in meta:
        check_same_length("positions", tokens=range(positions), lists=meta[key])
        return [_pairs(row) for row in meta[key]]
    # Checked before anything of that size is made.
    prefix = integer(meta[f"{key}_null_prefix"], "a number of positions", most=positions)
    rows, width = meta[f"{key}_shape"]
    shape = (
        integer(rows, "a number of positions", most=positions),
        integer(width, "a number of ids", most=entries),
    )
    if prefix + shape[0] != positions:
        raise UnusableValue(f"contradicts itself: it lists ids at {prefix + shape[0]} of {positions} positions")
    ids_TN = _decode(meta[f"{key}_idx_flat_b64"], "<i4", shape)
    logprobs_TN = _decode(meta[f"{key}_val_flat_b64"], "<f4", shape)
    return [([], [])] * prefix + list(zip(ids_TN, logprobs_TN, strict=True))


def _decode(text: str, dtype: str, shape: tuple[int, int]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype).reshape(shape)


def _support(meta: dict[str, Any], token_T: np.ndarray, top_k: int, vocabulary: int) -> TokenLogprobs:
    """What was left to draw from at each token, and with which probabilities."""
    if "output_token_sampling_mask" not in meta:
        raise CapabilityError(
            "This version of SGLang does not tell what top-k leaves (return_sampling_mask).",
            hint="--top-k 0, or a newer SGLang",
        )
    masks, logprobs = meta["output_token_sampling_mask"], meta["output_token_sampling_logprobs"]
    check_same_length("what top-k leaves", tokens=token_T, masks=masks, logprobs=logprobs)
    rows = list(zip(masks, logprobs, strict=True))
    if not all(token in ids for token, (ids, _) in zip(token_T.tolist(), rows, strict=True)):
        raise UnusableValue("contradicts itself: it sampled a token that its own top-k leaves out")
    logprob_T = [logprobs[ids.index(token)] for token, (ids, logprobs) in zip(token_T.tolist(), rows, strict=True)]
    support = TokenLogprobs.from_rows(logprob_T, rows, exhaustive=True, widest=top_k)
    support.check(token_T, vocabulary, most_probable=False)
    if (np.exp(support.logprobs_TN).sum(axis=1, where=support.ids_TN >= 0) < LEAST_MASS).any():
        raise UnusableValue("lists what top-k leaves, and its probabilities add up to less than 1")
    return support
