"""What a SPEC with a URL may say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from server_engine import KINDS

from mismatchscope.engines.registry import engine_class
from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.errors import SpecError


def test_a_spec_with_a_url_is_the_server() -> None:
    spec = parse_spec("vllm@http://127.0.0.1:8000/v1/:concurrency=2")
    assert engine_class("vllm", served=True).__name__ == "VllmServer"
    assert resolve_options(spec).url == "http://127.0.0.1:8000"
    with pytest.raises(SpecError, match="needs the URL") as caught:
        resolve_options(parse_spec("openai"))
    assert caught.value.hint == "openai@http://127.0.0.1:8000"
    with pytest.raises(SpecError, match="has no URL"):
        resolve_options(parse_spec("transformers@http://127.0.0.1:8000"))
    with pytest.raises(SpecError) as caught:
        resolve_options(parse_spec("vlm@http://127.0.0.1:8000"))
    assert caught.value.hint == "did you mean vllm?"
    with pytest.raises(SpecError, match="concurrency=0"):
        resolve_options(parse_spec("vllm@http://127.0.0.1:8000:concurrency=0"))


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SpecError) as caught:
        resolve_options(parse_spec("vllm@http://me:hunter2@127.0.0.1:8000"))
    assert "hunter2" not in caught.value.message + caught.value.hint
    with pytest.raises(SpecError, match="goes on behind its path") as caught:
        resolve_options(parse_spec("vllm@http://127.0.0.1:8000?api_key=hunter2"))
    assert "hunter2" not in caught.value.message + caught.value.hint
    for url in ("http://127.0.0.1:80000", "http://127.0.0.1:eighty"):
        with pytest.raises(SpecError, match="not the URL"):
            resolve_options(parse_spec(f"vllm@{url}"))


@pytest.mark.parametrize("kind", KINDS)
def test_servers_answer_to_their_names_and_import_no_framework(kind: str) -> None:
    engine = engine_class(kind, served=True)
    assert (engine.name, engine.capabilities.paths) == (kind, ("prefill",))
    heavy = ("torch", "transformers", "vllm", "sglang", "pandas", "pyarrow", "scipy", "pydantic", "httpx")
    program = (
        f"import sys; from mismatchscope.engines.registry import engine_class; "
        f"engine_class({kind!r}, served=True); print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
