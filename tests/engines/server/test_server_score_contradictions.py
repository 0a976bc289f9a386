"""Scores that contradict themselves, or what was to be scored."""

from __future__ import annotations

from typing import Any

import pytest
from changed_answers import CHOICE, LISTED, META, Change, at, refused
from evil_server import ChangingServer
from server_engine import FULL, SAMPLED, TOPK, Connect, sample, to_score

from mismatchscope.records import Evidence, Task

GIVEN = (*CHOICE, "prompt_logprobs")


def renamed(row: dict[str, Any]) -> dict[str, Any]:
    return {f"{int(key):03d}": entry for key, entry in row.items()}


SCORES: list[tuple[str, str, Change, Evidence]] = [
    ("vllm", "fewer positions", at(*GIVEN, value=lambda rows: rows[:-1]), SAMPLED),
    ("vllm", "more positions", at(*GIVEN, value=lambda rows: [*rows, rows[-1]]), SAMPLED),
    ("vllm", "another token", at(*GIVEN, -1, value={"47": {"logprob": -1.0}}), SAMPLED),
    ("vllm", "null", at(*GIVEN, -1, value=None), SAMPLED),
    ("vllm", "a text", at(*GIVEN, -1, value=lambda row: {key: {"logprob": "-1"} for key in row}), SAMPLED),
    ("vllm", "logits", at(*GIVEN, -1, value=lambda row: {key: {"logprob": 3.0} for key in row}), SAMPLED),
    ("vllm", "probabilities above 1", at(*GIVEN, -1, value=lambda r: {k: {"logprob": 0} for k in r}), TOPK),
    ("vllm", "ids in another spelling", at(*GIVEN, -1, value=renamed), TOPK),
    ("vllm", "other ids", at(*GIVEN, -1, value=lambda row: row | {"4800": {"logprob": -9.0}}), FULL),
    ("vllm", "more ids", at(*GIVEN, -1, value=lambda r: {str(i): {"logprob": -9.0} for i in range(48)}), TOPK),
    ("vllm", "another count", at("usage", value={"prompt_tokens": 1}), SAMPLED),
    ("openai", "fewer positions", at(*LISTED, "token_logprobs", value=lambda values: values[:-1]), SAMPLED),
    ("openai", "fewer lists", at(*LISTED, "top_logprobs", value=lambda tops: tops[:-1]), TOPK),
    ("vllm", "fewer ids", at(*GIVEN, -1, value=lambda row: dict([*row.items()][-1:])), TOPK),
    ("openai", "other tokens", at(*LISTED, "tokens", 0, value="token_id:47"), SAMPLED),
    (
        "openai",
        "probabilities above 1",
        at(*LISTED, "top_logprobs", -2, value=lambda top: dict.fromkeys(top, 0)),
        TOPK,
    ),
    ("sglang", "other tokens", at(*META, "input_token_logprobs", -1, 1, value=47), SAMPLED),
    ("sglang", "floats", at(*META, "input_token_logprobs", -1, 1, value=float), SAMPLED),
    ("sglang", "texts", at(*META, "input_token_logprobs", -1, 0, value=str), SAMPLED),
    ("sglang", "a prefix without end", at(*META, "input_top_logprobs_null_prefix", value=10**9), TOPK),
    ("sglang", "a shape of more positions", at(*META, "input_top_logprobs_shape", 0, value=10**9), TOPK),
    ("sglang", "another count", at(*META, "prompt_tokens", value=1), SAMPLED),
]


@pytest.mark.parametrize(
    ("kind", "change", "evidence"),
    [(kind, change, evidence) for kind, _, change, evidence in SCORES],
    ids=[f"{kind}: {name}" for kind, name, _, _ in SCORES],
)
def test_no_contradiction_of_a_score_is_recorded(
    kind: str, change: Change, evidence: Evidence, connect: Connect
) -> None:
    with ChangingServer(kind) as server:
        engine = connect(server)
        request = to_score(sample(engine)[0])
        server.change = change
        task = Task("t", "score", "", "", evidence, path="prefill")
        refused(lambda: list(engine.score([request], task)), server)
