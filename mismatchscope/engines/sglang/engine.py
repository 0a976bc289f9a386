"""The engine `sglang`: SGLang offline, its numbers recorded where it computes them.

It decodes a rollout, and a score along the decode path, a token a step through its cache; a score along the prefill
path it reads as prompts. `scheduler`, in a process of SGLang's, sees the logits of all three, and `capture` draws
every token there and records what from. Tested with SGLang 0.5.23.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ...errors import CapabilityError, EngineError
from ...machine import hardware
from ...measures.tensor_results import TensorRecord
from ...records import Request, Sampling, SequenceRecord, Task
from ...temporary import temporary_directory
from ..base import Options
from ..common.checkpoint import check_response
from ..common.checkpoint_engine import CheckpointEngine
from ..common.compiler import check_compiler
from ..common.options import check_arguments
from ..common.tokenized import ScoreRequest, TokenizedRequest
from .exchange import Batch, Exchange, request_id
from .facts import effective_settings
from .options import LORA_NAME, SglangOptions, prepare_process
from .start import Sglang, check_cpu_graphs, import_sglang


class SglangEngine(CheckpointEngine):
    name: ClassVar[str] = "sglang"
    packages = ("sglang", "sgl-kernel", "torch", "transformers")
    options_type: ClassVar[type[Options]] = SglangOptions
    capabilities = replace(
        CheckpointEngine.capabilities, prefix_caches=("cold", "warm"), weights=True, internals=True
    )
    options: SglangOptions

    def load(self) -> None:
        self._until_closed = contextlib.ExitStack()
        prepare_process(self.model)
        gpu = bool(hardware()["gpus"])
        if self.options.compiles:
            if not gpu:
                check_cpu_graphs(str(self.options.engine_arguments()["attention_backend"]))
            check_compiler("SGLang", "sglang:enable_torch_compile=false", gpu=gpu)
        sglang = import_sglang()
        self._version = sglang.__version__
        check_arguments(self.options, sglang.ServerArgs.__struct_fields__, f"SGLang {self._version}")
        directory = self._open_checkpoint()
        shared = self._until_closed.enter_context(temporary_directory())
        self._exchange = Exchange(shared)
        if self._adapter is not None:
            self._adapter.check_lora(f"SGLang {self._version}")
        arguments = self.options.engine_arguments(self._adapter)
        self._sglang = Sglang(directory, self._adapter, arguments, str(shared), self._version)
        self._numbers = itertools.count()
        config, facts = self._sglang.model_config, self._sglang.facts
        # SGLang stops at the model's own whatever it is told.
        self._stop_ids = sorted({*self._stop_ids, *config.hf_eos_token_id})
        # It keeps a place for one more token, and refuses inputs that come within five tokens of that.
        max_length: int = facts["max_req_len"] - 1
        self._longest_prefill: int = facts["max_req_input_len"]
        self._set_limits(config.vocab_size, max_length, min(max_length, self._longest_prefill))
        if self._adapter is not None:
            self._remarks += self._adapter.remarks(f"SGLang {self._version}")

    def check(self, requests: Sequence[Request], task: Task) -> None:
        """As every engine does; and that an adapter leaves the head alone, where prompts are scored."""
        if self._adapter is not None and task.kind == "score" and task.path == "prefill":
            self._adapter.check_head("SGLang")
        super().check(requests, task)
        if task.composition.prefix_cache == "warm" and self._sglang.facts["disable_radix_cache"]:
            raise CapabilityError("SGLang runs without its radix cache.", hint="sglang:disable_radix_cache=false")

    def close(self) -> None:
        self._sglang.close()
        self._until_closed.close()

    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Sample; `observed` is the distribution sampled from, `raw` the model's own where that is another one.

        Tokens are drawn from the recorded distribution: temperature, then top-k and top-p, each of the whole, as
        SGLang's own sampler cuts.
        """
        requests = self._with_prompts(batch)
        lengths = [self._longest_response(request, task.sampling) for request in requests]
        yield from self._run(
            Batch(next(self._numbers), task, requests, lengths, self._stop_ids),
            input_ids=[request.prompt_token_ids.tolist() for request in requests],
            sampling_params=[{"max_new_tokens": length, "stop_token_ids": self._stop_ids} for length in lengths],
        )

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Teacher-force; a `raw` policy is the model's own, any other what `task.sampling` makes of it."""
        requests = self.to_score(batch, task)
        lengths = [len(request.response_token_ids) for request in requests]
        work = Batch(next(self._numbers), task, requests, lengths, ())
        if task.path == "decode":
            yield from self._run(
                work,
                input_ids=[request.prompt_token_ids.tolist() for request in requests],
                sampling_params=[self._forced_params(request, task.sampling) for request in requests],
            )
            return
        states = [np.append(request.prompt_token_ids, request.response_token_ids[:-1]) for request in requests]
        yield from self._run(
            work,
            input_ids=[state.tolist() for state in states],
            sampling_params={"max_new_tokens": 0},
            return_logprob=True,  # CUDA graphs leave the head out, so that the hook on it runs
            cache_salt=[f"{work.number}-{request.sequence_id}" for request in requests],  # every state is computed
        )

    def weights(self) -> Sequence[TensorRecord]:
        """As every engine does. Raises `CapabilityError` where no process has a tensor whole."""
        if self.options.tp_size > 1:
            raise CapabilityError(
                "With tp_size above 1 SGLang holds every tensor in parts, which are not compared.",
                hint="sglang:tp_size=1",
            )
        self._exchange.ask_for_weights(self._directory, self._adapter)
        for _ in self._sglang.generate(1, input_ids=[[0]], sampling_params={"max_new_tokens": 1}):
            pass
        return self._exchange.weights()

    def internals(self, batch: Sequence[Request], task: Task) -> None:
        """As every engine does, in the scheduler's process."""
        if self.options.compiles:
            raise CapabilityError(
                "SGLang has compiled the model, so that nothing can be seen between its modules.",
                hint="sglang:enable_torch_compile=false",
            )
        for request in self.to_score(batch, task):
            tokens = np.append(request.prompt_token_ids, request.response_token_ids)
            work = Batch(next(self._numbers), task, [request], [len(request.response_token_ids)], ())
            self._exchange.post(work)
            for _ in self._sglang.generate(
                1,
                rid=[request_id(work.number, 0)],
                input_ids=[tokens.tolist()],
                sampling_params={"max_new_tokens": 0},
                return_logprob=True,
                cache_salt=[str(work.number)],
                **({} if self._adapter is None else {"lora_path": LORA_NAME}),
            ):
                pass
            self._exchange.close(work.number)

    def update(self, model: str) -> None:
        """By `update_weights_from_disk`, in place."""
        from ..common.location import locate

        self._directory = locate(model)
        self._sglang.update(self._directory)

    def _forced_params(self, request: ScoreRequest, sampling: Sampling) -> dict[str, Any]:
        """Let a response end as it did when it was sampled: SGLang learns of a stop token one step later than of a
        length, so that a sequence keeps the same neighbours from the first token to the last."""
        response = request.response_token_ids
        if np.isin(response, self._stop_ids).nonzero()[0].tolist() != [len(response) - 1]:
            return {"max_new_tokens": len(response), "ignore_eos": True}
        longest = self._longest_response(request, sampling)
        return {"max_new_tokens": max(longest, len(response)), "stop_token_ids": self._stop_ids}

    def _run(self, work: Batch, **arguments: Any) -> Iterator[SequenceRecord]:
        self._exchange.post(work)
        # What a batch finds in the cache must not depend on the batches before it.
        arguments.setdefault("cache_salt", str(work.number))
        if self._adapter is not None:
            arguments["lora_path"] = LORA_NAME
        warm = work.task.composition.prefix_cache == "warm"
        if warm:
            read = {"input_ids": arguments["input_ids"], "sampling_params": {"max_new_tokens": 1}}
            kept = {key: arguments[key] for key in ("cache_salt", "lora_path") if key in arguments}
            for _ in self._sglang.generate(len(work.requests), **read, **kept):
                pass
        unfinished = {request.sequence_id: request for request in work.requests}
        request_ids = [request_id(work.number, row) for row in range(len(work.requests))]
        for _ in self._sglang.generate(len(request_ids), rid=request_ids, **arguments):
            for record in self._exchange.take(work.number):
                request = unfinished.pop(record.sequence_id)
                record.prompt_text = self._tokenizer.text(record.prompt_token_ids)
                record.prompt_remarks = self._tokenizer.remarks(request, record.prompt_token_ids)
                record.response_pieces = self._tokenizer.pieces(record.response_token_ids)
                yield record
        if warm:
            self._check_hits([len(prompt) for prompt in arguments["input_ids"]])
        if unfinished:
            raise EngineError(f"SGLang ended sequences {sorted(unfinished)} before their last token")
        self._exchange.close(work.number)

    def _check_hits(self, lengths: Sequence[int]) -> None:
        """Raise `EngineError` for a prompt that should have been in the cache, and was not: it has whole pages, and
        the last token is always computed."""
        page: int = self._sglang.facts["page_size"]
        for length, cached in zip(lengths, self._sglang.cached_tokens(), strict=True):
            if length > page and not cached:
                raise EngineError("SGLang read a prompt again that its radix cache should have had")

    def _check_response(self, request: TokenizedRequest, task: Task) -> np.ndarray:
        return check_response(
            request,
            request.prompt_token_ids,
            self._vocabulary_size,
            self._max_length if task.path == "decode" else self._longest_prefill,
            limited_by="SGLang",
            hint=f"its limit along {task.path}; sglang:context_length= and max_total_tokens= set it",
        )

    def facts(self) -> dict[str, Any]:
        requested = self.options.arguments()
        effective = effective_settings(self._sglang.resolved_arguments(), self._sglang.facts, requested)
        device = self._sglang.facts["device"].partition(":")[0]
        return self._facts(self._version, effective | {"batch_size": self.batch_size}, device)
