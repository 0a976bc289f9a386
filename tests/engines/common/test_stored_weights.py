"""The tensors of a checkpoint on disk, against what safetensors reads of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adapters import save_adapter
from safetensors.torch import load_file, save_file
from tiny_models import save_model

from mismatchscope.engines.common.adapter import split_adapter
from mismatchscope.engines.common.loaded_weights import weight_of
from mismatchscope.engines.common.stored_weights import stored_weights
from mismatchscope.errors import ModelError
from mismatchscope.measures.tensor_difference import compare

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def test_every_dtype_is_read_as_it_was_written(tmp_path: Path) -> None:
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) * 10
    tensors = {str(dtype): values.to(dtype) for dtype in DTYPES} | {"scalar": torch.tensor(2.0)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text("{}")
    stored = stored_weights(tmp_path)
    assert stored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        record = compare(name, stored[name], weight_of(tensor))
        assert (record.status, record.dtype, record.shape) == ("same", record.dtype_found, tuple(tensor.shape))


def test_a_tied_head_and_an_adapter_have_the_names_that_they_have_in_the_model(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base")
    _, adapter = split_adapter(str(base), str(save_adapter(base, tmp_path / "adapter")))
    stored = stored_weights(base, adapter)
    on_disk = load_file(base / "model.safetensors")
    assert "lm_head.weight" not in on_disk
    assert (
        compare("head", stored["lm_head.weight"], weight_of(on_disk["model.embed_tokens.weight"])).status == "same"
    )
    assert "model.layers.1.mlp.down_proj.lora_B.weight" in stored
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert "lm_head.weight" not in stored_weights(base)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no safetensors weights"):
        stored_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        stored_weights(tmp_path)
