"""The key goes to the server that the URL names, and nowhere else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from misbehaving_server import MisbehavingServer, closed_port
from server_engine import KEY, RETRYING, Connect, job_of, sample, short_requests

from mismatchscope.engines.runtime.launcher import run_job
from mismatchscope.engines.server.client import Client
from mismatchscope.errors import ConfigError, EngineError, SpecError


def test_a_refused_key_is_a_matter_of_configuration_and_never_shown(
    vllm: MisbehavingServer, connect: Connect, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(vllm, **RETRYING)
    vllm.always = "unauthorized"
    with pytest.raises(ConfigError, match=r"refuses access \(401\)") as caught:
        sample(engine)
    assert caught.value.exit_code == 2
    assert "export MISMATCHSCOPE_API_KEY=" in caught.value.hint
    assert len(vllm.attempts) == 1
    shown = caught.value.message + caught.value.hint + "".join(capfd.readouterr())
    assert KEY not in shown

    monkeypatch.delenv("MISMATCHSCOPE_API_KEY")
    vllm.always = ""
    engine = connect(vllm)
    assert vllm.authorizations[-1] is None
    vllm.always = "unauthorized"
    with pytest.raises(ConfigError, match=r"\$MISMATCHSCOPE_API_KEY is not set"):
        sample(engine)


def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("two words", "line\nbreak", "schlüssel"):
        monkeypatch.setenv("MY_KEY", key)
        with pytest.raises(ConfigError) as caught:
            Client("http://127.0.0.1:1", timeout=1, retries=0, key_env="MY_KEY")
        assert key not in caught.value.message
    monkeypatch.setenv("MY_KEY", "from-a-file\n")
    Client("http://127.0.0.1:1", timeout=1, retries=0, key_env="MY_KEY")


def test_the_key_stays_out_of_everything_that_a_run_writes(
    vllm: MisbehavingServer, model: Path, tmp_path: Path
) -> None:
    job = job_of(f"vllm@{vllm.url}:retries=1", model, tmp_path, short_requests(1))
    vllm.faults = ["broken"]
    events: list[object] = []
    run_job(job, log_path=tmp_path / "log", on_event=events.append)
    assert f"Bearer {KEY}" in vllm.authorizations
    assert "retry 1 of 1" in (tmp_path / "log").read_text()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written + json.dumps(events).encode()


@pytest.mark.parametrize("fault", ["broken", "key as reason", "busy", "malformed", "redirect", "other form"])
def test_no_error_repeats_the_key(
    fault: str, vllm: MisbehavingServer, connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = connect(vllm, retries="1", timeout="0.5")
    vllm.always = fault
    with pytest.raises(EngineError) as caught:
        sample(engine)
    assert f"Bearer {KEY}" in vllm.authorizations
    shown = f"{caught.value!r} {caught.value.message} {caught.value.hint} {capfd.readouterr()}"
    assert KEY not in shown
    assert "[key]" in shown or fault not in ("broken", "key as reason")


def test_a_redirect_takes_the_key_nowhere(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, **RETRYING)
    with MisbehavingServer("vllm") as elsewhere:
        vllm.always, vllm.redirect_to = "redirect", f"{elsewhere.url}/v1/completions"
        with pytest.raises(EngineError, match=r"redirects elsewhere \(307\)") as caught:
            sample(engine)
        assert "the URL that it redirects to" in caught.value.hint
        assert (elsewhere.attempts, elsewhere.authorizations, elsewhere.connections) == ([], [], 0)


def test_no_proxy_is_told_of_requests(
    vllm: MisbehavingServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{closed_port()}")
    assert len(sample(connect(vllm), count=2)) == 2


def test_cookies_are_not_kept(vllm: MisbehavingServer, connect: Connect) -> None:
    engine = connect(vllm, concurrency="1")
    vllm.always = "cookie"
    sample(engine, count=3)
    assert vllm.cookies == [None, None, None]


def test_what_httpx_takes_for_no_url_is_refused_like_any_other() -> None:
    with pytest.raises(SpecError, match="is not the URL of a server"):
        asyncio.run(Client("http://a\x00b", timeout=1, retries=0, key_env="NONE").get("/v1/models"))
