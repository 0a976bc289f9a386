"""The tensors of a checkpoint as they lie on disk, and those of its adapter, by their names in the model."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelError
from ...measures.tensor_difference import Weight
from .adapter import WEIGHTS, Adapter
from .checkpoint import read_config, weight_files

# What safetensors calls a dtype: torch's name, and how numpy reads it. Eight-bit floats are compared by their bits.
_DTYPES: dict[str, tuple[str, Any]] = {
    "F64": ("float64", np.float64),
    "F32": ("float32", np.float32),
    "F16": ("float16", np.float16),
    "BF16": ("bfloat16", np.uint16),
    "F8_E4M3": ("float8_e4m3fn", np.uint8),
    "F8_E5M2": ("float8_e5m2", np.uint8),
    "I64": ("int64", np.int64),
    "I32": ("int32", np.int32),
    "I16": ("int16", np.int16),
    "I8": ("int8", np.int8),
    "U8": ("uint8", np.uint8),
    "BOOL": ("bool", np.uint8),
}
HEAD = "lm_head.weight"
EMBEDDING = "embed_tokens.weight"
_ADAPTER_PREFIX = "base_model.model."
"""What peft puts before the names of a model's modules."""


def stored_weights(directory: Path, adapter: Adapter | None = None) -> dict[str, Weight]:
    """Every tensor, mapped, not read. A head that is tied to the embeddings is there under its own name too.

    Raises `ModelError` for a directory without safetensors, and for a file that is none.
    """
    weights = {name: weight for file in weight_files(directory) for name, weight in mapped(file).items()}
    embedding = embedding_of(weights)
    if HEAD not in weights and embedding is not None and _ties_head(directory):
        weights[HEAD] = embedding
    if adapter is not None:
        added = mapped(adapter.directory / WEIGHTS)
        weights |= {name.removeprefix(_ADAPTER_PREFIX): weight for name, weight in added.items()}
    return weights


def of_adapters(weights: Mapping[str, Weight]) -> list[str]:
    """The names of a LoRA's tensors among those of its base."""
    return [name for name in weights if ".lora_" in name]


def embedding_of(weights: Mapping[str, Weight]) -> Weight | None:
    """The input embeddings, by their usual name."""
    return next((weight for name, weight in weights.items() if name.endswith(EMBEDDING)), None)


def _ties_head(directory: Path) -> bool:
    config = read_config(directory)
    return bool(config.get("tie_word_embeddings", config.get("text_config", {}).get("tie_word_embeddings")))


def mapped(path: Path) -> dict[str, Weight]:
    """The tensors of one file. Its header: eight bytes with the length of the JSON that follows."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # checks the header, and that the tensors fill the file
            content = np.memmap(path, dtype=np.uint8, mode="r")
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file: {error}", hint="download the checkpoint again"
        ) from error
    [length] = struct.unpack("<Q", bytes(content[:8]))
    header = json.loads(bytes(content[8 : 8 + length]))
    header.pop("__metadata__", None)
    return {name: _weight(content[8 + length :], entry) for name, entry in header.items()}


def _weight(content: np.ndarray, entry: dict[str, Any]) -> Weight:
    start, end = entry["data_offsets"]
    if entry["dtype"] not in _DTYPES:  # bytes, which can be the same or not
        return Weight(content[start:end], entry["dtype"])
    dtype, kind = _DTYPES[entry["dtype"]]
    return Weight(content[start:end].view(kind).reshape(entry["shape"]), dtype)
