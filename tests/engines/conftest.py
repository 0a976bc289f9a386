from __future__ import annotations

from pathlib import Path

import pytest
from offline import Engine
from tiny_models import save_model

from mismatchscope.demo import model_path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded models, and a wider one whose numbers depend on the shapes of its matrix products."""
    wide = tmp_path_factory.mktemp("models") / "wide"
    shape = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "head_dim": 64}
    save_model(wide, **shape, vocab_size=2048, max_position_embeddings=512, initializer_range=0.05)
    return {"dense": model_path("dense"), "moe": model_path("moe"), "wide": wide}


@pytest.fixture(scope="session")
def runs_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def engine(spec: str, models: dict[str, Path], runs_directory: Path) -> Engine:
    """The engine version that a test is parametrised with, as `spec`; its jobs are shared by the session."""
    return Engine(spec, models, runs_directory / spec)
