"""Answers that contradict themselves, or hold values of another kind, end the run in one sentence."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from changed_answers import CHOICE, LISTED, META, Change, at, both, refused
from evil_server import ChangingServer
from server_engine import RETRYING, SAMPLED, TOPK, TRUNCATED, Connect, rollout, sample

from mismatchscope.records import Evidence

pytestmark = pytest.mark.slow

NO_INTEGERS = [1.0, "1", True, None, [1], -1, 10**30, float("nan")]
NO_LOGPROBS = ["-1", True, [-1.0], {}, float("inf"), 10**400]


def first_id(value: Any) -> Change:
    return at(*CHOICE, "token_ids", 0, value=value)


def first_logprob(value: Any) -> Change:
    return at(*LISTED, "token_logprobs", 0, value=value)


def first_entry(change: Callable[[dict[str, float]], Any]) -> Change:
    return at(*LISTED, "top_logprobs", 0, value=change)


def without_best(top: dict[str, float]) -> dict[str, float]:
    """One entry, of an improbable id that was not sampled."""
    return {f"token_id:{(int(name.removeprefix('token_id:')) + 1) % 48}": -3.0 for name in list(top)[:1]}


def duplicated(values: list[Any]) -> list[Any]:
    return [*values, *values]


OPENAI: list[tuple[str, Change, Evidence]] = [
    *((f"a token id {value!r}", first_id(value), SAMPLED) for value in NO_INTEGERS),
    *((f"a log-prob {str(value)[:9]!r}", first_logprob(value), SAMPLED) for value in NO_LOGPROBS),
    *(
        (
            f"the log-prob of an entry {str(value)[:9]!r}",
            first_entry(lambda top, v=value: dict.fromkeys(top, v)),
            TOPK,
        )
        for value in NO_LOGPROBS
    ),
    ("another id than its name", first_id(lambda i: (i + 1) % 48), SAMPLED),
    ("names in another order", at(*LISTED, "tokens", value=lambda names: ["token_id:7", *names[:-1]]), SAMPLED),
    ("a name in another spelling", at(*LISTED, "tokens", 0, value="token_id: ٣"), SAMPLED),
    ("ids of more tokens", at(*CHOICE, "token_ids", value=lambda ids: [*ids, 1]), SAMPLED),
    ("log-probs of fewer tokens", at(*LISTED, "token_logprobs", value=lambda values: values[:-1]), SAMPLED),
    ("names of fewer tokens", at(*LISTED, "tokens", value=lambda values: values[:-1]), SAMPLED),
    ("lists of fewer tokens", at(*LISTED, "top_logprobs", value=lambda values: values[:-1]), TOPK),
    ("lists that are none", at(*LISTED, "top_logprobs", 0, value=[1, 2]), TOPK),
    ("a table of ids", at(*CHOICE, "token_ids", value={"0": 1}), SAMPLED),
    ("a text of ids", at(*CHOICE, "token_ids", value="1 2 3"), SAMPLED),
    ("another log-prob in the list", first_entry(lambda top: {key: v - 0.5 for key, v in top.items()}), TOPK),
    ("a token better than the best", both(first_logprob(0.0), first_entry(without_best)), TOPK),
    ("probabilities above 1", first_entry(lambda top: dict.fromkeys(top, 0.0)), TOPK),
    ("more entries than asked", first_entry(lambda top: {f"token_id:{i}": -9.0 for i in range(40)}), TOPK),
    ("an entry of no id", first_entry(lambda top: {"token_id:-1": -9.0}), TOPK),
    (
        "an entry outside the vocabulary",
        first_entry(lambda top: top | {"token_id:4800": -9.0}),
        Evidence("topk", k=47),
    ),
    ("an entry twice", first_entry(lambda top: {"token_id:7": -9.0, "token_id:07": -9.0}), TOPK),
    ("no probability of what was sampled", first_logprob(-1e30), SAMPLED),
    ("another log-prob than the list beside it", first_logprob(lambda value: value - 0.5), SAMPLED),
    ("two choices", at("choices", value=duplicated), SAMPLED),
    ("no choice", at("choices", value=[]), SAMPLED),
    ("another choice", at(*CHOICE, "index", value=1), SAMPLED),
    ("a choice of no number", at(*CHOICE, "index", value="0"), SAMPLED),
    ("a prompt of floats", at(*CHOICE, "prompt_token_ids", value=lambda ids: [float(i) for i in ids]), SAMPLED),
    ("a prompt of booleans", at(*CHOICE, "prompt_token_ids", value=[True, True]), SAMPLED),
    ("a prompt in another order", at(*CHOICE, "prompt_token_ids", value=lambda ids: ids[::-1]), SAMPLED),
    ("no prompt", at(*CHOICE, "prompt_token_ids", value=[]), SAMPLED),
    ("a prompt of no list", at(*CHOICE, "prompt_token_ids", value=7), SAMPLED),
    ("another count of the prompt", at("usage", value={"prompt_tokens": 3}), SAMPLED),
    ("another count of the response", at("usage", value={"completion_tokens": 99}), SAMPLED),
    ("another sum of counts", at("usage", value={"total_tokens": 1}), SAMPLED),
    ("a count of no number", at("usage", value={"prompt_tokens": "2"}), SAMPLED),
    ("no reason to end", at(*CHOICE, "finish_reason", value=None), SAMPLED),
    ("a list as the reason to end", at(*CHOICE, "finish_reason", value=["stop"]), SAMPLED),
    ("a number as the model", at("model", value=7), SAMPLED),
    ("null as the choices", at("choices", value=None), SAMPLED),
    ("a text as the log-probs", at(*LISTED, "token_logprobs", value="-1 -1"), SAMPLED),
]

OUTPUT = (*META, "output_token_logprobs")
SGLANG: list[tuple[str, Change, Evidence]] = [
    *((f"a token id {value!r}", at(*OUTPUT, 0, 1, value=value), SAMPLED) for value in NO_INTEGERS),
    *((f"a log-prob {str(value)[:9]!r}", at(*OUTPUT, 0, 0, value=value), SAMPLED) for value in NO_LOGPROBS),
    ("other output_ids", at("output_ids", value=[1, 2, 3, 4, 5, 6, 7]), SAMPLED),
    ("another count of the prompt", at(*META, "prompt_tokens", value=3), SAMPLED),
    ("another count of the response", at(*META, "completion_tokens", value=99), SAMPLED),
    ("two responses", lambda response: [response, response], SAMPLED),
    ("a shape of more positions", at(*META, "output_top_logprobs_shape", value=[10**9, 4]), TOPK),
    ("a shape of more ids", at(*META, "output_top_logprobs_shape", 1, value=10**9), TOPK),
    ("a shape of less than none", at(*META, "output_top_logprobs_shape", 0, value=-1), TOPK),
    ("a shape of floats", at(*META, "output_top_logprobs_shape", 0, value=4.0), TOPK),
    ("a shape of three numbers", at(*META, "output_top_logprobs_shape", value=[1, 1, 4]), TOPK),
    ("a prefix without end", at(*META, "output_top_logprobs_null_prefix", value=10**9), TOPK),
    ("a prefix of many digits", at(*META, "output_top_logprobs_null_prefix", value=10**3000), TOPK),
    ("a prefix of a boolean", at(*META, "output_top_logprobs_null_prefix", value=True), TOPK),
    ("no base64", at(*META, "output_top_logprobs_idx_flat_b64", value="*"), TOPK),
    (
        "ids that are negative",
        at(
            *META,
            "output_top_logprobs_idx_flat_b64",
            value=lambda text: base64.b64encode(b"\xff" * len(base64.b64decode(text))).decode(),
        ),
        TOPK,
    ),
    (
        "ids that are one",
        at(
            *META,
            "output_top_logprobs_idx_flat_b64",
            value=lambda text: base64.b64encode(bytes(len(base64.b64decode(text)))).decode(),
        ),
        TOPK,
    ),
    ("version of its weights, a list", at(*META, "weight_version", value=["default"]), SAMPLED),
    ("version of its weights, a long text", at(*META, "weight_version", value="9" * 5000), SAMPLED),
    ("version of its weights in other digits", at(*META, "weight_version", value="٣"), SAMPLED),
    ("no reason to end", at(*META, "finish_reason", value={"type": None}), SAMPLED),
]

MASK = (*META, "output_token_sampling_mask")
MASS = (*META, "output_token_sampling_logprobs")
SUPPORT: list[tuple[str, Change]] = [
    ("a token that was left out", at(*MASK, 0, value=lambda ids: [47] * len(ids))),
    ("ids twice", at(*MASK, 0, value=lambda ids: [ids[0]] * len(ids))),
    ("more ids than top-k", at(*MASK, 0, value=lambda ids: [*ids, *range(48)])),
    ("fewer log-probs than ids", at(*MASS, 0, value=lambda values: values[:-1])),
    ("a mass above 1", at(*MASS, 0, value=lambda values: [0.0] * len(values))),
    ("a mass below 1", at(*MASS, 0, value=lambda values: [value - 3 for value in values])),
    ("texts", at(*MASS, 0, value=lambda values: [str(value) for value in values])),
    ("fewer positions", at(*MASK, value=lambda rows: rows[:-1])),
]


@pytest.mark.parametrize("kind", ["vllm", pytest.param("openai", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("change", "evidence"), [case[1:] for case in OPENAI], ids=[case[0] for case in OPENAI])
def test_no_contradiction_of_a_completion_is_recorded(
    kind: str, change: Change, evidence: Evidence, connect: Connect
) -> None:
    with ChangingServer(kind) as server:
        engine = connect(server, **RETRYING)
        server.change = change
        refused(lambda: sample(engine, evidence=evidence), server)


@pytest.mark.parametrize(("change", "evidence"), [case[1:] for case in SGLANG], ids=[case[0] for case in SGLANG])
def test_no_contradiction_of_sglang_is_recorded(change: Change, evidence: Evidence, connect: Connect) -> None:
    with ChangingServer("sglang", stage="tempered") as server:
        engine = connect(server, **RETRYING)
        server.change = change
        refused(lambda: sample(engine, evidence=evidence), server)


@pytest.mark.parametrize("change", [case[1] for case in SUPPORT], ids=[case[0] for case in SUPPORT])
def test_no_contradiction_of_what_top_k_leaves_is_recorded(change: Change, connect: Connect) -> None:
    with ChangingServer("sglang", stage="tempered") as server:
        engine = connect(server)
        server.change = change
        refused(lambda: rollout(engine, SAMPLED, TRUNCATED), server)


def test_a_server_that_lists_all_that_it_is_asked_for_lists_no_fewer(connect: Connect) -> None:
    """Of vLLM that is known; another server may have a cap of its own, which is no contradiction."""
    for kind in ("vllm", "openai"):
        with ChangingServer(kind) as server:
            engine = connect(server)
            server.change = first_entry(lambda top: dict([*top.items()][:2]))
            if kind == "vllm":
                refused(lambda engine=engine: sample(engine, evidence=TOPK), server)
            else:
                assert (sample(engine, evidence=TOPK)[0].observed.topk_ids_TK[0] == -1).sum() >= 1


def test_honest_counts_and_copies_are_taken(connect: Connect) -> None:
    def counted(response: dict[str, Any]) -> None:
        sampled = len(response["choices"][0]["token_ids"])
        response["usage"] = {"prompt_tokens": 2, "completion_tokens": sampled, "total_tokens": 2 + sampled}

    with ChangingServer("vllm") as server:
        engine = connect(server)
        expected = sample(engine)[0]
        server.change = counted
        np.testing.assert_array_equal(sample(engine)[0].response_token_ids, expected.response_token_ids)
    with ChangingServer("sglang") as server:
        engine = connect(server)

        def told(response: dict[str, Any]) -> None:
            ids = [token for _, token, _ in response["meta_info"]["output_token_logprobs"]]
            response["output_ids"] = ids
            response["meta_info"] |= {"prompt_tokens": 2, "completion_tokens": len(ids)}

        server.change = told
        assert sample(engine, evidence=TOPK)
