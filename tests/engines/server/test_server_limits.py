"""Deadlines and sizes that no server can exceed, however slowly or tightly it packs."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from misbehaving_server import MisbehavingServer
from server_engine import Connect, sample

from mismatchscope.engines.server import client
from mismatchscope.errors import EngineError

pytestmark = pytest.mark.slow


def test_an_endless_answer_is_cut_off(
    vllm: MisbehavingServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(vllm)
    monkeypatch.setattr(client, "MAX_BODY_BYTES", 100)
    with pytest.raises(EngineError, match="answers with more than") as caught:
        sample(engine)
    assert "topk:20" in caught.value.hint


@pytest.mark.parametrize("fault", ["drip status line", "drip headers", "drip", "stall"])
def test_the_deadline_is_of_the_whole_answer(fault: str, vllm: MisbehavingServer, connect: Connect) -> None:
    """A server that sends a byte now and then keeps every single read short."""
    engine = connect(vllm, timeout="0.5")
    vllm.always = fault
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"did not answer in time \(timeout=0\.5\)"):
        sample(engine)
    assert 0.5 <= time.monotonic() - began < 5


def test_a_body_of_unknown_length_is_cut_off_while_it_comes(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, timeout="60", retries="2")
    vllm.always = "oversized"
    with pytest.raises(EngineError, match="answers with more than 1 MiB, more than was asked for can have"):
        sample(engine)
    assert len(vllm.attempts) == 1


def test_a_gzip_bomb_is_not_unpacked(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, retries="2")
    vllm.always = "gzip bomb"
    assert len(vllm.bomb) < 10_000, "made before memory is watched"
    tracemalloc.start()
    try:
        with pytest.raises(EngineError, match=r"compresses its answers \(gzip, gzip\)"):
            sample(engine)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert len(vllm.attempts) == 1
    assert vllm.accepted_encodings == {"identity"}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-gzip, identity", "GZIP"])
def test_no_encoding_is_unpacked(encoding: str, vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, retries="2")
    vllm.encoding, vllm.always = encoding, "encoded"
    with pytest.raises(EngineError, match="compresses its answers"):
        sample(engine)
    assert len(vllm.attempts) == 1


BOMBS = {
    "brackets": b"[" + b"[]," * 10_000_000 + b"[]]",
    "tables": b"[" + b"{}," * 10_000_000 + b"{}]",
    "depth": b"[" * 900_000,
    "digits": b'{"choices": ' + b"9" * 5000 + b"}",
    "more digits": b'{"choices": [' + b"9" * 900_000 + b"]}",
    "a key twice": b'{"choices": [], "choices": []}',
    "no UTF-8": b'{"choices": "\xff"}',
    "zeros": bytes(900_000),
    "nothing": b"",
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("path", ["/v1/models", "/version", "/v1/completions"])
def test_no_json_is_expanded_beyond_what_was_asked_for(
    path: str, bomb: str, vllm: MisbehavingServer, connect: Connect
) -> None:
    vllm.path, vllm.body = path, BOMBS[bomb]
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(EngineError, match=r"answers with more than|is not JSON"):
            sample(connect(vllm))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("brackets", [b"[],", b"{},"])
def test_what_was_asked_for_may_be_large_and_not_made_of_brackets(brackets: bytes) -> None:
    body = bytearray(b"[" + brackets * 1_000_000 + b"0]")
    with pytest.raises(ValueError, match="too many brackets"):
        client.parse(body)
    listed = b'"12345": {"logprob": -11.25, "rank": 12345, "decoded_token": "a"}'
    assert len(client.parse(bytearray(b"[" + b",".join([b"{" + listed + b"}"] * 200_000) + b"]"))) == 200_000


@pytest.mark.parametrize(
    "headers",
    [
        b"X: " + b"k" * 200_000 + b"\r\n",
        b"X: y\r\n" * 40_000,
        b"X" * 200_000 + b": y\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"X: \x00\r\n",
    ],
    ids=lambda headers: str(headers[:24]),
)
def test_headers_are_bounded(headers: bytes, vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm)
    vllm.headers, vllm.always = headers, "headers"
    with pytest.raises(EngineError, match="does not speak HTTP"):
        sample(engine)
