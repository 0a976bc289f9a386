"""Chats as token ids: what the template prints is what the row gave, and what it would pass over is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import PARTS_TEMPLATE, PLAIN_TEMPLATE, TOOL_TEMPLATE, chat_tokenizer

from mismatchscope.engines.common.chat_template import chat_token_ids
from mismatchscope.errors import PromptsError
from mismatchscope.records import Request

USER = {"role": "user", "content": "hello"}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2}}}]}
RESULT = {"role": "tool", "content": "4", "name": "add", "tool_call_id": "1"}


class Printed:
    """A tokenizer whose tokens are the characters of what a template prints."""

    def __init__(self, directory: Path, template: str) -> None:
        self._tokenizer = chat_tokenizer(directory, template)._tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def apply_chat_template(self, messages: Any, *, tokenize: bool, **arguments: Any) -> Any:
        arguments.pop("return_dict", None)
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
        return {"input_ids": list(text)} if tokenize else text


def printed(directory: Path, template: str, messages: list[dict[str, Any]], **arguments: Any) -> str:
    request = Request(0, 7, prompt=messages, template_arguments=arguments)
    return "".join(chat_token_ids(Printed(directory, template), messages, request))  # type: ignore[arg-type]


def test_tools_calls_and_results_are_printed(tmp_path: Path) -> None:
    text = printed(tmp_path, TOOL_TEMPLATE, [USER, CALL, RESULT], tools=TOOLS)
    assert text == (
        'tools {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}} ; '
        '<|im_start|>user hello <|im_end|> <|im_start|>assistant  call add {"a": 2} <|im_end|> '
        "<|im_start|>tool 4 <|im_end|> <|im_start|>assistant"
    )


def test_arguments_of_the_template_are_given_to_it(tmp_path: Path) -> None:
    thoughts = printed(tmp_path, TOOL_TEMPLATE, [USER])
    assert printed(tmp_path, TOOL_TEMPLATE, [USER], enable_thinking=True) == thoughts
    assert printed(tmp_path, TOOL_TEMPLATE, [USER], enable_thinking=False) == thoughts + " no-thoughts"


def test_a_final_message_is_gone_on_with_where_the_row_says_so(tmp_path: Path) -> None:
    messages = [USER, {"role": "assistant", "content": "The answer"}]
    assert printed(tmp_path, TOOL_TEMPLATE, messages).endswith("The answer <|im_end|> <|im_start|>assistant")
    assert printed(tmp_path, TOOL_TEMPLATE, messages, continue_final_message=True).endswith("The answer")
    assert printed(tmp_path, TOOL_TEMPLATE, messages, add_generation_prompt=False).endswith("answer <|im_end|> ")


def parts(*texts: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


@pytest.mark.parametrize("template", [TOOL_TEMPLATE, PLAIN_TEMPLATE, PARTS_TEMPLATE])
def test_one_part_is_printed_as_its_text(tmp_path: Path, template: str) -> None:
    assert printed(tmp_path, template, [parts("hello")]) == printed(tmp_path, template, [USER])


def test_a_template_that_takes_parts_joins_them_and_any_other_gets_one_a_line(tmp_path: Path) -> None:
    assert "user ab <|im_end|>" in printed(tmp_path, PARTS_TEMPLATE, [parts("a", "b")])
    assert "user a\nb <|im_end|>" in printed(tmp_path, TOOL_TEMPLATE, [parts("a", "b")])
    assert "user a\nb . " in printed(tmp_path, PLAIN_TEMPLATE, [parts("a", "b")])


def test_a_call_without_content_is_never_printed_as_none(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role + m.content }}{{ m.tool_calls or '' }} {% endfor %}"
    text = printed(tmp_path, template, [USER, CALL | {"content": None}])
    assert "userhello" in text and "assistant[" in text and "None" not in text


@pytest.mark.parametrize(
    ("messages", "arguments", "unread"),
    [
        ([USER], {"tools": TOOLS}, "tools"),
        ([USER, CALL | {"content": "x"}, RESULT], {}, "tool_calls"),
        ([USER | {"reasoning_content": "hm"}], {}, "reasoning_content"),
        ([USER], {"enable_thinking": False}, "enable_thinking"),
        ([USER], {"enable_thinking": False, "tools": TOOLS}, "enable_thinking, tools"),
    ],
)
def test_what_the_template_makes_nothing_of_is_refused_by_name(
    tmp_path: Path, messages: list[dict[str, Any]], arguments: dict[str, Any], unread: str
) -> None:
    with pytest.raises(PromptsError, match=rf"makes nothing of what prompt 7 gives as {unread}$"):
        printed(tmp_path, PLAIN_TEMPLATE, messages, **arguments)


def test_what_a_template_knows_it_may_drop(tmp_path: Path) -> None:
    template = TOOL_TEMPLATE + "{# reasoning_content of earlier turns is left out #}"
    assert "hm" not in printed(tmp_path, template, [USER | {"reasoning_content": "hm"}])


def test_a_chat_that_the_template_refuses_is_named_and_not_shown(tmp_path: Path) -> None:
    template = "{{ raise_exception('no system prompt, such as ' + messages[0].content) }}"
    with pytest.raises(PromptsError, match=r"prompt 7 does not go through .*: no system prompt, such as") as caught:
        printed(tmp_path, template, [{"role": "system", "content": "a secret"}])
    assert "secret" not in caught.value.message
    assert caught.value.exit_code == 2


def test_the_tokens_are_those_of_the_printed_text(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(tmp_path, TOOL_TEMPLATE, bos="<s>")
    ids = tokenizer.encode(Request(0, 0, prompt=[USER])).tolist()
    words = tokenizer._tokenizer.convert_ids_to_tokens(ids)
    assert words == ["<|im_start|>", "user", "hello", "<|im_end|>", "<|im_start|>", "<unk>"]
