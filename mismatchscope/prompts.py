"""Prompts files: JSON lines, plain text or Parquet. A bad line is named by file and line number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import PromptsError

_FIELDS = ("prompt", "messages", "prompt_token_ids")


@dataclass(frozen=True)
class Prompt:
    """One prompt: text, chat messages or token ids; `prompt_id` is its position in the file, from 0."""

    prompt_id: int
    prompt: str | list[dict[str, str]] | None = None
    token_ids: list[int] | None = None


def load_prompts(path: Path, limit: int | None = None) -> list[Prompt]:
    """Read the first `limit` prompts of a .jsonl, .txt or .parquet file.

    Raises `PromptsError` for a file that is missing, unreadable, empty or of another kind, and for any bad line.
    """
    readers = {".jsonl": _read_jsonl, ".txt": _read_text, ".parquet": _read_parquet}
    reader = readers.get(path.suffix)
    if reader is None:
        raise PromptsError(
            f"{path} is not a prompts file: its name must end in {', '.join(readers)}.",
            hint="one JSON object a line with a key prompt, messages or prompt_token_ids is the usual form",
        )
    if limit is not None and limit < 1:
        raise PromptsError(f"A limit of {limit} prompts leaves nothing to run.", hint="--limit 1 or more")
    prompts: list[Prompt] = []
    try:
        for prompt in reader(path):
            prompts.append(prompt)
            if limit is not None and len(prompts) >= limit:
                break
    except OSError as error:
        raise PromptsError(
            f"The prompts file {path} cannot be read: {error.strerror or error}.", hint="check --prompts"
        ) from None
    except UnicodeDecodeError as error:
        raise PromptsError(
            f"{path} is not UTF-8 text (byte {error.start}: {error.reason}).", hint="save it as UTF-8"
        ) from None
    if not prompts:
        raise PromptsError(f"{path} holds no prompts.", hint="add one prompt a line")
    return prompts


def _read_text(path: Path) -> Iterator[Prompt]:
    with open(path, encoding="utf-8") as lines:
        texts = (line.rstrip("\r\n") for line in lines)
        for index, text in enumerate(text for text in texts if text.strip()):
            yield Prompt(index, prompt=text)


def _read_jsonl(path: Path) -> Iterator[Prompt]:
    index = 0
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise PromptsError(
                    f"{where} is not JSON: {error.msg} at column {error.colno}.", hint="one JSON object a line"
                ) from None
            if not isinstance(row, dict):
                raise PromptsError(f"{where} is {_kind(row)}, not a JSON object.", hint='{"prompt": "…"}')
            yield _prompt(row, index, where)
            index += 1


def _read_parquet(path: Path) -> Iterator[Prompt]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        columns = [name for name in _FIELDS if name in file.schema_arrow.names]
        rows = (row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist())
        for index, row in enumerate(rows):
            present = {key: value for key, value in row.items() if value is not None}
            yield _prompt(present, index, f"{path}: row {index + 1}")
    except pa.ArrowInvalid as error:
        raise PromptsError(f"{path} is not a readable Parquet file: {error}.", hint="check --prompts") from None


def _prompt(row: dict[str, Any], index: int, where: str) -> Prompt:
    given = [name for name in _FIELDS if name in row]
    if len(given) != 1:
        found = f"it has {' and '.join(given)}" if given else f"its keys are {', '.join(row) or 'none'}"
        raise PromptsError(
            f"{where} must have exactly one of {', '.join(_FIELDS)}; {found}.", hint='{"prompt": "…"}'
        )
    name, value = given[0], row[given[0]]
    if name == "prompt":
        if not isinstance(value, str) or not value:
            raise PromptsError(f"{where}: prompt is {_kind(value)}, not a text with something in it.")
        return Prompt(index, prompt=value)
    if name == "messages":
        if not isinstance(value, list) or not value or not all(_is_message(message) for message in value):
            raise PromptsError(
                f"{where}: messages must be a list of objects with the texts role and content.",
                hint='{"messages": [{"role": "user", "content": "…"}]}',
            )
        return Prompt(index, prompt=value)
    if not isinstance(value, list) or not value or not all(_is_token_id(item) for item in value):
        raise PromptsError(
            f"{where}: prompt_token_ids must be a list of at least one token id, each an integer from 0.",
            hint='{"prompt_token_ids": [1, 2, 3]}',
        )
    return Prompt(index, token_ids=value)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def _is_token_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _kind(value: Any) -> str:
    if value == "":
        return "an empty text"
    names = {str: "a text", list: "a list", dict: "an object", type(None): "null", bool: "a boolean"}
    return names.get(type(value), "a number")
