"""The engine `synthetic`: no model, any speed, every divergence known. It drives the whole pipeline in tests.

What it samples from and how two of them differ is in `policy`; here it samples and scores as an engine does. The
model name is not looked at. Text is "tokenised" by bytes, modulo the vocabulary.

Shapes: B sequences of a batch, T response tokens, K observed ids, V vocabulary.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np

from ... import __version__
from ...errors import ModelError
from ...records import Evidence, Observed, Request, SequenceRecord, Task
from ..base import Capabilities, Engine, Options
from .policy import END_OF_SEQUENCE, States, SyntheticOptions, hash64, raw_logprobs, sampled_logprobs


class SyntheticEngine(Engine):
    name: ClassVar[str] = "synthetic"
    options_type: ClassVar[type[Options]] = SyntheticOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        evidence=("sampled", "topk", "full"), paths=("decode", "prefill"), rollout=True
    )
    options: SyntheticOptions

    def load(self) -> None:
        return None

    def facts(self) -> dict[str, Any]:
        options = self.options
        return {
            "engine": self.name,
            "engine_version": __version__,
            "model": {
                "name": self.model,
                "path": None,
                "architecture": "synthetic",
                "weights_sha256": f"{hash64(options.weights):064x}",
                "vocabulary_size": options.vocabulary,
                "dtype_stored": "float64",
            },
            "tokenizer_sha256": f"{hash64('bytes', options.vocabulary):064x}",
            "eos_token_ids": [END_OF_SEQUENCE] if options.mean_length else [],
            "max_length": None,
            "settings": asdict(options),
            "effective": asdict(options),
            "environment": {"python": platform.python_version(), "device": "cpu", "threads": 1},
        }

    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        prompts = [self._tokenise(request) for request in batch]
        noise_key = self._noise_key(batch, "decode")
        responses = self._sample(batch, prompts, task, noise_key)
        for request, prompt, response_T in zip(batch, prompts, responses, strict=True):
            states = States.along(self.options, prompt, response_T)
            logp_TV = sampled_logprobs(self.options, states, task.sampling, noise_key)
            record = self._record(request, prompt, response_T, logp_TV, task.evidence)
            ended = self.options.mean_length and response_T[-1] == END_OF_SEQUENCE
            record.finish_reason = "stop" if ended else "length"
            if task.sampling.transforms:
                raw_TV = raw_logprobs(self.options, states, 1.0, noise_key)
                record.raw = _observe(raw_TV, response_T, request, task.evidence)
            yield record

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        noise_key = self._noise_key(batch, task.path)
        for request in batch:
            prompt, response_T = self._tokenise(request), request.response_token_ids
            if response_T is None or not ((response_T >= 0) & (response_T < self.options.vocabulary)).all():
                raise ModelError(
                    f"Sequence {request.sequence_id} has no response of ids below {self.options.vocabulary}.",
                    hint="give both sides the same vocabulary=",
                )
            states = States.along(self.options, prompt, response_T)
            if task.policy == "raw":
                logp_TV = raw_logprobs(self.options, states, noise_key=noise_key)
            else:
                logp_TV = sampled_logprobs(self.options, states, task.sampling, noise_key)
            yield self._record(request, prompt, response_T, logp_TV, task.evidence)

    def _sample(
        self, batch: Sequence[Request], prompts: list[np.ndarray], task: Task, noise_key: int
    ) -> list[np.ndarray]:
        """Draw all sequences of a batch side by side, by inversion of the cumulated probabilities."""
        sampling, longest = task.sampling, task.sampling.max_new_tokens
        uniform_BT = np.stack(
            [np.random.default_rng([sampling.seed, r.sequence_id]).random(longest) for r in batch]
        )
        token_BT = np.zeros((len(batch), longest), dtype=np.int32)
        length_B = np.full(len(batch), longest)
        open_B = np.arange(len(batch))
        states = States.of_prompts(self.options, prompts)
        for position in range(longest):
            cdf_BV = np.exp(sampled_logprobs(self.options, states, sampling, noise_key)).cumsum(axis=1)
            # Scaled to the rounded total, and below it: beyond the last step there is no token.
            level_B = np.minimum(uniform_BT[open_B, position], np.nextafter(1.0, 0.0)) * cdf_BV[:, -1]
            token_B = (cdf_BV <= level_B[:, None]).sum(axis=1)
            token_BT[open_B, position] = token_B
            states = states.after(token_B)
            if self.options.mean_length:
                ended_B = token_B == END_OF_SEQUENCE
                length_B[open_B[ended_B]] = position + 1
                open_B, states = open_B[~ended_B], states[~ended_B]
                if not len(open_B):
                    break
        return [token_T[:length] for token_T, length in zip(token_BT, length_B, strict=True)]

    def _record(
        self, request: Request, prompt: np.ndarray, response_T: np.ndarray, logp_TV: np.ndarray, evidence: Evidence
    ) -> SequenceRecord:
        """What was seen of a sequence, after the faults that the options ask for."""
        if self.options.slow:
            time.sleep(self.options.slow)
        if request.sequence_id == self.options.fail_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if request.sequence_id == self.options.nan_at:
            logp_TV[0] = np.nan
        return SequenceRecord(
            sequence_id=request.sequence_id,
            prompt_id=request.prompt_id,
            prompt_token_ids=prompt,
            response_token_ids=response_T.astype(np.int32),
            finish_reason=request.finish_reason or "length",
            observed=_observe(logp_TV, response_T, request, evidence),
            prompt_text=_text(request),
            response_pieces=[f"⟨{token}⟩" for token in response_T.tolist()],
        )

    def _tokenise(self, request: Request) -> np.ndarray:
        if request.prompt_token_ids is not None:
            return request.prompt_token_ids
        text = np.frombuffer((_text(request) or "").encode(), dtype=np.uint8)
        return (text % self.options.vocabulary).astype(np.int32)

    def _noise_key(self, batch: Sequence[Request], path: str) -> int:
        return hash64(self.options.variant, path, sorted(request.sequence_id for request in batch))


def _text(request: Request) -> str | None:
    if not isinstance(request.prompt, list):
        return request.prompt
    lines = [f"{message['role']}: {_rest(message)}" for message in request.prompt]
    if request.template_arguments:
        lines.insert(0, json.dumps(request.template_arguments))
    return "\n".join(lines)


def _rest(message: dict[str, Any]) -> str:
    """What a message says: a text, or everything but its role as JSON."""
    rest = {key: value for key, value in message.items() if key != "role"}
    return rest["content"] if rest.keys() == {"content"} and isinstance(rest["content"], str) else json.dumps(rest)


def _observe(logp_TV: np.ndarray, token_T: np.ndarray, request: Request, evidence: Evidence) -> Observed:
    """Reduce whole distributions to the evidence that a task asks for."""
    observed = Observed(logp_TV[np.arange(len(token_T)), token_T])
    if evidence.level == "full":
        observed.full_row_R = np.flatnonzero(evidence.keeps_full(request.sequence_id, len(token_T)))
        observed.full_logprobs_RV = logp_TV[observed.full_row_R].astype(np.float32)
    elif evidence.level == "topk":
        ids_TK = request.observed_ids_TK
        if ids_TK is None:
            ids_TK = np.argsort(-logp_TV, axis=1, kind="stable")[:, : evidence.k].astype(np.int32)
            # What has no mass was not shown; an engine would not list it either.
            ids_TK = np.where(np.take_along_axis(logp_TV, ids_TK, axis=1) == -np.inf, -1, ids_TK)
        observed.topk_ids_TK = ids_TK
        logp_TK = np.take_along_axis(logp_TV, np.maximum(ids_TK, 0), axis=1)
        observed.topk_logprobs_TK = np.where(ids_TK < 0, np.nan, logp_TK)
        if request.kth_logprob_T is not None:
            observed.tail_overlap_T = _tail_overlap(logp_TV, ids_TK, token_T, request.kth_logprob_T)
    return observed


def _tail_overlap(
    logp_TV: np.ndarray, ids_TK: np.ndarray, token_T: np.ndarray, kth_logprob_T: np.ndarray
) -> np.ndarray:
    """Σ_{a∉K} min(π_a, μ_(K)) [T], with K = the observed ids and the sampled token."""
    overlap_TV = np.exp(np.minimum(logp_TV, kth_logprob_T[:, None]))
    row_T, (row_N, rank_N) = np.arange(len(token_T)), np.nonzero(ids_TK >= 0)
    overlap_TV[row_N, ids_TK[row_N, rank_N]] = 0.0
    overlap_TV[row_T, token_T] = 0.0
    return overlap_TV.sum(axis=1)
