"""Prompts files: JSON lines, plain text or Parquet. A bad line is named by file and line number."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..durable import write_atomic
from ..errors import PromptsError
from ..input_files import check_regular, open_regular, parse_json, reason
from ..parquet_files import check_expansion, open_parquet
from .chats import kind_of
from .rows import MEDIA_COLUMNS, PROMPT_COLUMNS, TEMPLATE_COLUMNS, Prompt, check_columns, prompt_of_row

_PARQUET_ROWS = 256  # read at a time
_SHARE_OF_MEMORY = 64  # as Python objects they take ten times what they have as columns
_LINE_BYTES = 256 * 2**20  # of one prompt: fifty times what the longest context of any model holds


def load_prompts(path: Path, limit: int | None = None, column: str | None = None) -> list[Prompt]:
    """Read the first `limit` prompts of a .jsonl, .txt or .parquet file.

    `column` is the one that holds the prompt, and the others are left unread but for the arguments of the chat
    template. Without one the prompt is under one of `rows.PROMPT_COLUMNS`, and every column must be known.

    Raises `PromptsError` for a file that is missing, unreadable, empty or of another kind, for any bad line, and
    for a pipe: a run that goes on, or is repeated, reads its prompts once more.
    """
    try:
        check_regular(path)
    except OSError as error:
        raise _unreadable(path, error) from None
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
        for prompt in reader(path, column):
            prompts.append(prompt)
            if limit is not None and len(prompts) >= limit:
                break
    except OSError as error:
        raise _unreadable(path, error) from None
    if not prompts:
        raise PromptsError(f"{path} holds no prompts.", hint="add one prompt a line")
    return prompts


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> None:
    """Write prompts as a .jsonl file that `load_prompts` reads as the same ones, where it is not that already."""
    data = "".join(json.dumps(prompt.to_row()) + "\n" for prompt in prompts).encode()
    if not path.is_file() or path.read_bytes() != data:
        write_atomic(path, data)


def _unreadable(path: Path, error: OSError) -> PromptsError:
    piped = path.is_fifo() or path.is_char_device() or path.is_socket()
    return PromptsError(
        f"The prompts file {path} cannot be read: {reason(error)}.",
        hint="write the prompts to a file first, … > prompts.jsonl, and add --prompts prompts.jsonl"
        if piped
        else "check --prompts",
    )


def _read_text(path: Path, column: str | None) -> Iterator[Prompt]:
    if column is not None:
        raise PromptsError(f"{path} has no columns: each line is a prompt.", hint="leave --prompt-column out")
    for index, (_, line) in enumerate(_lines(path)):
        yield Prompt(index, prompt=line.rstrip("\r\n"))


def _read_jsonl(path: Path, column: str | None) -> Iterator[Prompt]:
    for index, (where, line) in enumerate(_lines(path)):
        row = _json_of(line, where)
        if not isinstance(row, dict):
            raise PromptsError(f"{where} is {kind_of(row)}, not a JSON object.", hint='{"prompt": "…"}')
        prompt = prompt_of_row(row, index, where, column)
        if column is None:
            check_columns(row, where, "key")
        yield prompt


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines with something in them, each with its place, as in "prompts.jsonl:3"."""
    with open_regular(path) as lines:
        for number in itertools.count(1):
            line = lines.readline(_LINE_BYTES + 1)
            if not line:
                return
            where = f"{path}:{number}"
            if len(line) > _LINE_BYTES:
                raise PromptsError(
                    f"{where} is longer than {_LINE_BYTES // 2**20} MiB, which is no prompt.",
                    hint="one prompt a line",
                )
            try:
                # Some editors begin a file with a byte order mark.
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise PromptsError(
                    f"{where} is not UTF-8 text (byte {error.start} of the line: {error.reason}).",
                    hint="save it as UTF-8",
                ) from None
            if text.strip():
                yield where, text


def _json_of(line: str, where: str) -> Any:
    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise PromptsError(f"{where} has the key {twice!r} twice in one object.", hint="keep one of them")
        return value

    try:
        return parse_json(line, object_of)
    except json.JSONDecodeError as error:
        raise PromptsError(
            f"{where} is not JSON: {error.msg} at column {error.colno}.", hint="one JSON object a line"
        ) from None
    except ValueError as error:
        raise PromptsError(f"{where} cannot be read: {reason(error)}.", hint="leave such rows out") from None


def _read_parquet(path: Path, column: str | None) -> Iterator[Prompt]:
    """Lists of structs are chats. A struct has every key that any row of its column has: null is "not there"."""
    import pyarrow as pa

    try:
        file = open_parquet(path)
        names = file.schema_arrow.names
        wanted = [column] if column else PROMPT_COLUMNS
        if not set(wanted) & set(names):
            raise PromptsError(
                f"{path} has no column {' or '.join(wanted)}; its columns are {', '.join(names)}.",
                hint="--prompt-column NAME says which one holds the prompt",
            )
        if column is None:
            check_columns(names, str(path), "column")
        columns = [name for name in names if name in (*wanted, *TEMPLATE_COLUMNS, *MEDIA_COLUMNS)]
        check_expansion(path, file, columns, _SHARE_OF_MEMORY)
        index = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
            for row in range(batch.num_rows):
                where = f"{path}: row {index + 1}"
                yield prompt_of_row(_row_of(batch.slice(row, 1), where), index, where, column)
                index += 1
    except (pa.ArrowException, ValueError) as error:
        raise PromptsError(
            f"{path} is not a readable Parquet file: {reason(error)}.", hint="check --prompts"
        ) from None


def _row_of(batch: Any, where: str) -> dict[str, Any]:
    try:
        [row] = batch.to_pylist()
    except UnicodeDecodeError as error:
        raise PromptsError(
            f"{where} has text that is not UTF-8 ({error.reason}).", hint="write it as UTF-8"
        ) from None
    return _without_nulls(row)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value
