"""The messages of a chat, and what a chat template is given beside them, checked and in one form.

The form is that of Hugging Face's chat templates: the arguments of a tool call are an object, whether they came as
one or as the JSON text of OpenAI's API, and what is null is left out.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import PromptsError

_EXAMPLE = '[{"role": "user", "content": "…"}]'
_TOOL_EXAMPLE = '[{"type": "function", "function": {"name": "…", "parameters": {…}}}]'
_CALL_EXAMPLE = '{"type": "function", "function": {"name": "…", "arguments": {…}}}'
_NOT_ARGUMENTS = {
    "messages": "they are a key of the row",
    "tools": "they are a key of the row",
    "chat_template": "the template is that of the model's directory",
}


def messages_of(value: Any, where: str) -> list[dict[str, Any]]:
    """The messages of a chat. Raises `PromptsError`; `where` names the value, as in "prompts.jsonl:3: messages"."""

    def refused(why: str) -> PromptsError:
        return PromptsError(f"{where} must be a list of objects with a role and a content; {why}.", hint=_EXAMPLE)

    if not isinstance(value, list) or not value:
        raise refused(f"it is {kind_of(value)}")
    messages = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise refused(f"message {number} is {kind_of(message)}")
        message = {key: entry for key, entry in message.items() if entry is not None}
        if not isinstance(message.get("role"), str) or not message["role"]:
            raise refused(f"message {number} has no role")
        if message.get("tool_calls", []) == []:
            message.pop("tool_calls", None)
        else:
            message["tool_calls"] = _calls_of(message["tool_calls"], f"{where}: tool_calls of message {number}")
        content = message.get("content")
        if isinstance(content, list):
            message["content"] = _parts_of(content, f"{where}: message {number}")
        elif content is None and "tool_calls" not in message:
            raise refused(f"message {number} has no content")
        elif not isinstance(content, str | None):
            raise refused(f"the content of message {number} is {kind_of(content)}")
        messages.append(message)
    return messages


def template_arguments_of(tools: Any, chat_template_kwargs: Any, where: str) -> dict[str, Any]:
    """What the chat template is given beside the messages, from a row's two columns. Raises `PromptsError`."""
    arguments: dict[str, Any] = {}
    if tools := parsed(tools):
        if not isinstance(tools, list) or not all(_is_tool(tool) for tool in tools):
            raise PromptsError(f"{where}: tools must be a list of functions, each with a name.", hint=_TOOL_EXAMPLE)
        arguments["tools"] = tools
    if chat_template_kwargs := parsed(chat_template_kwargs):
        if not isinstance(chat_template_kwargs, dict):
            kind = kind_of(chat_template_kwargs)
            raise PromptsError(
                f"{where}: chat_template_kwargs is {kind}, not an object.", hint='{"enable_thinking": false}'
            )
        for name in _NOT_ARGUMENTS:
            if name in chat_template_kwargs:
                raise PromptsError(f"{where}: chat_template_kwargs cannot hold {name}.", hint=_NOT_ARGUMENTS[name])
        arguments |= {key: entry for key, entry in chat_template_kwargs.items() if entry is not None}
    return arguments


def _calls_of(calls: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(_is_tool(call) for call in calls):
        raise PromptsError(f"{where} must be a list of calls, each with a function's name.", hint=_CALL_EXAMPLE)
    checked = []
    for call in calls:
        function = call.get("function", call)
        # Most templates print the arguments as JSON themselves; a text would be quoted once more.
        arguments = parsed(function.get("arguments") or {})
        if not isinstance(arguments, dict):
            raise PromptsError(
                f"{where}: the arguments are {kind_of(arguments)}, neither an object nor the JSON text of one.",
                hint=_CALL_EXAMPLE,
            )
        function = function | {"arguments": arguments}
        checked.append(call | {"function": function} if "function" in call else function)
    return checked


def _parts_of(parts: list[Any], where: str) -> list[dict[str, str]]:
    checked = []
    for part in parts:
        part = {key: entry for key, entry in part.items() if entry is not None} if isinstance(part, dict) else part
        if isinstance(part, dict) and part.get("type", "text") != "text":
            raise PromptsError(
                f"{where} has a part of the type {part['type']!r}, and prompts are text alone.",
                hint="leave such rows out of the file",
            )
        if not isinstance(part, dict) or part.keys() != {"type", "text"} or not isinstance(part["text"], str):
            raise PromptsError(
                f"{where}: a part of its content must have the keys type and text, and no other.",
                hint='{"type": "text", "text": "…"}',
            )
        checked.append(part)
    if not checked:
        raise PromptsError(f"{where}: its content is an empty list.", hint='{"type": "text", "text": "…"}')
    return checked


def _is_tool(value: Any) -> bool:
    """A function, or a call of one: {"function": {"name": …}}, or the same without its wrapping."""
    function = value.get("function", value) if isinstance(value, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def parsed(value: Any) -> Any:
    """The value of a JSON text; anything else as it is. Columns of Parquet often hold objects as their JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        return value


def kind_of(value: Any) -> str:
    """What a value of JSON, Parquet or Python is, for a sentence; never its content."""
    if value == "":
        return "an empty text"
    if value == []:
        return "an empty list"
    names = {str: "a text", list: "a list", dict: "an object", type(None): "null", bool: "a boolean"}
    names |= {int: "a number", float: "a number", bytes: "bytes"}
    return names.get(type(value), f"of the type {type(value).__name__}")
