from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_engine import Load
from tiny_models import save_model

from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    save_model(directory / "tiny")
    save_model(directory / "wide", hidden_size=512, num_hidden_layers=1)
    save_model(directory / "large heads", head_dim=16)  # flex takes none that are smaller on a GPU
    return directory


@pytest.fixture(scope="session")
def load(models: Path) -> Load:
    """Engines by model and options, each loaded once; on the CPU, as the oracles are, unless told otherwise."""
    loaded: dict[tuple[str, TransformersOptions], TransformersEngine] = {}

    def load_once(model: str = "tiny", **options: object) -> TransformersEngine:
        key = (model, TransformersOptions(**{"dtype": "float32", "device": "cpu"} | options))
        if key[1].device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        if key not in loaded:
            loaded[key] = TransformersEngine(str(models / model), key[1])
            loaded[key].load()
        return loaded[key]

    return load_once
