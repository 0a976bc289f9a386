"""Prompts files: three formats, and every bad line named by file and line number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mismatchscope.errors import PromptsError
from mismatchscope.prompts.files import load_prompts

CHAT = [{"role": "user", "content": "2 + 2?"}]


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_jsonl_takes_text_messages_and_ids(tmp_path) -> None:
    rows = [{"prompt": "a", "answer": 4}, {"messages": CHAT}, {"prompt_token_ids": [1, 2]}]
    path = write(tmp_path, "p.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    prompts = load_prompts(path)
    assert [prompt.prompt_id for prompt in prompts] == [0, 1, 2]
    assert (prompts[0].prompt, prompts[1].prompt, prompts[2].token_ids) == ("a", CHAT, [1, 2])


def test_text_is_one_prompt_a_line(tmp_path) -> None:
    path = write(tmp_path, "p.txt", "first \r\n\nsecond\n")
    assert [prompt.prompt for prompt in load_prompts(path)] == ["first ", "second"]


def test_parquet_has_the_same_columns(tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": ["a", None], "prompt_token_ids": [None, [3]], "answer": [1, 2]}), path)
    first, second = load_prompts(path)
    assert (first.prompt, second.token_ids) == ("a", [3])


@pytest.mark.parametrize(("name", "line"), [("p.txt", "a"), ("p.jsonl", '{"prompt": "a"}')])
def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path, name: str, line: str) -> None:
    path = write(tmp_path, name, b"\xef\xbb\xbf" + f"{line}\n{line}\n".encode())
    assert [prompt.prompt for prompt in load_prompts(path)] == ["a", "a"]


def test_limit_stops_before_a_later_bad_line(tmp_path) -> None:
    path = write(tmp_path, "p.jsonl", '{"prompt": "a"}\nnot json\n')
    assert len(load_prompts(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("not json", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"text": "a"}', "its keys are text"),
        ("{}", "none"),
        ('{"prompt": "a", "messages": []}', "prompt and messages"),
        ('{"prompt": ""}', "empty text"),
        ('{"prompt": 3}', "a number"),
        ('{"prompt": null}', "null"),
        ('{"messages": []}', "messages must"),
        ('{"messages": [{"role": "user"}]}', "messages must"),
        ('{"prompt_token_ids": []}', "token id"),
        ('{"prompt_token_ids": [1.5]}', "token id"),
        ('{"prompt_token_ids": [-1]}', "token id"),
        ('{"prompt_token_ids": [true]}', "token id"),
        ('{"prompt": "a\\ud800"}', r"prompt has a lone surrogate, \\ud800"),
        ('{"messages": [{"role": "user", "content": "\\udfff"}]}', r"messages has a lone surrogate, \\udfff"),
        ('{"prompt": "a", "prompt": "b"}', "the key 'prompt' twice"),
        ('{"prompt": "a", "info": ' + "[" * 3000 + "]" * 3000 + "}", "nested more than 100 deep"),
        ('{"prompt_token_ids": [' + "9" * 5000 + "]}", "an integer of more than 100 digits"),
        ('{"prompt": "a", "system": "b"}', "has the key 'system', which is not read"),
    ],
)
def test_bad_line_is_named(tmp_path, line: str, why: str) -> None:
    path = write(tmp_path, "p.jsonl", '{"prompt": "fine"}\n' + line + "\n")
    with pytest.raises(PromptsError, match=why) as caught:
        load_prompts(path)
    assert f"{path}:2" in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("p.jsonl", "", "no prompts"),
        ("p.txt", "\n\n", "no prompts"),
        ("p.txt", b"\xff\xfe", "not UTF-8"),
        ("p.txt", b"fine\n\xed\xa0\x80\n", r"p\.txt:2 is not UTF-8 text \(byte 0 of the line"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "\xe9"}\n', r"p\.jsonl:2 is not UTF-8 text \(byte 12 of"),
        ("p.csv", "a", "not a prompts file"),
        ("p.parquet", "not parquet", "not a readable Parquet"),
    ],
)
def test_bad_file_is_named(tmp_path, name: str, content: str | bytes, why: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(PromptsError, match=why) as caught:
        load_prompts(path)
    assert name in caught.value.message


def test_a_column_that_is_named_leaves_the_others_unread(tmp_path) -> None:
    path = write(tmp_path, "p.jsonl", '{"question": "a", "prompt": 3, "system": "\\ud800"}\n')
    assert load_prompts(path, column="question")[0].prompt == "a"
    with pytest.raises(PromptsError, match=r"p\.txt has no columns"):
        load_prompts(write(tmp_path, "p.txt", "a"), column="question")


def test_missing_file_and_directory(tmp_path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        target = path if path.suffix else tmp_path / "d.jsonl"
        if not path.suffix:
            target.mkdir()
        with pytest.raises(PromptsError):
            load_prompts(target)


def test_limit_below_one_is_refused(tmp_path) -> None:
    with pytest.raises(PromptsError, match="limit"):
        load_prompts(write(tmp_path, "p.txt", "a"), limit=0)
