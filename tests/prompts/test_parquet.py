"""Parquet as trainers write it: lists of structs, with every key of every row, and columns beside the prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mismatchscope.errors import PromptsError
from mismatchscope.prompts.files import load_prompts

USER = {"role": "user", "content": "2 + 2?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}],
}
OTHER_CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "neg", "arguments": {"x": 1}}}]}


def written(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    return tmp_path / "p.parquet"


def test_the_layout_of_verl_is_read_as_pandas_writes_it(tmp_path: Path) -> None:
    row = {
        "data_source": "openai/gsm8k",
        "prompt": np.array([USER], dtype=object),
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"index": 0, "split": "train"},
    }
    frame = pd.DataFrame([row, row, row])
    frame[frame.index > 0].to_parquet(tmp_path / "p.parquet")  # with a column for the index
    assert [prompt.prompt for prompt in load_prompts(tmp_path / "p.parquet")] == [[USER], [USER]]


def test_keys_that_only_other_rows_have_are_left_out(tmp_path: Path) -> None:
    tools = [{"function": {"name": "add", "parameters": {"a": "integer"}}}]
    rows = [{"messages": [USER, CALL], "tools": tools}, {"messages": [USER, OTHER_CALL], "tools": None}]
    first, second = load_prompts(written(tmp_path, rows))
    assert first.prompt == [USER, {key: CALL[key] for key in ("role", "tool_calls")}]
    assert first.template_arguments == {"tools": tools}
    assert second.prompt == [USER, OTHER_CALL]
    assert second.template_arguments == {}


def test_the_same_rows_are_the_same_prompts_in_every_format(tmp_path: Path) -> None:
    rows = [{"messages": [USER, CALL]}, {"messages": [USER, OTHER_CALL]}, {"messages": [USER]}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_prompts(written(tmp_path, rows)) == load_prompts(tmp_path / "p.jsonl")


def test_an_unknown_column_is_refused_and_one_that_is_named_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, [{"question": "a", "prompt": "b", "system": "c"}])
    with pytest.raises(PromptsError, match=r"p\.parquet has the column 'question', which is not read"):
        load_prompts(path)
    assert [prompt.prompt for prompt in load_prompts(path, column="question")] == ["a"]
    with pytest.raises(PromptsError, match="has no column text; its columns are question, prompt, system"):
        load_prompts(path, column="text")
    with pytest.raises(
        PromptsError, match="has no column prompt or messages or prompt_token_ids; its columns are q"
    ):
        load_prompts(written(tmp_path, [{"q": "a"}]))


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    for bad, why in (({"prompt": ""}, "empty text"), ({"prompt": "a", "images": ["b"]}, "has images")):
        with pytest.raises(PromptsError, match=f"row 2.*{why}"):
            load_prompts(written(tmp_path, [{"prompt": "a", "images": []}, bad]))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xed\xa0\x80"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"prompt": texts}), tmp_path / "p.parquet")
    with pytest.raises(PromptsError, match="row 2 has text that is not UTF-8"):
        load_prompts(tmp_path / "p.parquet")


def test_bytes_are_no_text(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": [b"a"]}), tmp_path / "p.parquet")
    with pytest.raises(PromptsError, match="row 1: prompt is bytes, not a text"):
        load_prompts(tmp_path / "p.parquet")
