"""What all engines behind a URL have in common: a server that is already running samples and scores, we translate.

The worker runs in our own interpreter: it needs numpy and httpx, torch for full distributions, and transformers for
prompts that come as text. Of the model, configuration and tokenizer are read here, the weights are not; before
anything runs, what is served is checked against them.
"""

from __future__ import annotations

import platform
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import CapabilityError, EngineError
from ...records import Observed, Request, Sampling, SequenceRecord, Task
from ..base import Engine, Options
from ..common.checkpoint import (
    Tokenizer,
    check_prompt,
    check_response,
    describe,
    read_config,
    stop_token_ids,
    vocabulary_remarks,
)
from ..common.location import locate
from .capabilities import ServerCapabilities
from .checks import (
    PROBE_ENTRIES,
    check_tokenizer,
    check_vocabulary_size,
    choose_model,
    find_stage,
    max_length,
    probe_prompts,
)
from .failures import HttpError
from .logprobs import TokenLogprobs, observe_entries, observe_full
from .options import ServerOptions
from .responses import Completion, ServerInfo
from .stages import RecordedPolicy, transform_to

if TYPE_CHECKING:
    from .client import Client

_NOT_SERVED = (404, 405)
_REFUSED = re.compile(rb'"success"\s*:\s*false')


class ServerEngine(Engine):
    """An engine that is asked over HTTP. A kind of server is a subclass with the three methods below."""

    options_type: ClassVar[type[Options]] = ServerOptions
    options: ServerOptions
    client: Client
    # What `ServerCapabilities` says of a kind of server.
    bytes_per_logprob: ClassVar[int]
    full_hint: ClassVar[str]
    processed_hint: ClassVar[str]
    cache_reset: ClassVar[str | None] = None
    """Where a server is asked to empty its prefix cache."""
    tokens_sampled_by_score: ClassVar[int] = 0
    """How many a server samples behind those that it scores."""
    lists_given_ids: ClassVar[bool] = False
    max_top_k_with_support: ClassVar[int] = 0
    top_p_first: ClassVar[bool] = False
    """Whether top-p counts the mass of all ids, not of those that top-k leaves."""

    @abstractmethod
    async def inspect(self, card: dict[str, Any]) -> ServerInfo:
        """Ask the server what it is; `card` is its entry of /v1/models for the model."""

    @abstractmethod
    async def sample(
        self, prompt: np.ndarray, sampling: Sampling, limit: int, seed: int, entries: int
    ) -> Completion:
        """A response of at most `limit` tokens, with the log-probs of the `entries` most probable ids of each."""

    @abstractmethod
    async def force(
        self, prompt: np.ndarray, response: np.ndarray, entries: int, ids: np.ndarray | None
    ) -> TokenLogprobs:
        """The raw log-probs of a given response, and those of the `entries` most probable ids, or of given ones."""

    def load(self) -> None:
        from .client import Client
        from .concurrency import RequestLoop

        options = self.options
        directory = locate(self.model, weights=False)
        config = read_config(directory)
        config = config | config.get("text_config", {})
        self._tokenizer = Tokenizer(directory)
        self._stop_ids = stop_token_ids(directory, self._tokenizer)
        self.client = Client(options.url, timeout=options.timeout, retries=options.retries, key_env=options.key_env)
        self._loop = RequestLoop(self.client)
        try:
            self._loop.run(self._inspect(config))
        except BaseException:
            self.close()
            raise
        self._model_facts = self._describe_model(directory, config)

    async def _inspect(self, config: dict[str, Any]) -> None:
        """Find out what is served, and check it against the configuration and the tokenizer here."""
        url, local = self.options.url, self.model
        card, self.served_names = await choose_model(self.client, self.options.model, local)
        self.served_name: str = card["id"]
        self.server_info = await self.inspect(card)
        self.vocabulary = check_vocabulary_size(url, self.server_info.vocabulary, config.get("vocab_size"))
        self._remarks = vocabulary_remarks(self._tokenizer, self.vocabulary)
        self._max_length: int | None = max_length(url, card) or config.get("max_position_embeddings")
        self._tokenizer_checked = await check_tokenizer(self.client, self.served_name, self._tokenizer)
        self._server = ServerCapabilities(
            url=url,
            vocabulary=self.vocabulary,
            stage=await find_stage(self._sample_first, probe_prompts(self._tokenizer, self.vocabulary)),
            max_logprobs=self.server_info.max_logprobs,
            bytes_per_logprob=self.bytes_per_logprob,
            full_hint=self.full_hint,
            processed_hint=self.processed_hint,
            lists_given_ids=self.lists_given_ids,
            max_top_k_with_support=self.max_top_k_with_support,
        )

    def check(self, requests: Sequence[Request], task: Task) -> None:
        """Refuse, by name, what the server cannot take, before it is asked for anything."""
        for request in requests:
            prompt = self._prompt(request)
            if task.kind == "score":
                self._response(request, prompt)

    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Sample; `observed` is the distribution sampled from, `raw` the model's own where both can be had."""
        plan, sampling = self._server.for_rollout(task), task.sampling
        prompts = {request.sequence_id: self._prompt(request) for request in batch}

        async def sample(request: Request) -> Completion:
            prompt = prompts[request.sequence_id]
            left = sampling.max_new_tokens if self._max_length is None else self._max_length - len(prompt)
            state = np.random.SeedSequence([sampling.seed, request.sequence_id]).generate_state(1)
            # Not every server takes more than a positive number of 32 bits.
            seed = int(state[0]) >> 1
            return await self.sample(prompt, sampling, min(sampling.max_new_tokens, left), seed, plan.entries)

        if task.composition.prefix_cache == "cold":
            self._loop.run(self._reset_cache())
        limit = self._server.concurrency(plan, sampling.max_new_tokens, self.options.concurrency)
        for request, completion in self._loop.as_completed(sample, batch, limit):
            observed = [self._observe(policy, completion, request, task) for policy in plan.policies]
            yield self._tokenizer.record(
                request,
                prompts[request.sequence_id],
                completion.token_ids,
                observed[0],
                raw=observed[1] if len(observed) > 1 else None,
                finish_reason=completion.finish_reason,
                policy_version=completion.policy_version,
            )

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Teacher-force; a `raw` policy is the model's own, any other what `task.sampling` makes of it."""
        prompts = {request.sequence_id: self._prompt(request) for request in batch}
        responses = {
            request.sequence_id: self._response(request, prompts[request.sequence_id]) for request in batch
        }
        longest = max(len(prompts[key]) + len(responses[key]) for key in prompts)
        given_ids = task.evidence.level == "topk" and batch[0].observed_ids_TK is not None
        plan = self._server.for_score(task, given_ids=given_ids, tokens=longest)

        async def force(request: Request) -> TokenLogprobs:
            observed_TK = request.observed_ids_TK if plan.by_id else None
            ids = None if observed_TK is None else np.unique(observed_TK[observed_TK >= 0])
            return await self.force(prompts[request.sequence_id], responses[request.sequence_id], plan.entries, ids)

        policy: RecordedPolicy = "raw" if task.policy == "raw" else "processed"
        limit = self._server.concurrency(plan, longest, self.options.concurrency)
        for request, logprobs in self._loop.as_completed(force, batch, limit):
            response = responses[request.sequence_id]
            if plan.entries == self.vocabulary:
                transform = transform_to(policy, "raw", task.sampling, top_p_first=self.top_p_first)
                observed = observe_full(logprobs, response, request, task.evidence, self.vocabulary, transform)
            else:
                observed = observe_entries(logprobs, request, task.evidence)
            yield self._tokenizer.record(request, prompts[request.sequence_id], response, observed)

    def body_bytes(self, tokens: int, entries: int, *, given: int = 0) -> int:
        """The most that an answer of `tokens` tokens with `entries` log-probs each may have, behind `given` tokens.

        Four times what it has with ordinary tokens, and room for what else a server says.
        """
        return (1 << 20) + 64 * (given + tokens) + 4 * self.bytes_per_logprob * tokens * (entries + 1)

    def close(self) -> None:
        """End what is under way, at once."""
        self._loop.close()

    def facts(self) -> dict[str, Any]:
        server_info = self.server_info
        return {
            "engine": self.name,
            "engine_version": server_info.version,
            "model": self._model_facts,
            "tokenizer_sha256": self._tokenizer.sha256,
            "eos_token_ids": self._stop_ids,
            "max_length": self._max_length,
            "settings": asdict(self.options),
            "effective": server_info.settings
            | {
                "served_name": self.served_name,
                "logprobs_stage": self._server.stage,
                "logprobs_cap": server_info.max_logprobs,
                "vocabulary_checked": server_info.vocabulary is not None,
                "tokenizer_checked": self._tokenizer_checked,
            },
            # Of the client: a server does not tell what it runs on.
            "environment": {"python": platform.python_version()},
            "notes": self._remarks,
        }

    def _observe(self, policy: RecordedPolicy, completion: Completion, request: Request, task: Task) -> Observed:
        """The evidence of a policy, from what the server lists or from full distributions."""
        token_T, logprobs, transform = completion.token_ids, completion.logprobs, None
        if policy == "processed" and task.sampling.temperature == 0:
            logprobs = TokenLogprobs.point_mass(token_T)
        elif policy == "processed" and completion.sampled_from is not None:
            logprobs = completion.sampled_from
        elif task.sampling.transforms and self._server.stage is not None:
            transform = transform_to(policy, self._server.stage, task.sampling, top_p_first=self.top_p_first)
        if transform is None and task.evidence.level != "full":
            return observe_entries(logprobs, request, task.evidence)
        return observe_full(logprobs, token_T, request, task.evidence, self.vocabulary, transform)

    def _prompt(self, request: Request) -> np.ndarray:
        prompt = self._tokenizer.encode(request)
        check_prompt(request.prompt_id, prompt, self.vocabulary, self._max_length, self._tokenizer.size)
        return prompt

    def _response(self, request: Request, prompt: np.ndarray) -> np.ndarray:
        longest = None if self._max_length is None else self._max_length - self.tokens_sampled_by_score
        hint = "start the server with a larger maximum length, or sample shorter responses"
        return check_response(request, prompt, self.vocabulary, longest, limited_by="the server", hint=hint)

    async def _sample_first(self, prompt: np.ndarray, sampling: Sampling) -> TokenLogprobs:
        return (await self.sample(prompt, sampling, 1, 0, min(PROBE_ENTRIES, self.vocabulary))).logprobs

    async def _reset_cache(self) -> None:
        """Raises `CapabilityError` for a server that is not asked so, `EngineError` for one that is busy."""
        assert self.cache_reset is not None, "a capability that it does not have"
        try:
            answer = await self.client.command(self.cache_reset)
        except HttpError as error:
            if error.status not in _NOT_SERVED:
                raise
            raise CapabilityError(
                f"{self.options.url} does not serve {self.cache_reset}, which resets its prefix cache.",
                hint="vLLM does where VLLM_SERVER_DEV_MODE=1 is set",
            ) from None
        if _REFUSED.search(answer):
            raise EngineError(
                f"{self.options.url} cannot reset its prefix cache now.", hint="try again when nobody else uses it"
            )

    def _describe_model(self, directory: Path, config: dict[str, Any]) -> dict[str, Any]:
        """The `model` entry of a manifest. Its files are known where the server read them from this directory."""
        root = self.server_info.root
        read_here = root is not None and Path(root).is_dir() and Path(root).resolve() == directory.resolve()
        if read_here and any(directory.glob("*.safetensors")):
            return describe(self.model, directory) | {"vocabulary_size": self.vocabulary}
        return {
            "name": self.served_name,
            "path": root,
            "architecture": (config.get("architectures") or [config.get("model_type")])[0],
            "weights_sha256": None,
            "vocabulary_size": self.vocabulary,
            "dtype_stored": None,
            "config": None,
            "generation_config": None,
            "files": None,
            "chat_template_sha256": None,
        }
