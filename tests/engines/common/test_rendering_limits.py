"""A chat template that works without end, or in more memory than any chat needs, ends with a sentence."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_tokenizers import save_chat_tokenizer

from mismatchscope.engines.common import rendering_limits
from mismatchscope.engines.common.chat_template import chat_token_ids
from mismatchscope.engines.common.checkpoint import Tokenizer
from mismatchscope.errors import PromptsError
from mismatchscope.records import Request

pytestmark = pytest.mark.slow

CHAT = [{"role": "user", "content": "hello"}]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}hello"
MACRO = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
# Two equal lists of two lists of two lists …: one comparison, which doubles with every layer.
NATIVE = (
    "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}"
    "{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}"
)


def rendered(directory: Path, template: str) -> list[int]:
    tokenizer = Tokenizer(save_chat_tokenizer(directory, template))
    return chat_token_ids(tokenizer._tokenizer, CHAT, Request(0, 7, prompt=CHAT))


@pytest.mark.parametrize("template", [LOOP, MACRO])
def test_a_loop_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    monkeypatch.setattr(rendering_limits, "SECONDS", 0.5)
    before = signal.getsignal(signal.SIGALRM), resource.getrlimit(resource.RLIMIT_DATA)
    began = time.monotonic()
    with pytest.raises(PromptsError, match="does not end, at prompt 7"):
        rendered(tmp_path, template)
    assert time.monotonic() - began < 5
    assert (signal.getsignal(signal.SIGALRM), resource.getrlimit(resource.RLIMIT_DATA)) == before


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10 ** 10 }}",
        "{% set ns = namespace(t='x') %}{% for a in range(40) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
        "{{ ('%2000000000d' % 1) }}",
        "{{ 'x' * 3 * 10 ** 8 }}",
    ],
)
def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    monkeypatch.setattr(rendering_limits, "SECONDS", 120.0)  # it is memory that ends it, on a busy machine too
    with pytest.raises(PromptsError, match="more memory than any chat"):
        rendered(tmp_path, template)


def test_what_native_code_computes_without_end_ends_the_process(tmp_path: Path) -> None:
    """No exception reaches a comparison."""
    save_chat_tokenizer(tmp_path, NATIVE)
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_rendering_limits import rendered, rendering_limits, NATIVE
rendering_limits.SECONDS = rendering_limits.SECONDS_TO_THE_END = 0.3
rendered(Path({str(tmp_path)!r}), NATIVE)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=60
    )
    assert done.returncode == -rendering_limits.KILLED_BY


def test_a_template_that_ends_is_left_alone(tmp_path: Path) -> None:
    long = [{"role": "user", "content": "hello " * 200_000}]
    tokenizer = Tokenizer(save_chat_tokenizer(tmp_path, "{% for m in messages %}{{ m.content }}{% endfor %}"))
    ids = chat_token_ids(tokenizer._tokenizer, long, Request(0, 7, prompt=long))
    assert len(ids) == 200_000
