"""What engines have in common that load a checkpoint from disk and see all of its logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...records import Request, Sampling, Task
from ..base import Capabilities, Engine
from .adapter import Adapter, split_adapter
from .checkpoint import Tokenizer, check_prompt, describe, stop_token_ids, vocabulary_remarks
from .location import locate
from .provenance import torch_environment
from .tokenized import ScoreRequest, TokenizedRequest


def describe_model(
    model: str, adapter: str, trust_remote_code: bool, *, download: bool = True
) -> tuple[Path, Adapter | None, dict[str, Any]]:
    """The base's directory, the adapter, and the `model` entry of a manifest, all of it from their files.

    Weights are hashed, at the speed of the disk. Raises `ModelError`.
    """
    base, found = split_adapter(model, adapter, trust_remote_code, download=download)
    directory = locate(base, trust_remote_code, download=download)
    facts = describe(base, directory)
    if found is not None:
        facts["adapter"] = found.facts()
    return directory, found, facts


class CheckpointEngine(Engine):
    """`load` calls `_open_checkpoint`, and `_set_limits` once the model is there."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        evidence=("sampled", "topk", "full"), paths=("decode", "prefill")
    )

    def _open_checkpoint(self) -> Path:
        """Describe model and adapter, read the tokenizer; returns the base's directory. Raises `ModelError`."""
        trust = self.options.trust_remote_code
        directory, self._adapter, self._model_facts = describe_model(self.model, self.options.adapter, trust)
        self._directory = directory
        self._tokenizer = Tokenizer(directory, trust)
        self._stop_ids = stop_token_ids(directory, self._tokenizer)
        return directory

    def _set_limits(self, vocabulary_size: int, max_length: int | None, longest_prompt: int | None = None) -> None:
        """What the engine can run: token ids, tokens of a sequence, and of a prompt with one token to follow."""
        self._vocabulary_size, self._max_length = vocabulary_size, max_length
        self._longest_prompt = max_length if longest_prompt is None else longest_prompt
        self._remarks = vocabulary_remarks(self._tokenizer, vocabulary_size)

    def check(self, requests: Sequence[Request], task: Task) -> None:
        """Refuse, by name, what cannot be run: prompts before anything is sampled, responses before a score."""
        if task.kind == "rollout":
            self._with_prompts(requests)
        else:
            self.to_score(requests, task)

    @abstractmethod
    def _check_response(self, request: TokenizedRequest, task: Task) -> np.ndarray:
        """`checkpoint.check_response` with the limit of this engine along the task's path, and what sets it."""

    def _with_prompts(self, requests: Sequence[Request]) -> list[TokenizedRequest]:
        """The requests, with their prompts as token ids. Raises `PromptsError` for one that cannot be run."""
        prompts = [self._tokenizer.encode(request) for request in requests]
        for request, prompt in zip(requests, prompts, strict=True):
            check_prompt(
                request.prompt_id, prompt, self._vocabulary_size, self._longest_prompt, self._tokenizer.size
            )
        return [
            TokenizedRequest(**vars(request) | {"prompt_token_ids": prompt})
            for request, prompt in zip(requests, prompts, strict=True)
        ]

    def to_score(self, requests: Sequence[Request], task: Task) -> list[ScoreRequest]:
        """As `_with_prompts`, with their responses, checked by `_check_response`."""
        return [
            ScoreRequest(**vars(request) | {"response_token_ids": self._check_response(request, task)})
            for request in self._with_prompts(requests)
        ]

    def _longest_response(self, request: TokenizedRequest, sampling: Sampling) -> int:
        """Tokens that may be sampled: what is asked for, or what the longest sequence leaves."""
        if self._max_length is None:
            return sampling.max_new_tokens
        return min(sampling.max_new_tokens, self._max_length - len(request.prompt_token_ids))

    def _facts(self, version: str, effective: dict[str, Any], device_type: str) -> dict[str, Any]:
        """The facts of `base.Engine`."""
        return {
            "engine": self.name,
            "engine_version": version,
            "model": self._model_facts | {"vocabulary_size": self._vocabulary_size},
            "tokenizer_sha256": self._tokenizer.sha256,
            "eos_token_ids": self._stop_ids,
            "max_length": self._max_length,
            "settings": asdict(self.options),
            "effective": effective,
            "environment": torch_environment(device_type, "transformers"),
            "notes": self._remarks,
        }
