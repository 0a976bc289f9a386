"""Faults that pass, faults that last, and how long is waited between attempts."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from misbehaving_server import MisbehavingServer, closed_port
from server_engine import KEY, RETRYING, Connect, sample

from mismatchscope.engines.registry import engine_class
from mismatchscope.engines.server import client as client_module
from mismatchscope.engines.server.client import Client
from mismatchscope.engines.server.failures import retry_after
from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.errors import EngineError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "fault", ["broken", "close", "close chunked", "close at once", "malformed", "noise", "stall"]
)
def test_a_passing_fault_is_passed_over(fault: str, vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, retries="2", timeout="0.3" if fault == "stall" else "5")
    expected = sample(engine)[0].observed.logprob_T
    vllm.attempts.clear()
    vllm.faults = [fault]
    np.testing.assert_array_equal(sample(engine)[0].observed.logprob_T, expected)
    assert len(vllm.attempts) == 2


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("busy", "answers 429: too many requests, 3 times in a row"),
        ("broken", "answers 500: engine is dead"),
        ("close", "closed the connection in the middle of an answer"),
        ("close chunked", "closed the connection in the middle of an answer"),
        ("close at once", "closed the connection in the middle of an answer"),
        ("malformed", "answered /v1/completions with what is not JSON"),
        ("noise", "does not speak HTTP"),
        ("deep", "answered /v1/completions with what is not JSON"),
    ],
)
def test_a_lasting_fault_ends_the_run_with_its_reason(
    fault: str, says: str, vllm: MisbehavingServer, connect: Connect
) -> None:
    engine = connect(vllm, retries="2", timeout="5")
    vllm.always = fault
    with pytest.raises(EngineError) as caught:
        sample(engine)
    assert says in caught.value.message
    assert "--resume" in caught.value.hint
    assert KEY not in caught.value.message
    assert len(vllm.attempts) == 3


@pytest.mark.parametrize("fault", ["stall", "drip"])
def test_a_server_that_hangs_is_tried_once_more(fault: str, vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, retries="9", timeout="0.5")
    vllm.always = fault
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"did not answer in time \(timeout=0\.5\), 2 times in a row") as caught:
        sample(engine)
    assert "--resume" in caught.value.hint
    assert 1.0 <= time.monotonic() - began < 3.0
    assert len(vllm.attempts) == 2


def test_a_refused_connection_is_tried_again_and_then_named(model: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    spec = parse_spec(f"vllm@{url}:retries=1")
    engine = engine_class("vllm", served=True)(str(model), resolve_options(spec))
    with pytest.raises(EngineError, match=f"{url} refuses connections, 2 times in a row") as caught:
        engine.load()
    assert f"curl {url}/v1/models" in caught.value.hint


def test_a_host_that_does_not_exist_is_named() -> None:
    client = Client("http://host.invalid", timeout=5, retries=0, key_env="NONE")
    with pytest.raises(EngineError, match="cannot be found"):
        asyncio.run(client.get("/v1/models"))


def test_a_busy_server_is_given_the_time_that_it_asks_for(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, **RETRYING)
    vllm.faults = ["busy"]
    sample(engine)
    first, second = vllm.attempts
    assert second - first >= 1.0, "Retry-After: 1"


def test_a_busy_server_may_name_a_date(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, **RETRYING)
    vllm.faults = ["busy until a date"]
    sample(engine)
    first, second = vllm.attempts
    assert second - first >= 1.0, "two seconds, in a header of whole seconds"


def test_no_server_is_waited_for_longer_than_for_an_answer(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, retries="1", timeout="0.5")
    vllm.faults = ["busy for a year"]
    sample(engine)
    first, second = vllm.attempts
    assert 0.5 <= second - first < 5


def test_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    assert retry_after("7") == 7.0
    assert 28 < retry_after(format_datetime(soon, usegmt=True)) <= 30
    assert 28 < retry_after(f"{soon:%a, %d %b %Y %H:%M:%S} -0000") <= 30, "a date without a zone"
    assert retry_after(format_datetime(soon - timedelta(hours=1), usegmt=True)) == 0.0
    for value in (
        "",
        "soon",
        "-3",
        "nan",
        "inf",
        "1e9",
        "+5",
        "0x10",
        "1_000",
        "٣",
        "²",
        "９",
        "9" * 5000,
        "\x00",
        "7, 8",
        "1.5e3 years",
        "Mon, 99 Foo 2026 00:00:00 GMT",
        f"1 Jan {'9' * 30} 00:00 GMT",
    ):
        assert retry_after(value) == 0.0, value


def test_retries_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(client_module.asyncio, "sleep", sleep)
    client = Client(f"http://127.0.0.1:{closed_port()}", timeout=1, retries=9, key_env="NONE")
    with pytest.raises(EngineError, match="10 times in a row"):
        asyncio.run(client.get("/v1/models"))
    longest = [min(0.5 * 2**n, 30.0) for n in range(9)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))
    assert len({wait / most for wait, most in zip(waits, longest, strict=True)}) > 1, "no two clients in step"
