"""One row of a prompts file as a `Prompt`. What a row holds and nobody reads is refused by its name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import PromptsError
from .chats import kind_of, messages_of, parsed, template_arguments_of

PROMPT_COLUMNS = ("prompt", "messages", "prompt_token_ids")
TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")
MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
UNREAD_COLUMNS = frozenset(
    [
        *("answer", "solution", "ground_truth", "label", "completion", "chosen", "rejected"),
        *("score", "score_chosen", "score_rejected", "reward", "reward_model", "extra_info"),
        *("data_source", "ability", "agent_name", "source", "dataset", "split", "metadata"),
        *("id", "prompt_id", "example_id", "index", "__index_level_0__", "uid", "info"),
        *("task", "category", "topic", "subject", "difficulty", "level"),
    ]
)
"""What files have beside the prompt and no token of it depends on: the answer, its reward, the row's origin."""

_TAKES_ONE = "--prompt-column NAME takes one column and leaves the others unread"


@dataclass(frozen=True)
class Prompt:
    """One prompt: text, chat messages or token ids; `prompt_id` is its position in the file, from 0.

    `template_arguments` is what the chat template is given beside the messages: `tools`, and the row's
    `chat_template_kwargs`.
    """

    prompt_id: int
    prompt: str | list[dict[str, Any]] | None = None
    token_ids: list[int] | None = None
    template_arguments: dict[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """The row that `prompt_of_row` makes this prompt of."""
        if self.token_ids is not None:
            return {"prompt_token_ids": self.token_ids}
        others = {key: value for key, value in self.template_arguments.items() if key != "tools"}
        row = {
            "messages" if isinstance(self.prompt, list) else "prompt": self.prompt,
            "tools": self.template_arguments.get("tools"),
            "chat_template_kwargs": others or None,
        }
        return {key: value for key, value in row.items() if value is not None}


def prompt_of_row(row: Mapping[str, Any], prompt_id: int, where: str, column: str | None = None) -> Prompt:
    """The prompt of a row, found in `column`, else in the one of `PROMPT_COLUMNS` that it has.

    `where` names the row in errors, as in "prompts.jsonl:3". Raises `PromptsError` for a row without a prompt, or
    with several, for a key that is not read, for pictures and sound, and for text that is not Unicode.
    """
    column = column or _prompt_column(row, where)
    if column not in row:
        raise PromptsError(f"{where} has no {column!r}; its keys are {_listed(row)}.", hint="check --prompt-column")
    _check_media(row, where)
    value, template = row[column], {key: row.get(key) for key in TEMPLATE_COLUMNS}
    arguments = template_arguments_of(**template, where=where)
    _check_unicode(arguments, f"{where}: {' or '.join(key for key in template if template[key])}")
    if _is_chat(value):
        messages = messages_of(value, f"{where}: {column}")
        _check_unicode(messages, f"{where}: {column}")
        return Prompt(prompt_id, prompt=messages, template_arguments=arguments)
    if arguments:
        raise PromptsError(
            f"{where} has {' and '.join(key for key in template if template[key])} for a chat template, "
            f"and no chat: {column} is {kind_of(value)}.",
            hint="give the prompt as messages, or leave them out",
        )
    return _without_template(value, prompt_id, where, column)


def _without_template(value: Any, prompt_id: int, where: str, column: str) -> Prompt:
    if column == "messages":
        messages_of(value, f"{where}: {column}")  # which says what it lacks
    if isinstance(value, list) and value and all(_is_token_id(item) for item in value):
        return Prompt(prompt_id, token_ids=value)
    if column == "prompt_token_ids":
        raise PromptsError(
            f"{where}: prompt_token_ids must be a list of at least one token id, each an integer from 0.",
            hint='{"prompt_token_ids": [1, 2, 3]}',
        )
    if not isinstance(value, str) or not value:
        raise PromptsError(
            f"{where}: {column} is {kind_of(value)}, not a text with something in it, a chat or token ids.",
            hint=f'"{column}": "…" or "{column}": [{{"role": "user", "content": "…"}}]',
        )
    if value.lstrip().startswith("[") and _is_chat(parsed(value)):
        raise PromptsError(
            f"{where}: {column} is a text that holds a chat as JSON, which would be tokenised as it stands.",
            hint="write the list itself, not its JSON text",
        )
    _check_unicode(value, f"{where}: {column}")
    return Prompt(prompt_id, prompt=value)


def check_columns(names: Iterable[str], where: str, kind: str) -> None:
    """Raise `PromptsError` for a column that is neither read nor known to leave the prompt as it is."""
    known = {*PROMPT_COLUMNS, *TEMPLATE_COLUMNS, *MEDIA_COLUMNS}
    for name in names:
        if name in known or name in UNREAD_COLUMNS:
            continue
        near = difflib.get_close_matches(name, [*PROMPT_COLUMNS, *TEMPLATE_COLUMNS], n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise PromptsError(f"{where} has the {kind} {name!r}, which is not read.", hint=f"{meant}{_TAKES_ONE}")


def _check_media(row: Mapping[str, Any], where: str) -> None:
    """Raise `PromptsError` where a row has pictures, films or sound for its prompt."""
    for name in MEDIA_COLUMNS:
        if row.get(name) not in (None, [], "", {}):
            raise PromptsError(
                f"{where} has {name}, and prompts are text alone.", hint="leave such rows out of the file"
            )


def _prompt_column(row: Mapping[str, Any], where: str) -> str:
    """The one column that has a prompt in it; a null beside it is as good as none."""
    present = [name for name in PROMPT_COLUMNS if name in row]
    given = [name for name in present if row[name] is not None] or present
    if len(given) == 1:
        return given[0]
    found = f"it has {' and '.join(given)}" if given else f"its keys are {_listed(row)}"
    raise PromptsError(f"{where} must have exactly one of {', '.join(PROMPT_COLUMNS)}; {found}.", hint=_TAKES_ONE)


def _check_unicode(value: Any, where: str) -> None:
    for text in _texts_of(value):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(text[error.start]):04x}"
            raise PromptsError(
                f"{where} has a lone surrogate, {half}, which no UTF-8 text can hold.",
                hint="write both halves of the surrogate pair, or leave it out",
            ) from None


def _texts_of(value: Any) -> Iterator[str]:
    """Every text in a JSON value, the keys of objects too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield key
            yield from _texts_of(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts_of(entry)


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(key if key.isidentifier() else repr(key) for key in row) or "none"


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_token_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
