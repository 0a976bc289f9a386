"""What is remarked on about a prompt's tokens, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_tokenizers import PLAIN_TEMPLATE, TOOL_TEMPLATE, chat_tokenizer

from mismatchscope.records import Observed, Request


def remarks(directory: Path, prompt: Any, template: str | None = TOOL_TEMPLATE, bos: str = "<s>", **others: Any):
    """The remarks on the record of a prompt, which is how every engine makes them."""
    tokenizer = chat_tokenizer(directory, template, bos=bos)
    given = {"prompt": prompt} if prompt is not None else {}
    request = Request(0, 0, **given, **others)
    record = tokenizer.record(request, tokenizer.encode(request), np.array([1]), Observed(np.array([-1.0])))
    return record.prompt_remarks


def chat(content: str, *more: dict[str, str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}, *more]


def test_an_ordinary_prompt_is_not_remarked_on(tmp_path: Path) -> None:
    assert remarks(tmp_path, "hello <s> hello") == []
    assert remarks(tmp_path, chat("hello")) == []
    assert remarks(tmp_path, "hello", None) == []
    assert remarks(tmp_path, None, prompt_token_ids=np.array([5, 1])) == []


def test_a_beginning_that_stands_there_twice_is(tmp_path: Path) -> None:
    [text] = remarks(tmp_path, "<s> hello")
    assert text.startswith("the tokens begin [5, 5, …]") and "Leave it out of the text" in text
    [ids] = remarks(tmp_path, None, prompt_token_ids=np.array([5, 5, 1]))
    assert ids.startswith("the tokens begin [5, 5, …]") and "the text" not in ids


def test_a_text_with_the_models_own_markers_is(tmp_path: Path) -> None:
    [said] = remarks(tmp_path, "\n<|im_start|>user hello<|im_end|>")
    assert "begins with <|im_start|>, a marker of this model's chat template" in said


@pytest.mark.parametrize(("template", "remedy"), [(PLAIN_TEMPLATE, "give the messages"), (None, "markers out.")])
def test_a_text_with_the_markers_of_another_model_is(tmp_path: Path, template: str | None, remedy: str) -> None:
    [said] = remarks(tmp_path, "[INST] hello [/INST]", template)
    assert "begins with [INST], a marker of other models'" in said and remedy in said


def test_a_message_that_was_templated_already_is(tmp_path: Path) -> None:
    [own] = remarks(tmp_path, chat("<|im_start|>user hello"))
    assert "a message begins with <|im_start|>, which the chat template writes itself" in own
    [foreign] = remarks(tmp_path, chat("[INST] hello"))
    assert "a message begins with [INST], a marker of other models'" in foreign
    [bos] = remarks(tmp_path, chat("<s> hello"))
    assert "a message begins with <s>" in bos
    [part] = remarks(tmp_path, [{"role": "user", "content": [{"type": "text", "text": "[INST] hello"}]}])
    assert "[INST]" in part


def test_a_chat_that_ends_with_an_answer_is_unless_its_row_says_what_is_meant(tmp_path: Path) -> None:
    messages = chat("hello", {"role": "assistant", "content": "hello"})
    [said] = remarks(tmp_path, messages)
    assert "ends with a message of the assistant" in said and "continue_final_message" in said
    for meant in ({"continue_final_message": True}, {"add_generation_prompt": True}):
        assert remarks(tmp_path, messages, template_arguments=meant) == []


def test_a_prompt_that_is_scored_was_remarked_on_before(tmp_path: Path) -> None:
    scored = {"prompt_token_ids": np.array([5, 5, 1]), "response_token_ids": np.array([1])}
    assert remarks(tmp_path, None, **scored) == []
