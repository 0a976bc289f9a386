"""Prompts of the kinds that trainers have, through the installed command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chat_tokenizers import TOOL_TEMPLATE, save_chat_tokenizer
from command import SYNTHETIC, run

from mismatchscope.demo import model_path
from mismatchscope.traces import Trace

pytestmark = pytest.mark.slow

CHAT = [{"role": "user", "content": "What is 3 + 4?"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALL = {"function": {"name": "add", "arguments": '{"a": 3, "b": 4}'}}
TURNS = [*CHAT, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "7"}]
SHORT = ["--samples", "1", "--max-new-tokens", "4"]


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rollout(tmp_path: Path, prompts: Path, *options: str | Path) -> Any:
    return run("rollout", "--prompts", prompts, *SHORT, "-o", tmp_path / "mu", *options)


def prompt_texts(tmp_path: Path) -> list[str]:
    return Trace.open(tmp_path / "mu").read_sequences()["prompt_text"].to_pylist()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a\\ud800"}', r"p.jsonl:2: prompt has a lone surrogate, \ud800"),
        ('{"prompt": [{"role": "user", "content": "\\udfff"}]}', r"p.jsonl:2: prompt has a lone surrogate, \udfff"),
        ('{"prompt": "a", "system": "b"}', "p.jsonl:2 has the key 'system', which is not read"),
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "has a part of the type 'image'"),
    ],
)
def test_a_row_that_cannot_be_read_ends_the_command_with_its_place(tmp_path: Path, line: str, said: str) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "a"}\n' + line + "\n")
    done = run("audit", *SYNTHETIC, "--prompts", prompts, *SHORT, "-o", tmp_path / "run")
    assert done.returncode == 2
    assert said in done.stderr and "next:" in done.stderr
    assert not (tmp_path / "run" / "behavior").exists()


@pytest.mark.parametrize("option", ["--prompts", "--model", "--output"])
def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path, option: str) -> None:
    done = run("audit", *SYNTHETIC, *SHORT, "-o", tmp_path / "run", option, os.fsdecode(b"p\xff.jsonl"))
    assert done.returncode == 2
    assert r"The argument 'p\udcff.jsonl' is not UTF-8." in done.stderr


def test_the_column_is_named_by_an_option_or_in_a_file(tmp_path: Path) -> None:
    prompts = jsonl(tmp_path / "p.jsonl", {"question": "What is 3 + 4?", "system": "not read"})
    done = rollout(tmp_path, prompts, "--engine", "synthetic", "--prompt-column", "question")
    assert done.returncode == 0, done.stderr
    assert prompt_texts(tmp_path) == ["What is 3 + 4?"]
    (tmp_path / "run.toml").write_text(f'prompts = "{prompts}"\nprompt_column = "question"\n')
    done = run("audit", *SYNTHETIC, *SHORT, "--config", tmp_path / "run.toml", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    done = run("audit", *SYNTHETIC, *SHORT, "--prompt-column", "question", "-o", tmp_path / "other")
    assert done.returncode == 2 and "no prompts file" in done.stderr


def test_the_layout_of_verl_goes_through_the_chat_template_of_the_model(tmp_path: Path) -> None:
    row = {"data_source": "gsm8k", "prompt": np.array(CHAT, dtype=object), "reward_model": {"ground_truth": "7"}}
    odd = row | {"prompt": np.array([{"role": "user", "content": "[INST] 3?"}], dtype=object)}
    pd.DataFrame([row, odd]).to_parquet(tmp_path / "p.parquet")
    done = rollout(tmp_path, tmp_path / "p.parquet", "--engine", "transformers", "--model", "demo:dense")
    assert done.returncode == 0, done.stderr
    assert prompt_texts(tmp_path)[0] == "Question: What is 3 + 4?\nAnswer:"
    assert "note: 1 of 2 prompts, the first of them prompt 1: a message begins with [INST]" in done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of the embedded model with another tokenizer, whose template takes tools."""
    directory = tmp_path_factory.mktemp("model")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (directory / name).symlink_to(model_path("dense") / name)
    return save_chat_tokenizer(directory, TOOL_TEMPLATE, bos="<s>")


def test_what_is_odd_about_a_prompt_is_in_the_trace_and_in_the_report(tmp_path: Path, model: Path) -> None:
    prompts = jsonl(tmp_path / "p.jsonl", {"prompt": "<s> hello"}, {"messages": TURNS, "tools": TOOLS})
    engine = ["--behavior", "transformers", "--reference", "transformers", "--no-repeats"]
    done = run("audit", *engine, "--model", model, "--prompts", prompts, *SHORT, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    notes = Trace.open(tmp_path / "run" / "behavior").manifest.notes
    assert len(notes) == 1 and notes[0].startswith("1 of 2 prompts, the first of them prompt 0: the tokens begin [")
    alarms = json.loads((tmp_path / "run" / "report.json").read_text())["alarms"]
    assert [alarm["message"] for alarm in alarms if alarm["code"] == "alignment"] == notes
    assert "the beginning of a sequence twice" in " ".join(done.stdout.split())
    assert "hello" not in notes[0]


def test_what_the_template_ignores_is_refused(tmp_path: Path, model: Path) -> None:
    row = {"messages": CHAT, "chat_template_kwargs": {"reasoning_effort": "high"}}
    prompts = jsonl(tmp_path / "p.jsonl", row)
    done = rollout(tmp_path, prompts, "--engine", "transformers", "--model", model)
    assert done.returncode == 2
    assert "makes nothing of what prompt 0 gives as reasoning_effort" in done.stderr
