"""Which key of a row is the prompt, which ones may stand beside it, and what happens to any other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mismatchscope.errors import PromptsError
from mismatchscope.prompts.rows import (
    MEDIA_COLUMNS,
    PROMPT_COLUMNS,
    TEMPLATE_COLUMNS,
    UNREAD_COLUMNS,
    Prompt,
    check_columns,
    prompt_of_row,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")

CHAT = [{"role": "user", "content": "2 + 2?"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def read(row: dict[str, Any], column: str | None = None) -> Prompt:
    return prompt_of_row(row, 4, "p.jsonl:5", column)


def test_a_chat_is_read_under_either_name() -> None:
    assert read({"prompt": CHAT}) == read({"messages": CHAT}) == Prompt(4, prompt=CHAT)
    assert read({"prompt": CHAT, "messages": None, "completion": "4"}) == Prompt(4, prompt=CHAT)


def test_tools_and_arguments_go_with_the_chat() -> None:
    row = {"messages": CHAT, "tools": TOOLS, "chat_template_kwargs": {"enable_thinking": False}}
    assert read(row).template_arguments == {"tools": TOOLS, "enable_thinking": False}
    assert read(row | {"tools": None, "chat_template_kwargs": {}}).template_arguments == {}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a text"},
        {"prompt_token_ids": [1, 2]},
        {"messages": CHAT},
        {"messages": CHAT, "tools": TOOLS, "chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_a_prompt_can_be_written_as_a_row_again(row: dict[str, Any]) -> None:
    assert read(row).to_row() == row
    assert read(read(row).to_row()) == read(row)


@pytest.mark.parametrize(("value", "kind"), [("a text", "prompt"), (CHAT, "prompt"), ([1, 2], "token_ids")])
def test_a_column_that_is_named_is_the_prompt_whatever_it_holds(value: Any, kind: str) -> None:
    row = {"question": value, "prompt": "not this", "messages": "nor that"}
    assert getattr(read(row, "question"), kind) == value


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(PromptsError, match=r"p.jsonl:5 has no 'question'; its keys are prompt, 'odd\\n'"):
        read({"prompt": "a", "odd\n": 1}, "question")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "a", "messages": CHAT}, "it has prompt and messages"),
        ({"text": "a"}, "its keys are text"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt": {"a": 1}}, "prompt is an object"),
        ({"prompt": ["a"]}, "prompt is a list"),
        ({"messages": "a"}, "messages must be a list of objects with a role and a content; it is a text"),
        ({"prompt_token_ids": "a"}, "must be a list of at least one token id"),
        ({"prompt": '[{"role": "user", "content": "a"}]'}, "a chat as JSON"),
        ({"prompt": "a", "tools": TOOLS}, "has tools for a chat template, and no chat: prompt is a text"),
        ({"prompt_token_ids": [1], "chat_template_kwargs": {"a": 1}}, "no chat: prompt_token_ids is a list"),
        ({"prompt": CHAT, "images": ["a.png"]}, "has images, and prompts are text alone"),
        ({"messages": CHAT, "tools": [{"function": {"name": "\ud800"}}]}, "tools has a lone surrogate"),
        ({"messages": CHAT, "tools": '[{"name": "\\ud800"}]'}, "tools has a lone surrogate"),
        ({"messages": CHAT, "chat_template_kwargs": {"\udc00": 1}}, "chat_template_kwargs has a lone surrogate"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]}, "messages has a lone"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_by_its_place(row: dict[str, Any], why: str) -> None:
    with pytest.raises(PromptsError, match=why) as caught:
        read(row)
    assert caught.value.message.startswith("p.jsonl:5")
    caught.value.message.encode()


def test_a_surrogate_pair_is_a_character_and_what_is_not_read_may_hold_half_of_one() -> None:
    assert read({"prompt": "\U0001f600", "answer": "\ud800"}).prompt == "\U0001f600"


def test_empty_media_are_as_good_as_none() -> None:
    assert read({"prompt": "a", "images": [], "videos": None}).prompt == "a"


def test_columns_that_trainers_write_beside_the_prompt_are_known() -> None:
    verl = ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    trl = ["prompt", "completion", "chosen", "rejected", "label", "tools", "chat_template_kwargs"]
    check_columns([*verl, *trl, "images"], "p.parquet", "column")


@pytest.mark.parametrize(
    ("name", "hint"), [("system", "--prompt-column NAME"), ("message", "did you mean messages"), ("tool", "tools?")]
)
def test_any_other_column_is_refused_by_its_name(name: str, hint: str) -> None:
    with pytest.raises(PromptsError, match=f"p.parquet has the column '{name}', which is not read") as caught:
        check_columns(["prompt", name], "p.parquet", "column")
    assert hint in caught.value.hint


def test_the_page_names_every_key_and_its_example_is_read() -> None:
    where = PAGE.partition("## Where the prompt is")[2].partition("## Chats")[0]
    named = set(re.findall(r"`(\w+)`", where))
    assert {*PROMPT_COLUMNS, *TEMPLATE_COLUMNS, *MEDIA_COLUMNS, *UNREAD_COLUMNS} <= named
    [example] = re.findall(r"^```json\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    prompt = read(json.loads(example))
    assert prompt.prompt[1]["tool_calls"][0]["function"]["arguments"] == {"a": 3, "b": 4}
    assert prompt.template_arguments.keys() == {"tools", "enable_thinking"}
