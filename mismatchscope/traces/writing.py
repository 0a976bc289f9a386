"""A batch of a trainer, as arrays -> a trace. Part of the public API: `mismatchscope.write_trace`.

Shapes: B sequences, T response tokens of one sequence, K observed ids a token, V vocabulary.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from ..errors import UsageError
from ..locking import DIRECTORY_LOCK, locked
from ..records import Policy, Role
from . import store
from .arrays import PerSequence, Rows
from .identity import check_free
from .packing import disk_full_guard
from .reader import Trace
from .record_builder import RecordBuilder
from .schema import Manifest, ModelFacts
from .stated_facts import settings_of, size_of, text_of, transforms_of

_ANOTHER = "choose another directory, or remove this one yourself"


def write_trace(
    path: str | Path,
    *,
    role: Role,
    prompts: Rows,
    responses: Rows,
    logprobs: Rows,
    mask: Rows | None = None,
    prompt_mask: Rows | None = None,
    topk_ids: Rows | None = None,
    topk_logprobs: Rows | None = None,
    full_logprobs: Rows | None = None,
    sequence_ids: PerSequence | None = None,
    prompt_ids: PerSequence | None = None,
    group: PerSequence | None = None,
    worker: PerSequence | None = None,
    policy_version: PerSequence | None = None,
    finish_reason: PerSequence | None = None,
    policy: Policy = "processed",
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    presence_penalty: float | None = None,
    frequency_penalty: float | None = None,
    logit_bias: Mapping[int, float] | None = None,
    model: str | None = None,
    weights_sha256: str | None = None,
    tokenizer_sha256: str | None = None,
    vocabulary_size: int | None = None,
    engine: str = "unknown",
    engine_version: str | None = None,
    effective: Mapping[str, Any] | None = None,
) -> Trace:
    """Write the log-probs that one policy gave a batch of responses as a trace, and open it.

    Arrays may be lists, numpy arrays or torch tensors of any device and dtype. Each has one row a response, and
    all rows of a response have one length: ragged lists, or [B, T] padded alike, with a `mask`.

    Args:
        path: a directory that does not exist yet, or is empty.
        role: "behavior" (μ, that sampled), "reference" (π_old, that trains) or "target" (π_θ, being optimised).
        prompts, responses: token ids. Responses to one prompt each repeat it.
        logprobs: natural, of each response token, float [B, T].
        mask: the loss mask, 1 where the policy chose the token, 0 elsewhere, [B, T]. What follows the last 1 is
            padding and is left out. A 0 before it, the output of a tool say, keeps its place in the response: a
            comparison counts it as `masked` and leaves it out of every figure, whatever log-prob it has. Where
            both sides have a mask they must agree; that of one side holds for both.
        prompt_mask: 1 for the tokens of the prompt, 0 for padding on either side of them.
        topk_ids, topk_logprobs: the K likeliest ids of μ in falling order, and their log-probs, [B, T, K]; for
            the reference its log-probs at μ's ids. Shorter lists end in ids of -1. This is top-k evidence.
        full_logprobs: normalised log-probs of every id, [B, T, V]: full evidence.
        sequence_ids: what pairs the traces, different integers from 0. By default the place in the builder.
        prompt_ids: integers from 0. By default equal prompts have one id; the prompt is the unit of every interval.
        group, worker, policy_version, finish_reason: of each response, or one for all.
        policy: "processed" if the logits were divided by the temperature (and top-k, top-p applied) before the
            log-softmax, "raw" if not. At temperature 1 with nothing cut off they are the same.
        temperature, top_p, top_k, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias: of
            the sampler; for a trainer, the temperature that it divides its logits by. One alone says that the
            others change nothing.
        weights_sha256, tokenizer_sha256: what tells two models or tokenizers apart; any text that does.
        effective: settings that may matter, {"dtype": "bfloat16", "attn": "flash_attention_2"}; where the two
            sides differ, the report lists them.

    Whatever is not given is recorded as unknown.

    Raises:
        UsageError: an argument whose shape or values cannot be right; it is named. Nothing is written.
        OutputExistsError: something is at `path`.
        LockedError: another process writes there.
        DiskFullError: no room.
    """
    path = Path(path)
    check_free(path, hint=_ANOTHER)
    for name, value, known in (("role", role, get_args(Role)), ("policy", policy, get_args(Policy))):
        if value not in known:
            raise UsageError(f"{name} is {value!r}.", hint=f"{name} is one of {', '.join(known)}")
    sampling = transforms_of(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=logit_bias if logit_bias is None else dict(logit_bias),
    )
    facts = ModelFacts(
        name=text_of(model, "model"),
        weights_sha256=text_of(weights_sha256, "weights_sha256"),
        vocabulary_size=size_of(vocabulary_size),
    )
    stated = settings_of(effective)
    builder = RecordBuilder(responses, mask, logprobs)
    if topk_ids is not None or topk_logprobs is not None:
        builder.add_topk(topk_ids, topk_logprobs, falling=role == "behavior")
    if full_logprobs is not None:
        builder.add_full(full_logprobs)
    records = builder.records(
        prompts=prompts,
        prompt_mask=prompt_mask,
        sequence_ids=sequence_ids,
        prompt_ids=prompt_ids,
        group=group,
        worker=worker,
        policy_version=policy_version,
        finish_reason=finish_reason,
    )
    manifest = Manifest(
        engine=text_of(engine, "engine") or "unknown",
        engine_version=text_of(engine_version, "engine_version"),
        role=role,
        policy=policy,
        path="rollout" if role == "behavior" else "prefill",
        evidence=builder.evidence,
        model=facts,
        tokenizer_sha256=text_of(tokenizer_sha256, "tokenizer_sha256"),
        sampling=sampling,
        temperature=1.0 if policy == "raw" else None if temperature is None else float(temperature),
        effective=_half_precision(logprobs) | stated,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    with disk_full_guard(f"{path} could not be written.", hint="make room, then repeat the command"):
        path.mkdir(parents=True, exist_ok=True)
        with locked(path / DIRECTORY_LOCK, str(path)):
            check_free(path, hint=_ANOTHER)
            store.write_records(path, manifest, records)
    return Trace.open(path, verify=False)


def _half_precision(logprobs: Rows) -> dict[str, str]:
    """The dtype of log-probs that were rounded to 8 or 11 bits: that alone moves a ratio by up to 1 %."""
    first = logprobs[0] if isinstance(logprobs, list | tuple) else logprobs
    dtype = str(getattr(first, "dtype", "")).removeprefix("torch.")
    return {"logprob_dtype": dtype} if dtype in ("bfloat16", "float16") else {}
