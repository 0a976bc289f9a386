"""A key that a server repeats, in any field and in any encoding, is shown and written nowhere."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from evil_server import ChangingServer
from misbehaving_server import MisbehavingServer
from server_engine import KEY, Connect, job_of, sample, short_requests

from mismatchscope.engines.runtime.launcher import run_job
from mismatchscope.errors import MismatchScopeError

ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent": lambda key: "".join(f"%{ord(character):02X}" for character in key),
    "base64": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "escapes": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "entities": lambda key: html.escape(quote(key)).replace("-", "&#45;"),
    "in pieces": lambda key: f"{key[:9]}\x1b[1m\r\n{key[9:]}",
}

# Two everywhere, the rest in the whole suite.
OFTEN = ("as it is", "base64")
ENCODED = [how if how in OFTEN else pytest.param(how, marks=pytest.mark.slow) for how in ENCODINGS]

# The path of a request, and how an answer to it repeats a text.
FIELDS: dict[str, tuple[str, str, Callable[[Any, str], Any]]] = {
    "the name of the model": ("vllm", "/v1/models", lambda r, text: r["data"][0].update(id=text)),
    "its path": ("vllm", "/v1/models", lambda r, text: r["data"][0].update(root=text)),
    "its longest sequence": ("vllm", "/v1/models", lambda r, text: r["data"][0].update(max_model_len=text)),
    "the list of models": ("vllm", "/v1/models", lambda r, text: {text: [text]}),
    "the version": ("vllm", "/version", lambda r, text: {"version": text}),
    "the model of an answer": ("vllm", "", lambda r, text: r.update(model=text)),
    "the reason to end": ("vllm", "", lambda r, text: r["choices"][0].update(finish_reason=text)),
    "a token": ("openai", "", lambda r, text: r["choices"][0]["logprobs"].update(tokens=[text])),
    "an id": ("vllm", "", lambda r, text: r["choices"][0].update(token_ids=[text])),
    "a log-prob": ("vllm", "", lambda r, text: r["choices"][0]["logprobs"].update(token_logprobs=[text])),
    "a key of a table": ("vllm", "", lambda r, text: {text: r}),
    "a count": ("vllm", "", lambda r, text: r.update(usage={"prompt_tokens": text})),
    "SGLang's version": ("sglang", "/server_info", lambda r, text: r.update(version=text)),
    "SGLang's settings": ("sglang", "/server_info", lambda r, text: r.update(dtype=text, attention_backend=text)),
    "SGLang's path of the model": ("sglang", "/model_info", lambda r, text: r.update(model_path=text)),
    "the version of the weights": ("sglang", "/model_info", lambda r, text: r.update(weight_version=text)),
    "another version of the weights": ("sglang", "", lambda r, text: r["meta_info"].update(weight_version=text)),
    "SGLang's reason to end": ("sglang", "", lambda r, text: r["meta_info"].update(finish_reason={"type": text})),
}


def assert_hidden(shown: str, echoed: str) -> None:
    assert KEY not in shown
    for piece in echoed.split():
        assert len(piece) < 8 or piece not in shown
        assert len(piece) < 8 or json.dumps(piece)[1:-1] not in shown


@pytest.mark.parametrize("how", ENCODED)
@pytest.mark.parametrize("field", FIELDS)
def test_a_key_in_an_answer(
    field: str, how: str, hurry: None, connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    kind, path, repeat = FIELDS[field]
    echoed = ENCODINGS[how](KEY)
    with ChangingServer(kind, path=path, change=lambda response: repeat(response, echoed)) as server:
        try:
            engine = connect(server)
            sample(engine)
            shown = json.dumps(engine.facts())
        except MismatchScopeError as error:
            shown = f"{error!r} {error.message} {error.hint} {error.__cause__!r} {error.__context__!r}"
    assert_hidden(shown + "".join(capfd.readouterr()), echoed)


@pytest.mark.parametrize("how", ENCODED)
@pytest.mark.parametrize("status", [400, 404, 418, 429, 500])
def test_a_key_in_a_refusal(
    status: int, how: str, vllm: MisbehavingServer, connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = connect(vllm, retries="1", timeout="2")
    echoed = ENCODINGS[how](KEY)
    vllm.refusal = (status, json.dumps({"error": {"message": f"no such key: {echoed}", "param": echoed}}))
    vllm.always = "said"
    with pytest.raises(MismatchScopeError) as caught:
        sample(engine)
    shown = f"{caught.value!r} {caught.value.message} {caught.value.hint} {capfd.readouterr()}"
    assert "[key]" in shown
    assert_hidden(shown, echoed)


@pytest.mark.slow
def test_a_key_in_headers_and_in_the_place_of_a_redirect(
    vllm: MisbehavingServer, model: Path, tmp_path: Path
) -> None:
    vllm.redirect_to = f"http://127.0.0.1/?key={KEY}"
    for fault in ("redirect", "key as reason", "key as encoding"):
        vllm.always = fault
        job = job_of(f"vllm@{vllm.url}:retries=0", model, tmp_path / fault, short_requests(1))
        events: list[object] = []
        with pytest.raises(MismatchScopeError) as caught:
            run_job(job, log_path=tmp_path / fault / "log", on_event=events.append)
        written = b"".join(path.read_bytes() for path in (tmp_path / fault).rglob("*") if path.is_file())
        assert KEY not in f"{caught.value!r} {caught.value.hint} {caught.value.log_tail} {events}"
        assert KEY.encode() not in written
