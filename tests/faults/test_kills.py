"""SIGKILL at random moments, of the command and of its worker: whatever was killed, the run resumes to the figures
of one that nobody disturbed, and leaves neither a process nor a temporary file behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fork_server
import pytest
from fake_server import POLICY, FakeServer
from killed_runs import KilledRuns, Victim

from mismatchscope.environments import find

pytestmark = pytest.mark.slow

SMALL = ["--limit", "4", "--samples", "2", "--max-new-tokens", "16", "--evidence", "topk:8"]


@pytest.mark.parametrize("victim", ["command", "worker"])
def test_synthetic(tmp_path: Path, victim: Victim) -> None:
    sides = ["--behavior", "synthetic:noise=0.003,slow=0.03", "--reference", "synthetic:tv=0.05,slow=0.03"]
    assert KilledRuns(["audit", *sides, *SMALL], tmp_path, seed=1).kill([victim], 20)


def test_server(tmp_path: Path) -> None:
    model, prompts = tmp_path / "model", tmp_path / "prompts.jsonl"
    model.mkdir()
    config = {"vocab_size": POLICY.vocabulary, "max_position_embeddings": 64, "eos_token_id": 0}
    (model / "config.json").write_text(json.dumps(config))
    prompts.write_text("".join(json.dumps({"prompt_token_ids": [3 + i, 9, 20]}) + "\n" for i in range(4)))
    with FakeServer("vllm", seconds=0.05) as server:
        spec = f"vllm@{server.url}:batch_size=2"
        sides = ["--model", str(model), "--prompts", str(prompts), "--behavior", spec, "--reference", spec]
        assert KilledRuns(["audit", *sides, *SMALL], tmp_path, seed=2).kill(["command", "worker"], 20)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("transformers", ""),
        pytest.param(
            "vllm==0.32.0",
            ",enforce_eager=true,kv_cache_memory_bytes=268435456",
            marks=pytest.mark.engines,
        ),
        pytest.param("sglang==0.5.23", "", marks=pytest.mark.engines),
    ],
)
def test_engine(tmp_path: Path, spec: str, options: str) -> None:
    """Its worker is a fork of a process that has imported the engine: many starts of its own take minutes."""
    name, _, version = spec.partition("==")
    python = Path(sys.executable)
    if version:
        environment = find(name, version)
        if environment is None:
            pytest.skip(f"no environment: mismatchscope env create {spec}")
        python = environment.python
    client = fork_server.interpreter(python, name)
    engine = f"{name}:python={client},dtype=float32,batch_size=4{options}"
    sides = ["--model", "demo:dense", "--behavior", engine, "--reference", "synthetic:vocabulary=1024"]
    runs = KilledRuns(["audit", *sides, *SMALL], tmp_path, seed=3, server=fork_server.server_of(client))
    assert runs.kill(["command", "worker"], 8)
