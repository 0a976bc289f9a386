"""The engine `transformers`: the forward as RL trainers run it, and a sampler on the same model.

Prefill (`score`) takes the precision, attention, padding and head that trainers use; decoding (`rollout`, and
`score` along the decode path) goes through the key-value cache one token at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ...errors import EngineError, SpecError
from ...records import Observed, Request, SequenceRecord, Task
from ..base import Capabilities, Engine, Options
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
from ..common.provenance import torch_environment

if TYPE_CHECKING:
    from torch import Tensor


_SMALL_MODEL = 50_000_000
"""Parameters below which threads wait for each other longer than they compute, the more so on a busy machine."""


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TransformersOptions(Options):
    """The keys of a `transformers` SPEC."""

    dtype: Literal["bfloat16", "float16", "float32", "autocast"] = _option(
        "bfloat16", "precision of the forward; autocast: bfloat16 autocast over float32 master weights"
    )
    lm_head: Literal["model", "float32"] = _option("model", "precision of the LM head: the model's, or float32")
    attn: str = _option("sdpa", "attention: eager, sdpa, flex, or another name that transformers knows")
    padding: Literal["right", "left", "packed"] = _option(
        "right", "how a prefill micro-batch is laid out; packed: one row, positions restart at every sequence"
    )
    batch_size: int = _option(32, "sequences in a batch, or in a micro-batch of the prefill")
    order: Literal["given", "length"] = _option("given", "how batches are filled; length: the longest first")
    device: str = _option("auto", "auto, cpu, cuda, cuda:0 …")
    device_map: str = _option("", "auto: spread a model over all devices (needs accelerate)")
    compile: bool = _option(False, "torch.compile the backbone")
    train_mode: bool = _option(False, "prefill in train mode with gradients, as the training forward runs")
    gradient_checkpointing: bool = _option(False, "recompute activations as in training; needs train_mode")
    logprob_chunk: int = _option(1024, "positions whose logits exist at the same time in a prefill; 0: all")
    threads: int = _option(0, "CPU threads of torch; 0: one for a small model, else torch decides")
    deterministic: bool = _option(False, "torch.use_deterministic_algorithms")
    trust_remote_code: bool = _option(False, "run the Python code that a model brings along")

    def __post_init__(self) -> None:
        for key, least in (("batch_size", 1), ("logprob_chunk", 0), ("threads", 0)):
            if getattr(self, key) < least:
                raise SpecError(
                    f"transformers: {key}={getattr(self, key)} is below {least}.", hint=f"{key}={least}"
                )
        if self.gradient_checkpointing and not self.train_mode:
            raise SpecError(
                "transformers: gradient_checkpointing acts in train mode alone.",
                hint="gradient_checkpointing=true,train_mode=true",
            )


class TransformersEngine(Engine):
    name: ClassVar[str] = "transformers"
    options_type: ClassVar[type[Options]] = TransformersOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        evidence=("sampled", "topk", "full"), paths=("decode", "prefill"), rollout=True
    )
    options: TransformersOptions

    @property
    def batch_size(self) -> int:
        return self.options.batch_size

    @property
    def order(self) -> Literal["given", "length"]:
        return self.options.order

    def load(self) -> None:
        import torch

        from .causal_lm import CausalLM

        if self.options.threads:
            torch.set_num_threads(self.options.threads)
        if self.options.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
            torch.use_deterministic_algorithms(True, warn_only=True)
        directory = locate(self.model, self.options.trust_remote_code)
        self._model_facts = describe(self.model, directory)
        self._tokenizer = Tokenizer(directory, self.options.trust_remote_code)
        with self._memory_errors():
            self._lm = CausalLM(directory, self.options)
        if not self.options.threads and self._lm.parameters < _SMALL_MODEL:
            torch.set_num_threads(1)
        check_vocabulary(self._tokenizer, self._lm.vocabulary_size)
        self._stop_ids = stop_token_ids(directory, self._tokenizer)
        config = read_config(directory)
        self._max_length: int | None = config.get("text_config", config).get("max_position_embeddings")

    def check(self, requests: Sequence[Request], task: Task) -> None:
        prompts = self._prompts(requests)
        if task.kind == "score":
            for request, prompt in zip(requests, prompts, strict=True):
                self._response(request, prompt)

    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Sample; `observed` is the distribution sampled from, `raw` the model's own where that is another one."""
        import torch

        from ..common.capture import LogitRange, Recorder, log_softmax
        from ..common.sampling import draw, process_logits, uniforms
        from .decoding import decode

        sampling = task.sampling
        prompts = self._prompts(batch)
        limit_B = np.array([self._longest_response(prompt, sampling.max_new_tokens) for prompt in prompts])
        token_BT = np.zeros((len(batch), limit_B.max()), dtype=np.int32)
        uniform_BT = uniforms(sampling.seed, [request.sequence_id for request in batch], limit_B.max())
        observed = Recorder(task.evidence, batch, limit_B.max())
        raw = Recorder(task.evidence, batch, limit_B.max()) if sampling.transforms else None
        logit_range = LogitRange(len(batch))

        def choose(rows_B: np.ndarray, position: int, logits_BV: Tensor) -> tuple[Tensor, np.ndarray]:
            logit_range.add(rows_B, logits_BV)
            logp_BV = log_softmax(process_logits(logits_BV, sampling))
            token_B = draw(logp_BV, torch.from_numpy(uniform_BT[rows_B, position]).to(logp_BV.device))
            position_B = np.full_like(rows_B, position)
            observed.add(rows_B, position_B, logp_BV, token_B)
            if raw is not None:
                raw.add(rows_B, position_B, log_softmax(logits_BV), token_B)
            token_BT[rows_B, position] = token_B.cpu().numpy()
            return token_B, self._stops(token_BT[rows_B, position]) | (position + 1 >= limit_B[rows_B])

        with self._memory_errors():
            for row, length in decode(self._lm, prompts, choose):
                response = token_BT[row, :length].copy()
                seen = observed.finish(row, length)
                record = self._record(batch[row], prompts[row], response, seen, logit_range.largest_S[row])
                record.finish_reason = "stop" if self._stops(response[-1:])[0] else "length"
                record.raw = raw.finish(row, length) if raw is not None else None
                yield record

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Teacher-force; a `raw` policy is the model's own, any other what `task.sampling` makes of it."""
        prompts = self._prompts(batch)
        responses = [self._response(request, prompt) for request, prompt in zip(batch, prompts, strict=True)]
        run = {"decode": self._score_decode, "prefill": self._score_prefill}[task.path]
        with self._memory_errors():
            yield from run(batch, task, prompts, responses)

    def _score_decode(
        self, batch: Sequence[Request], task: Task, prompts: list[np.ndarray], responses: list[np.ndarray]
    ) -> Iterator[SequenceRecord]:
        import torch

        from ..common.capture import LogitRange, Recorder, log_softmax
        from .decoding import decode

        length_B = np.array([len(response) for response in responses])
        token_BT = np.zeros((len(batch), length_B.max()), dtype=np.int64)
        for row, response in enumerate(responses):
            token_BT[row, : len(response)] = response
        recorder = Recorder(task.evidence, batch, length_B.max())
        logit_range = LogitRange(len(batch))

        def choose(rows_B: np.ndarray, position: int, logits_BV: Tensor) -> tuple[Tensor, np.ndarray]:
            token_B = torch.from_numpy(token_BT[rows_B, position]).to(logits_BV.device)
            logit_range.add(rows_B, logits_BV)
            logp_BV = log_softmax(_scored_logits(logits_BV, task))
            recorder.add(rows_B, np.full_like(rows_B, position), logp_BV, token_B)
            return token_B, position + 1 >= length_B[rows_B]

        for row, length in decode(self._lm, prompts, choose):
            seen = recorder.finish(row, length)
            yield self._record(batch[row], prompts[row], responses[row], seen, logit_range.largest_S[row])

    def _score_prefill(
        self, batch: Sequence[Request], task: Task, prompts: list[np.ndarray], responses: list[np.ndarray]
    ) -> Iterator[SequenceRecord]:
        import torch

        from ..common.capture import LogitRange, Recorder, log_softmax
        from .prefilling import lay_out, prefill

        layout = lay_out(prompts, responses, self.options.padding)
        token_N = torch.from_numpy(np.concatenate(responses).astype(np.int64)).to(self._lm.head_device)
        recorder = Recorder(task.evidence, batch, max(len(response) for response in responses))
        logit_range = LogitRange(len(batch))
        for part, logits_NV in prefill(self._lm, layout, self.options.logprob_chunk):
            logit_range.add(layout.sequence_N[part], logits_NV)
            logp_NV = log_softmax(_scored_logits(logits_NV, task))
            recorder.add(layout.sequence_N[part], layout.position_N[part], logp_NV, token_N[part])
        for row, (request, prompt, response) in enumerate(zip(batch, prompts, responses, strict=True)):
            seen = recorder.finish(row, len(response))
            yield self._record(request, prompt, response, seen, logit_range.largest_S[row])

    def _record(
        self, request: Request, prompt: np.ndarray, response: np.ndarray, observed: Observed, largest_logit: float
    ) -> SequenceRecord:
        return self._tokenizer.record(request, prompt, response, observed, max_abs_logit=float(largest_logit))

    def _prompts(self, batch: Sequence[Request]) -> list[np.ndarray]:
        prompts = [self._tokenizer.encode(request) for request in batch]
        for request, prompt in zip(batch, prompts, strict=True):
            check_prompt(request.prompt_id, prompt, self._lm.vocabulary_size, self._max_length)
        return prompts

    def _response(self, request: Request, prompt: np.ndarray) -> np.ndarray:
        hint = "score a trace with the model that sampled it"
        vocabulary_size = self._lm.vocabulary_size
        return check_response(request, prompt, vocabulary_size, self._max_length, taker="the model", hint=hint)

    def _longest_response(self, prompt: np.ndarray, max_new_tokens: int) -> int:
        return max_new_tokens if self._max_length is None else min(max_new_tokens, self._max_length - len(prompt))

    def _stops(self, token_N: np.ndarray) -> np.ndarray:
        return np.isin(token_N, self._stop_ids)

    def facts(self) -> dict[str, Any]:
        import torch

        network = self._lm.network
        parameters = {str(parameter.dtype).removeprefix("torch.") for parameter in network.parameters()}
        effective = {
            "dtype": "autocast" if self._lm.autocast else "+".join(sorted(parameters)),
            "lm_head": str(self._lm.head_dtype).removeprefix("torch."),
            "attn": network.config._attn_implementation,
            "padding": self.options.padding,
            "batch_size": self.options.batch_size,
            "order": self.options.order,
            "device": str(self._lm.device),
            "device_map": {name: str(place) for name, place in getattr(network, "hf_device_map", {}).items()},
            "compile": self._lm.compiled,
            "train_mode": self.options.train_mode,
            "gradient_checkpointing": self._lm.gradient_checkpointing,
            "logprob_chunk": self.options.logprob_chunk,
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "trust_remote_code": self.options.trust_remote_code,
        }
        return {
            "engine": self.name,
            "engine_version": version("transformers"),
            "model": self._model_facts | {"vocabulary_size": self._lm.vocabulary_size},
            "tokenizer_sha256": self._tokenizer.sha256,
            "eos_token_ids": self._stop_ids,
            "max_length": self._max_length,
            "settings": asdict(self.options),
            "effective": effective,
            "environment": torch_environment(self._lm.device.type, "transformers"),
        }

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        import torch

        try:
            yield
        except torch.OutOfMemoryError as error:
            smaller = max(1, self.options.batch_size // 2)
            raise EngineError(
                f"the device is out of memory with batch_size={self.options.batch_size}: {error}",
                hint=f"transformers:batch_size={smaller}, or device_map=auto where there are several devices",
            ) from error


def _scored_logits(logits_NV: Tensor, task: Task) -> Tensor:
    from ..common.sampling import process_logits

    return logits_NV.float() if task.policy == "raw" else process_logits(logits_NV, task.sampling)
