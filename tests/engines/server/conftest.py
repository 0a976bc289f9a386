from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer
from misbehaving_server import MisbehavingServer
from server_engine import KEY, Connect, V

from mismatchscope.engines.registry import engine_class
from mismatchscope.engines.server import client
from mismatchscope.engines.server.engine import ServerEngine
from mismatchscope.engines.spec import parse_spec, resolve_options


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory without a tokenizer and without weights."""
    directory = tmp_path / "model"
    directory.mkdir()
    config = {"vocab_size": V, "max_position_embeddings": 64, "eos_token_id": 0, "architectures": ["Fake"]}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def connect(model: Path) -> Iterator[Connect]:
    """connect(server, directory of the model, **options): a loaded engine, which does not retry unless told to."""
    engines = []

    def connect(server: FakeServer, directory: Path = model, /, **options: str) -> ServerEngine:
        pairs = ",".join(f"{key}={value}" for key, value in ({"retries": "0"} | options).items())
        spec = parse_spec(f"{server.kind}@{server.url}:{pairs}")
        engine = engine_class(spec.name, served=True)(str(directory), resolve_options(spec))
        engine.load()
        engines.append(engine)
        if isinstance(server, MisbehavingServer):
            server.attempts.clear()
        return engine

    yield connect
    for engine in engines:
        engine.close()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once, and with a key."""
    monkeypatch.setattr(client, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setenv("MISMATCHSCOPE_API_KEY", KEY)


@pytest.fixture
def vllm(hurry: None) -> Iterator[MisbehavingServer]:
    with MisbehavingServer("vllm") as server:
        yield server


@pytest.fixture
def sglang(hurry: None) -> Iterator[MisbehavingServer]:
    with MisbehavingServer("sglang", stage="tempered") as server:
        yield server
