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
from ...input_files import check_regular, parse_json, read_bytes, read_text, reason

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


TEXT_BYTES = 2**30  # thirty times the largest tokenizer.json
_READ_BY_LIBRARIES = (".json", ".jinja", ".txt", ".model", ".py")
_WEIGHTS = ".safetensors"


def check_files(directory: Path) -> None:
    """Raise `ModelError` where a file that some library reads of a model or an adapter is none, or far too large.

    They open by their path what they find, and a pipe or a device would never end.
    """
    for file in sorted(directory.iterdir()):
        if file.suffix not in (*_READ_BY_LIBRARIES, _WEIGHTS):
            continue
        try:
            check_regular(file, None if file.suffix == _WEIGHTS else TEXT_BYTES)
        except FileNotFoundError:
            continue  # a link to nothing is as good as no file
        except OSError as error:
            raise ModelError(
                f"{file} cannot be read: {reason(error)}", hint="download the checkpoint again"
            ) from None


def identity(directory: Path) -> dict[str, Any]:
    """Of the `model` entry of a manifest: `config`, `generation_config`, `files` and `chat_template_sha256`.

    A file that is not there has no keys: {}. A checkpoint without a chat template has none: None. `files` are those
    of the tokenizer, and the Python code that a model brings along. Raises `ModelError` for what is not JSON.
    """
    names = [*TOKENIZER_FILES, *sorted(file.name for file in directory.glob("*.py"))]
    check_files(directory)
    return {
        "config": read_json(directory / "config.json"),
        "generation_config": _keys(directory / "generation_config.json"),
        "files": {name: _sha256(file) for name in names if (file := directory / name).is_file()},
        "chat_template_sha256": _chat_template_sha256(directory),
    }


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; `ModelError` where there is none."""
    try:
        value = parse_json(read_bytes(path))
        if not isinstance(value, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {reason(error)}", hint="download the checkpoint again") from error
    return value


def _keys(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, TEXT_BYTES)).hexdigest()


def _chat_template_sha256(directory: Path) -> str | None:
    """Of the template's text, wherever it is kept: in a file of its own, or in tokenizer_config.json."""
    file = directory / "chat_template.jinja"
    try:
        template: Any = read_text(file) if file.is_file() else None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {reason(error)}", hint="download the checkpoint again") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = template or _keys(directory / name).get("chat_template")
    if not template:
        return None
    text = (
        template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    )  # several, by their names
    return hashlib.sha256(text.encode()).hexdigest()
