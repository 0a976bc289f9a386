"""Chats as token ids, by the chat template of the checkpoint. What the template would pass over is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ...errors import PromptsError
from ...records import Request
from .prompt_texts import without_prompts
from .rendering_limits import OTHER_TEMPLATE, EndlessTemplateError, rendering_limits

Messages = list[dict[str, Any]]
Render = Callable[..., Any]
"""render(messages, **changes): the chat as text, with other arguments than those of the request."""

_LONGEST_TEXT, _EXPANSION = 2**20, 100
"""Characters that any chat may come to, and times what it and the template have."""

# Of a message: who called what stands in the order of the messages, and many templates print no more of it.
_NEED_NOT_BE_PRINTED = {"role", "content", "name", "tool_call_id"}
# Arguments of `apply_chat_template` itself, whether or not a template asks for them.
_BEHAVIOUR = {"add_generation_prompt", "continue_final_message"}


def chat_token_ids(tokenizer: Any, messages: Messages, request: Request) -> list[int]:
    """The token ids of a request's messages, and of the start of the assistant's turn unless it says otherwise.

    Raises `PromptsError` for a chat that the template refuses, and for what it makes nothing of: tools, tool calls,
    arguments, keys of a message.
    """
    arguments = dict(request.template_arguments)
    arguments.setdefault("add_generation_prompt", not arguments.get("continue_final_message"))

    def render(messages: Messages, **changes: Any) -> Any:
        return tokenizer.apply_chat_template(messages, **{"tokenize": False} | arguments | changes)

    given = _characters([messages, request.template_arguments]) + len(str(tokenizer.chat_template))
    try:
        with rendering_limits(given):
            messages = _with_contents(messages, render)
            unread = _unread(messages, arguments, render, tokenizer)
            if not unread:
                _check_length(render(messages), given)
                return render(messages, tokenize=True, return_dict=True)["input_ids"]
    except (EndlessTemplateError, MemoryError) as error:
        what = "needs more memory than any chat" if isinstance(error, MemoryError) else "does not end"
        raise PromptsError(
            f"the chat template of this model {what}, at prompt {request.prompt_id}", hint=OTHER_TEMPLATE
        ) from None
    # A template raises errors of its own, and those of the expressions in it.
    except Exception as error:
        why = without_prompts(str(error), [request])
        raise PromptsError(
            f"prompt {request.prompt_id} does not go through the chat template of this model: {why}",
            hint="write the chat as the template wants it, or give the prompt as prompt_token_ids",
        ) from error
    raise PromptsError(
        f"the chat template of this model makes nothing of what prompt {request.prompt_id} gives as "
        f"{', '.join(unread)}",
        hint=f"leave {'it' if len(unread) == 1 else 'them'} out, or give the prompt as prompt_token_ids",
    )


def _check_length(text: str, given: int) -> None:
    """Raise `MemoryError` for a text out of all proportion to what it was made of."""
    if len(text) > _LONGEST_TEXT + _EXPANSION * given:
        raise MemoryError


def _characters(value: Any) -> int:
    """Of all that a chat holds, roughly."""
    if isinstance(value, dict):
        return sum(len(str(key)) + _characters(entry) for key, entry in value.items())
    return sum(map(_characters, value)) if isinstance(value, list) else len(value) if isinstance(value, str) else 8


def _with_contents(messages: Messages, render: Render) -> Messages:
    """The messages with contents as the template takes them.

    Text parts are handed to a template that prints them as it prints a text; for any other they become one text,
    a part a line, as in vLLM. A tool call has no content, or an empty one where the template cannot do without.
    """
    if any(isinstance(message.get("content"), list) for message in messages) and not _takes_parts(messages, render):
        messages = [message | {"content": _joined(message.get("content"))} for message in messages]
    if any(message.get("content") is None for message in messages):
        messages = [{key: entry for key, entry in message.items() if entry is not None} for message in messages]
        try:
            render(messages)
        except Exception:
            messages = [{"content": ""} | message for message in messages]
    return messages


def _takes_parts(messages: Messages, render: Render) -> bool:
    def each(content: Any) -> Messages:
        return [
            message | {"content": content} if isinstance(message.get("content"), list) else message
            for message in messages
        ]

    return _same_text(render, each([{"type": "text", "text": "x"}]), each("x"))


def _joined(content: Any) -> Any:
    return "\n".join(part["text"] for part in content) if isinstance(content, list) else content


def _unread(messages: Messages, arguments: dict[str, Any], render: Render, tokenizer: Any) -> list[str]:
    """What was given and changes nothing, by name. A template that knows a name may drop its value on purpose."""

    def named(key: str) -> bool:
        template = tokenizer.get_chat_template(tools=arguments.get("tools"))
        return re.search(rf"\b{re.escape(key)}\b", template) is not None

    def without(key: str) -> Messages:
        return [{name: value for name, value in message.items() if name != key} for message in messages]

    unread = [key for key in arguments if key not in _BEHAVIOUR and key != "tools" and not named(key)]
    if "tools" in arguments and _same_text(render, messages, messages, tools=None):
        unread.append("tools")
    for key in sorted({key for message in messages for key in message} - _NEED_NOT_BE_PRINTED):
        if (key == "tool_calls" or not named(key)) and _same_text(render, messages, without(key)):
            unread.append(key)
    return unread


def _same_text(render: Render, messages: Messages, others: Messages, **changes: Any) -> bool:
    try:
        return render(messages) == render(others, **changes)
    except Exception:
        return False
