"""What tells two checkpoints apart beside their weights: every key of their configuration, their tokenizer files.

Keys and files are those on disk, not those of a loaded configuration: a library fills in defaults of its own, and
two engines that read one checkpoint must say the same of it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ...errors import ModelError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""What decides how text becomes token ids."""


def identity(directory: Path) -> dict[str, Any]:
    """Of the `model` entry of a manifest: `config`, `generation_config`, `files` and `chat_template_sha256`.

    A file that is not there has no keys: {}. A checkpoint without a chat template has none: None. `files` are those
    of the tokenizer, and the Python code that a model brings along. Raises `ModelError` for what is not JSON.
    """
    names = [*TOKENIZER_FILES, *sorted(file.name for file in directory.glob("*.py"))]
    return {
        "config": read_json(directory / "config.json"),
        "generation_config": _keys(directory / "generation_config.json"),
        "files": {name: _sha256(file) for name in names if (file := directory / name).is_file()},
        "chat_template_sha256": _chat_template_sha256(directory),
    }


def read_json(path: Path) -> Any:
    """The content of a JSON file; `ModelError` where it is none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}", hint="download the checkpoint again") from error


def _keys(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _chat_template_sha256(directory: Path) -> str | None:
    """Of the template's text, wherever it is kept: in a file of its own, or in tokenizer_config.json."""
    file = directory / "chat_template.jinja"
    template: Any = file.read_text(encoding="utf-8") if file.is_file() else None
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = template or _keys(directory / name).get("chat_template")
    if not template:
        return None
    text = (
        template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    )  # several, by their names
    return hashlib.sha256(text.encode()).hexdigest()
