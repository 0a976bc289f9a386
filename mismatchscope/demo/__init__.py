"""The embedded models: two small language models of worked arithmetic, their tokenizer and their prompts.

They let every command run with nothing downloaded. `MODEL_CARD.md` beside this file says how they were
trained and what was measured on them; scripts/train_demo_models.py makes them.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from ..errors import ModelError

__all__ = ["MODELS", "model_path", "prompts_path"]

MODELS = ("dense", "moe")
"""`dense` is a Qwen3, `moe` a Qwen3-MoE with 8 experts of which 2 serve a token."""

_DIRECTORY = Path(__file__).resolve().parent


def model_path(name: str) -> Path:
    """Directory of an embedded model: configuration, bfloat16 safetensors, tokenizer.

    Raises ModelError when no embedded model has this name, or when its weights are missing from the
    installation.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.5)
        raise ModelError(
            f"There is no embedded model {name!r}.",
            hint=f"Did you mean {near[0]!r}?" if near else f"The embedded models are: {', '.join(MODELS)}.",
        )
    directory = _DIRECTORY / name
    if not (directory / "model.safetensors").is_file():
        raise ModelError(
            f"The weights of the embedded model {name!r} are missing from this installation ({directory}).",
            hint="pip install --force-reinstall mismatchscope",
        )
    return directory


def prompts_path() -> Path:
    """JSON-lines file of 256 problems that the embedded models were not trained on: `prompt` and `answer`."""
    return _DIRECTORY / "prompts.jsonl"
