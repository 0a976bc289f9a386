"""What all engines behind a URL have in common: a server that is already running samples and scores, we translate.

The worker runs in our own interpreter: it needs the standard library and numpy, torch for whole distributions, and
transformers for prompts that come as text. Of the model, configuration and tokenizer are read here, the weights are
not; before anything runs, what is served is checked against them.
"""

from __future__ import annotations

import platform
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from ...errors import SpecError
from ...records import Observed, Policy, Request, Sampling, SequenceRecord, Task
from ..base import Engine, Options
from ..common.checkpoint import (
    Tokenizer,
    check_prompt,
    check_response,
    check_vocabulary,
    describe,
    locate,
    read_config,
    stop_token_ids,
)
from .checks import PROBE_ENTRIES, check_tokenizer, check_vocabulary_size, choose_model, find_stage, probe_prompts
from .client import Client, check_url
from .listed import Listed, observe, observe_whole, point_mass, transform_to
from .responses import Answer, Served
from .visibility import Plan, Sight

T = TypeVar("T")


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ServerOptions(Options):
    """The keys of a SPEC with a URL."""

    url: str = _option("", "the server, written behind the engine's name: vllm@http://127.0.0.1:8000")
    model: str = _option("", "served name of the model; empty: the one named like --model, or the only one")
    concurrency: int = _option(16, "requests under way at the same time")
    batch_size: int = _option(
        64, "sequences handed over before the next ones are; all of their answers are awaited"
    )
    timeout: float = _option(600.0, "seconds for one answer")
    retries: int = _option(5, "further attempts where the server is busy, broken or away")
    key_env: str = _option("MISMATCHSCOPE_API_KEY", "environment variable that holds the bearer key")

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url))
        for key, least in (("concurrency", 1), ("batch_size", 1), ("timeout", 0.001), ("retries", 0)):
            if getattr(self, key) < least:
                raise SpecError(f"{key}={getattr(self, key)} is below {least}.", hint=f"{key}={least}")


class ServerEngine(Engine):
    """An engine that is asked over HTTP. A kind of server is a subclass with the three methods below."""

    options_type: ClassVar[type[Options]] = ServerOptions
    options: ServerOptions
    # What `Sight` says of a kind of server.
    entry_bytes: ClassVar[int]
    whole_remedy: ClassVar[str]
    draw_remedy: ClassVar[str]
    drawn_by_a_score: ClassVar[int] = 0
    """Tokens that a server draws behind those that it scores."""
    lists_given_ids: ClassVar[bool] = False
    tells_draw_to_top_k: ClassVar[int] = 0
    top_p_first: ClassVar[bool] = False
    """Whether top-p counts the mass of all ids, not of those that top-k leaves."""

    @abstractmethod
    def inspect(self, card: dict[str, Any]) -> Served:
        """Ask the server what it is; `card` is its entry of /v1/models for the model."""

    @abstractmethod
    def sample(self, prompt: np.ndarray, sampling: Sampling, limit: int, seed: int, entries: int) -> Answer:
        """One response of at most `limit` tokens, with the log-probs of the `entries` most probable ids of each."""

    @abstractmethod
    def force(self, prompt: np.ndarray, response: np.ndarray, entries: int, ids: np.ndarray | None) -> Listed:
        """The raw log-probs of a given response, and those of the `entries` most probable ids, or of given ones."""

    @property
    def batch_size(self) -> int:
        return self.options.batch_size

    def load(self) -> None:
        options = self.options
        directory = locate(self.model, weights=False)
        config = read_config(directory)
        config = config | config.get("text_config", {})
        self._tokenizer = Tokenizer(directory)
        self._stop_ids = stop_token_ids(directory, self._tokenizer)
        self.client = Client(options.url, timeout=options.timeout, retries=options.retries, key_env=options.key_env)
        card, self.served_names = choose_model(self.client, options.model, self.model)
        self.served_name: str = card["id"]
        self.served = self.inspect(card)
        self.vocabulary = check_vocabulary_size(options.url, self.served.vocabulary, config.get("vocab_size"))
        check_vocabulary(self._tokenizer, self.vocabulary)
        self._max_length: int | None = card.get("max_model_len") or config.get("max_position_embeddings")
        self._tokenizer_checked = check_tokenizer(self.client, self.served_name, self._tokenizer)
        self._model_facts = self._describe_model(directory, config)
        self._sight = Sight(
            url=options.url,
            vocabulary=self.vocabulary,
            stage=find_stage(self._probe, probe_prompts(self._tokenizer, self.vocabulary)),
            cap=self.served.cap,
            entry_bytes=self.entry_bytes,
            whole_remedy=self.whole_remedy,
            draw_remedy=self.draw_remedy,
            lists_given_ids=self.lists_given_ids,
            tells_draw_to_top_k=self.tells_draw_to_top_k,
        )

    def check(self, requests: Sequence[Request], task: Task) -> None:
        """Refuse, by name, what the server cannot take, before it is asked for anything."""
        for request in requests:
            prompt = self._prompt(request)
            if task.kind == "score":
                self._response(request, prompt)

    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Sample; `observed` is the distribution sampled from, `raw` the model's own where both can be had."""
        plan, sampling = self._sight.for_rollout(task), task.sampling
        prompts = {request.sequence_id: self._prompt(request) for request in batch}

        def ask(request: Request) -> Answer:
            prompt = prompts[request.sequence_id]
            left = sampling.max_new_tokens if self._max_length is None else self._max_length - len(prompt)
            state = np.random.SeedSequence([sampling.seed, request.sequence_id]).generate_state(1)
            # Not every server takes more than a positive number of 32 bits.
            seed = int(state[0]) >> 1
            return self.sample(prompt, sampling, min(sampling.max_new_tokens, left), seed, plan.entries)

        for request, answer in self._ask_all(ask, batch, plan, sampling.max_new_tokens):
            views = [self._view(policy, answer, request, task) for policy in plan.policies]
            yield self._tokenizer.record(
                request,
                prompts[request.sequence_id],
                answer.token_ids,
                views[0],
                raw=views[1] if len(views) > 1 else None,
                finish_reason=answer.finish_reason,
                policy_version=answer.policy_version,
            )

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Teacher-force; a `raw` policy is the model's own, any other what `task.sampling` makes of it."""
        prompts = {request.sequence_id: self._prompt(request) for request in batch}
        responses = {
            request.sequence_id: self._response(request, prompts[request.sequence_id]) for request in batch
        }
        longest = max(len(prompts[key]) + len(responses[key]) for key in prompts)
        given_ids = task.evidence.level == "topk" and batch[0].observed_ids_TK is not None
        plan = self._sight.for_score(task, given_ids=given_ids, tokens=longest)

        def ask(request: Request) -> Listed:
            ids = np.unique(request.observed_ids_TK[request.observed_ids_TK >= 0]) if plan.by_id else None
            return self.force(prompts[request.sequence_id], responses[request.sequence_id], plan.entries, ids)

        policy: Policy = "raw" if task.policy == "raw" else "processed"
        for request, listed in self._ask_all(ask, batch, plan, longest):
            response = responses[request.sequence_id]
            if plan.entries == self.vocabulary:
                transform = transform_to(policy, "raw", task.sampling, top_p_first=self.top_p_first)
                seen = observe_whole(listed, response, request, task.evidence, self.vocabulary, transform)
            else:
                seen = observe(listed, request, task.evidence)
            yield self._tokenizer.record(request, prompts[request.sequence_id], response, seen)

    def close(self) -> None:
        self.client.close()

    def facts(self) -> dict[str, Any]:
        served = self.served
        return {
            "engine": self.name,
            "engine_version": served.version,
            "model": self._model_facts,
            "tokenizer_sha256": self._tokenizer.sha256,
            "eos_token_ids": self._stop_ids,
            "max_length": self._max_length,
            "settings": asdict(self.options),
            "effective": served.settings
            | {
                "served_name": self.served_name,
                "logprobs_stage": self._sight.stage,
                "logprobs_cap": served.cap,
                "vocabulary_checked": served.vocabulary is not None,
                "tokenizer_checked": self._tokenizer_checked,
            },
            # Of the client: a server does not tell what it runs on.
            "environment": {"python": platform.python_version()},
        }

    def _ask_all(
        self, ask: Callable[[Request], T], batch: Sequence[Request], plan: Plan, tokens: int
    ) -> Iterator[tuple[Request, T]]:
        """Each request with its answer, as they come."""
        pool = ThreadPoolExecutor(self._sight.concurrency(plan, tokens, self.options.concurrency))
        futures = {pool.submit(ask, request): request for request in batch}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            self.client.close()  # or its threads would go on waiting and retrying
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _view(self, policy: Policy, answer: Answer, request: Request, task: Task) -> Observed:
        listed, transform = answer.listed, None
        if policy == "processed" and task.sampling.temperature == 0:
            listed = point_mass(answer.token_ids)
        elif policy == "processed" and answer.drawn_from is not None:
            listed = answer.drawn_from
        elif task.sampling.transforms:
            transform = transform_to(policy, self._sight.stage, task.sampling, top_p_first=self.top_p_first)
        if transform is None and task.evidence.level != "full":
            return observe(listed, request, task.evidence)
        return observe_whole(listed, answer.token_ids, request, task.evidence, self.vocabulary, transform)

    def _prompt(self, request: Request) -> np.ndarray:
        prompt = self._tokenizer.encode(request)
        check_prompt(request.prompt_id, prompt, self.vocabulary, self._max_length)
        return prompt

    def _response(self, request: Request, prompt: np.ndarray) -> np.ndarray:
        longest = None if self._max_length is None else self._max_length - self.drawn_by_a_score
        hint = "start the server with a larger maximum length, or sample shorter responses"
        return check_response(request, prompt, self.vocabulary, longest, taker="the server", hint=hint)

    def _probe(self, prompt: np.ndarray, sampling: Sampling) -> Listed:
        return self.sample(prompt, sampling, 1, 0, min(PROBE_ENTRIES, self.vocabulary)).listed

    def _describe_model(self, directory: Path, config: dict[str, Any]) -> dict[str, Any]:
        """The `model` entry of a manifest. The weights are known where the server read them from this directory."""
        root = self.served.root
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
        }
