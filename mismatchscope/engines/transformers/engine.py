"""The engine `transformers`: the forward as RL trainers run it, and a sampler on the same model.

Prefill (`score`) takes the precision, attention, padding and head that trainers use; decoding (`rollout`, and
`score` along the decode path) goes through the key-value cache one token at a time.

Shapes: B sequences of a batch, N rows of logits, T response tokens, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_args

import numpy as np

from ...composition import BatchComposition, Padding
from ...errors import CapabilityError, EngineError
from ...measures.tensor_results import TensorRecord
from ...records import Observed, Request, SequenceRecord, Task
from ..base import Capabilities, Options
from ..common.checkpoint import check_response, read_config
from ..common.checkpoint_engine import CheckpointEngine
from ..common.compiler import check_compiler
from ..common.json_values import to_json_value
from ..common.tokenized import ScoreRequest, TokenizedRequest
from .options import TransformersOptions

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from .causal_lm import CausalLM


class ScoredLogits(NamedTuple):
    """Logits of N states: which sequence of the batch each is of, its position in the response, its token."""

    sequence_N: np.ndarray
    position_N: np.ndarray
    logits_NV: Tensor
    token_N: Tensor

    def rows(self, part: slice) -> ScoredLogits:
        return ScoredLogits(self.sequence_N[part], self.position_N[part], self.logits_NV[part], self.token_N[part])


class TransformersEngine(CheckpointEngine):
    name: ClassVar[str] = "transformers"
    options_type: ClassVar[type[Options]] = TransformersOptions
    packages = ("torch", "transformers")
    capabilities = replace(
        CheckpointEngine.capabilities, paddings=get_args(Padding), weights=True, internals=True, injection=True
    )
    options: TransformersOptions

    @classmethod
    def capabilities_with(cls, options: TransformersOptions) -> Capabilities:
        """What FSDP2 shards is the forward of a training step: it decodes nothing."""
        if not options.fsdp:
            return cls.capabilities
        # Every tensor is in parts, in several processes.
        return replace(
            cls.capabilities, paths=("prefill",), rollout=False, weights=False, internals=False, injection=False
        )

    @property
    def default_composition(self) -> BatchComposition:
        options = self.options
        return BatchComposition(batch_size=options.batch_size, order=options.order, padding=options.padding)

    @property
    def network(self) -> PreTrainedModel:
        """The model that was loaded."""
        return self._lm.network

    def load(self) -> None:
        import torch

        from .loading import choose_threads, set_matmul_precision

        if self.options.compile:
            gpu = torch.cuda.is_available() and not self.options.device.startswith("cpu")
            check_compiler("transformers", "transformers:compile=false", gpu=gpu)
        if self.options.threads:
            torch.set_num_threads(self.options.threads)
        if self.options.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
            torch.use_deterministic_algorithms(True, warn_only=True)
        set_matmul_precision(self.options)
        directory = self._open_checkpoint()
        self._decoding_checked = False
        with _memory_errors("the model does not fit", "a smaller dtype=, or device_map=auto"):
            self._lm = self._load_model(directory)
        choose_threads(self.options, self._lm.parameters)
        own, other = read_config(directory), self.options.hf_overrides or {}
        text = own.get("text_config", own) | other.get("text_config", other)
        max_length: int | None = text.get("max_position_embeddings")
        self._set_limits(self._lm.vocabulary_size, max_length)

    def _load_model(self, directory: Path) -> CausalLM:
        from .causal_lm import CausalLM

        if not self.options.fsdp:
            return CausalLM(directory, self._adapter, self.options)
        from .fsdp import ShardedLM

        return ShardedLM(directory, self._adapter, self.options)

    def check(self, requests: Sequence[Request], task: Task) -> None:
        """As every engine does; and that the model can be decoded, or packed, where a task does that."""
        super().check(requests, task)
        if not self._decoding_checked and (task.kind == "rollout" or task.path == "decode"):
            from .decoding import check_decoding

            check_decoding(self._lm)
            self._decoding_checked = True
        if task.composition.padding == "packed":
            self._lm.check_packing()

    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Sample; `observed` is the distribution sampled from, `raw` the model's own where that is another one."""
        import torch

        from ..common.capture import LogitRange, TaskRecorder
        from ..common.sampling import draw, uniforms
        from .decoding import decode

        requests = self._with_prompts(batch)
        limit_B = np.array([self._longest_response(request, task.sampling) for request in requests])
        token_BT = np.zeros((len(batch), limit_B.max()), dtype=np.int32)
        ids = [request.sequence_id for request in requests]
        uniform_BT = uniforms(task.sampling.seed, ids, limit_B.max())
        recorder = TaskRecorder(task, requests, limit_B.max())
        logit_range = LogitRange(len(batch))

        def choose(rows_B: np.ndarray, position: int, logits_BV: Tensor) -> tuple[Tensor, np.ndarray]:
            logit_range.add(rows_B, logits_BV)
            logprobs = recorder.logprobs(logits_BV)
            sampled_BV = logprobs[0]
            token_B = draw(sampled_BV, torch.from_numpy(uniform_BT[rows_B, position]).to(sampled_BV.device))
            recorder.add(rows_B, np.full_like(rows_B, position), logprobs, token_B)
            token_BT[rows_B, position] = token_B.cpu().numpy()
            return token_B, self._stops(token_BT[rows_B, position]) | (position + 1 >= limit_B[rows_B])

        with batch_memory_errors(len(batch)):
            for row, length in decode(self._lm, [request.prompt_token_ids for request in requests], choose):
                response = token_BT[row, :length].copy()
                observed, *raw = recorder.finish(row, length)
                record = self.record(requests[row], response, observed, logit_range.largest_S[row])
                record.finish_reason = "stop" if self._stops(response[-1:])[0] else "length"
                record.raw = raw[0] if raw else None
                yield record

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Teacher-force; a `raw` policy is the model's own, any other what `task.sampling` makes of it."""
        from ..common.capture import LogitRange, TaskRecorder

        requests = self.to_score(batch, task)
        recorder = TaskRecorder(task, requests, max(len(request.response_token_ids) for request in requests))
        logit_range = LogitRange(len(requests))
        with batch_memory_errors(len(batch)):
            for block in self.scored_logits(requests, task):
                logit_range.add(block.sequence_N, block.logits_NV)
                logprobs = recorder.logprobs(block.logits_NV)
                recorder.add(block.sequence_N, block.position_N, logprobs, block.token_N)
        for row, request in enumerate(requests):
            [observed] = recorder.finish(row, len(request.response_token_ids))
            yield self.record(request, request.response_token_ids, observed, logit_range.largest_S[row])

    def scored_logits(self, requests: Sequence[ScoreRequest], task: Task) -> Iterator[ScoredLogits]:
        """The logits of every response token along the task's path, as they are computed: in a decode those of one
        position at a time, in a prefill `logprob_chunk` of them, sequence after sequence."""
        import torch

        from .decoding import forced
        from .prefilling import lay_out, prefill
        from .replaying import replaying

        prompts = [request.prompt_token_ids for request in requests]
        responses = [request.response_token_ids for request in requests]
        if task.path == "decode":
            for rows_B, position, logits_BV, token_B in forced(self._lm, prompts, responses):
                yield ScoredLogits(rows_B, np.full_like(rows_B, position), logits_BV, token_B)
            return
        padding: Padding = task.composition.padding or self.options.padding
        layout = lay_out(prompts, responses, padding)
        token_N = torch.from_numpy(np.concatenate(responses).astype(np.int64)).to(self._lm.head_device)
        with replaying(self._lm.network, task, requests, layout):
            for part, logits_NV in prefill(self._lm, layout, self.options.logprob_chunk):
                yield ScoredLogits(layout.sequence_N[part], layout.position_N[part], logits_NV, token_N[part])

    def internals(self, batch: Sequence[Request], task: Task) -> None:
        """As every engine does. Raises `CapabilityError` where the model is compiled."""
        from .internals import record_internals

        if self._lm.compiled:
            raise CapabilityError(
                "The compiled model shows nothing between its modules.", hint="transformers:compile=false"
            )
        with batch_memory_errors(len(batch)):
            record_internals(self._lm, self.to_score(batch, task), task, task.composition.padding or "right")

    def weights(self) -> Sequence[TensorRecord]:
        from ..common.loaded_weights import compare_loaded, readers
        from ..common.stored_weights import stored_weights

        network = self._lm.network
        learned = {name for name, _ in network.named_parameters()}
        return compare_loaded(stored_weights(self._directory, self._adapter), readers(network), learned)

    def update(self, model: str) -> None:
        """A trainer has its new weights; here they are read from where it saved them."""
        del self._lm
        self.model = model
        self.load()

    def record(
        self, request: TokenizedRequest, response: np.ndarray, observed: Observed, largest_logit: float
    ) -> SequenceRecord:
        return self._tokenizer.record(
            request, request.prompt_token_ids, response, observed, max_abs_logit=float(largest_logit)
        )

    def _check_response(self, request: TokenizedRequest, task: Task) -> np.ndarray:
        return check_response(
            request,
            request.prompt_token_ids,
            self._vocabulary_size,
            self._max_length,
            limited_by="the model",
            hint="score a trace with the model that sampled it",
        )

    def _stops(self, token_N: np.ndarray) -> np.ndarray:
        return np.isin(token_N, self._stop_ids)

    def facts(self) -> dict[str, Any]:
        import torch

        network, options = self._lm.network, self.options
        effective = {
            "dtype": self._lm.dtype,
            "adapter_dtype": self._lm.adapter_dtype,
            "lm_head": to_json_value(self._lm.head_dtype),
            "router": self._lm.router_dtype,
            "matmul_precision": torch.get_float32_matmul_precision(),
            "attn": self._lm.attention,
            "attention_scale": options.attention_scale,
            # Else what `dtype` says: "auto" is not what another engine calls the same.
            "kv_cache_dtype": None if options.kv_cache_dtype == "auto" else options.kv_cache_dtype,
            "weight_quantization": options.weight_quantization,
            "hf_overrides": options.hf_overrides or {},
            **self.default_composition.settings(),
            "device": str(self._lm.device),
            "device_map": {name: str(place) for name, place in getattr(network, "hf_device_map", {}).items()},
            "fsdp": options.fsdp,
            "compile": self._lm.compiled,
            "train_mode": options.train_mode,
            "gradient_checkpointing": self._lm.gradient_checkpointing,
            "logprob_chunk": options.logprob_chunk,
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "trust_remote_code": options.trust_remote_code,
        }
        return self._facts(version("transformers"), effective, self._lm.device.type)

    def close(self) -> None:
        self._lm.close()


@contextmanager
def _memory_errors(what: str, hint: str) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(f"the device is out of memory, {what}: {error}", hint=hint) from error


def batch_memory_errors(size: int) -> AbstractContextManager[None]:
    """Name the size of the batch that did not fit, whoever chose it."""
    smaller = f"transformers:batch_size={size // 2}" if size > 1 else "shorter sequences"
    return _memory_errors(
        f"batch_size={size} is too much for it", f"{smaller}, or device_map=auto where there are several devices"
    )
