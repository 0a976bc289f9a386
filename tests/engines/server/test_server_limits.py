"""Deadlines and sizes that no server can exceed, however slowly or tightly it packs."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from misbehaving_server import MisbehavingServer
from server_engine import Connect, sample

from mismatchscope.engines.server import client
from mismatchscope.errors import EngineError


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


def test_a_body_of_unknown_length_is_cut_off_while_it_comes(
    vllm: MisbehavingServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(vllm, timeout="60", retries="2")
    monkeypatch.setattr(client, "MAX_BODY_BYTES", 2 << 20)
    vllm.always = "oversized"
    with pytest.raises(EngineError, match="answers with more than 2 MiB"):
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
