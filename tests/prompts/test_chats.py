"""Messages in one form: tool calls with objects for arguments, text parts, nothing that is null."""

from __future__ import annotations

from typing import Any

import pytest

from mismatchscope.errors import PromptsError
from mismatchscope.prompts.chats import messages_of, template_arguments_of

USER = {"role": "user", "content": "2 + 2?"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"default": None}}}


def call(arguments: Any) -> dict[str, Any]:
    function = {"name": "add", "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": function}]}


def read(*messages: Any) -> list[dict[str, Any]]:
    return messages_of(list(messages), "p.jsonl:5: messages")


@pytest.mark.parametrize("arguments", [{"a": 2, "b": None}, '{"a": 2, "b": null}'])
def test_arguments_of_a_call_are_an_object_however_they_came(arguments: Any) -> None:
    [_, message] = read(USER, call(arguments))
    assert message["tool_calls"] == [{"id": "1", "function": {"name": "add", "arguments": {"a": 2, "b": None}}}]
    assert "content" not in message


@pytest.mark.parametrize("arguments", [None, "", {}])
def test_a_call_without_arguments_has_none(arguments: Any) -> None:
    assert read(call(arguments))[0]["tool_calls"][0]["function"]["arguments"] == {}


def test_a_call_may_lack_its_wrapping() -> None:
    [message] = read({"role": "assistant", "tool_calls": [{"name": "add", "arguments": '{"a": 2}'}]})
    assert message["tool_calls"] == [{"name": "add", "arguments": {"a": 2}}]


def test_nulls_and_empty_calls_are_left_out() -> None:
    dumped = USER | {"name": None, "tool_calls": None, "refusal": None}
    assert read(dumped, USER | {"tool_calls": []}) == [USER, USER]


def test_text_parts_are_kept_and_their_nulls_left_out() -> None:
    parts = [{"type": "text", "text": "a", "image_url": None}, {"type": "text", "text": "b"}]
    assert read({"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("hello", "message 2 is a text"),
        ({"content": "a"}, "message 2 has no role"),
        ({"role": "", "content": "a"}, "message 2 has no role"),
        ({"role": "user"}, "message 2 has no content"),
        ({"role": "assistant", "content": None}, "message 2 has no content"),
        ({"role": "user", "content": 4}, "the content of message 2 is a number"),
        ({"role": "user", "content": []}, "content is an empty list"),
        ({"role": "user", "content": ["a"]}, "keys type and text"),
        ({"role": "user", "content": [{"type": "text"}]}, "keys type and text"),
        ({"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]}, "and no other"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "of the type 'image_url'",
        ),
        (call("[1]"), "the arguments are a list, neither an object nor the JSON text of one"),
        (call("a=2"), "the arguments are a text"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "each with a function's name"),
        ({"role": "assistant", "tool_calls": "add"}, "each with a function's name"),
    ],
)
def test_a_message_that_cannot_be_read_is_refused_by_its_number(message: Any, why: str) -> None:
    with pytest.raises(PromptsError, match=why) as caught:
        read(USER, message)
    assert caught.value.message.startswith("p.jsonl:5: messages")


def test_tools_are_objects_or_the_json_text_of_them() -> None:
    for tools in ([TOOL], '[{"type": "function", "function": {"name": "add", "parameters": {"default": null}}}]'):
        assert template_arguments_of(tools, None, "p.jsonl:5") == {"tools": [TOOL]}
    assert template_arguments_of([], "", "p.jsonl:5") == {}
    assert template_arguments_of(None, '{"a": 1, "b": null}', "p.jsonl:5") == {"a": 1}


@pytest.mark.parametrize(
    ("tools", "arguments", "why"),
    [
        ("add", None, "tools must be a list of functions"),
        ([{"type": "web_search"}], None, "tools must be a list of functions"),
        (None, [1], "chat_template_kwargs is a list"),
        (None, {"tools": []}, "chat_template_kwargs cannot hold tools"),
        (None, {"chat_template": "x"}, "chat_template_kwargs cannot hold chat_template"),
    ],
)
def test_what_is_no_tool_and_no_argument_is_refused(tools: Any, arguments: Any, why: str) -> None:
    with pytest.raises(PromptsError, match=f"p.jsonl:5: {why}"):
        template_arguments_of(tools, arguments, "p.jsonl:5")
