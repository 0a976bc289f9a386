"""A run behind a server that is killed, or whose server fails, goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from misbehaving_server import MisbehavingServer
from server_engine import REQUESTS, TOPK, UNCHANGED, job_of, short_requests

from mismatchscope.engines.runtime.launcher import run_job
from mismatchscope.errors import EngineError
from mismatchscope.records import finished_parts, read_part


def test_a_killed_run_goes_on_without_asking_again(model: Path, tmp_path: Path) -> None:
    with FakeServer("vllm") as server:
        spec = f"vllm@{server.url}:batch_size=2"
        job = job_of(spec, model, tmp_path, REQUESTS, evidence=TOPK, sampling=UNCHANGED)
        run_job(job, log_path=tmp_path / "log", on_event=lambda _: None)
        parts = finished_parts(tmp_path / "parts")
        kept = {key: path.read_bytes() for key, path in parts.items()}
        assert sorted(kept) == [0, 1, 2, 3, 4]
        assert [read_part(parts[key]).batch for key in sorted(kept)] == [0, 0, 1, 1, 2]

        parts[3].unlink()
        server.received.clear()
        run_job(job, log_path=tmp_path / "log", on_event=lambda _: None)
        assert {key: path.read_bytes() for key, path in finished_parts(tmp_path / "parts").items()} == kept
        prompts = sorted(body["prompt"][0] for body in server.generations if body["max_tokens"] == 6)
        assert prompts == [5, 6], "the batch of sequences 2 and 3, and nothing else"


@pytest.mark.slow
def test_what_was_finished_before_a_fault_is_kept(vllm: MisbehavingServer, model: Path, tmp_path: Path) -> None:
    job = job_of(f"vllm@{vllm.url}:retries=0,concurrency=1", model, tmp_path, short_requests(4))
    seen: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        seen.append(event["event"])
        if event["event"] == "sequence" and seen.count("sequence") == 2:
            vllm.always = "broken"

    vllm.seconds = 0.1
    with pytest.raises(EngineError, match="answers 500"):
        run_job(job, log_path=tmp_path / "log", on_event=on_event)
    kept = finished_parts(tmp_path / "parts")
    assert 2 <= len(kept) < 4
    vllm.always = ""
    run_job(job, log_path=tmp_path / "log", on_event=on_event)
    assert len(finished_parts(tmp_path / "parts")) == 4
