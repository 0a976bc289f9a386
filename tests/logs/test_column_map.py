"""Column maps: one that is wrong says which key, before a row is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mismatchscope.errors import ConfigError, UsageError
from mismatchscope.logs.column_map import load_column_map
from mismatchscope.logs.columns import COLUMNS
from mismatchscope.logs.reading import open_logs
from mismatchscope.logs.registry import FORMATS

BOTH = 'behavior_logprobs = "a"\nreference_logprobs = "b"\n'

WRONG = {
    "[columns] must name two": 'lists = "response"',
    "which is none of": f'[columns]\n{BOTH}logprobs = "c"',
    "columns.reference_logprobs.scale": (
        '[columns]\nbehavior_logprobs = "a"\nreference_logprobs = { column = "b", scale = "ln" }'
    ),
    "shift: this key is not known": f"shift = 1\n[columns]\n{BOTH}",
    "need prompt_length": f'lists = "sequence"\n[columns]\n{BOTH}',
    "is not TOML": "[columns",
    "sequence_id must say": f'rows = "tokens"\n[columns]\n{BOTH}',
    "reward has no value a token": f'[columns]\n{BOTH}reward = {{ column = "r", shift = 1 }}',
    "entropy holds no log-probs": f'[columns]\n{BOTH}entropy = {{ column = "e", scale = "log2" }}',
    "entropy is no mask": f'[columns]\n{BOTH}entropy = {{ column = "e", kept = 0 }}',
    "no lists": f'rows = "tokens"\nlists = "sequence"\nprompt_length = "p"\n[columns]\n{BOTH}sequence_id = "i"',
}


@pytest.mark.parametrize("why", WRONG)
def test_a_wrong_map_says_which_key(tmp_path: Path, why: str) -> None:
    path = tmp_path / "map.toml"
    path.write_text(WRONG[why], encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_column_map(path)
    assert why in caught.value.message
    assert caught.value.exit_code == 2


def test_a_map_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        load_column_map(tmp_path / "none.toml")


def test_a_map_is_for_no_trainers_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nemo-rl says itself"):
        open_logs([tmp_path], format="nemo-rl", column_map=tmp_path / "map.toml")


def test_the_columns_to_read_are_named_once(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(f'response_length = "n"\n[columns]\n{BOTH}entropy = "a"\n', encoding="utf-8")
    assert load_column_map(path).names() == ["a", "b", "n"]


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")


def test_the_maps_of_the_page_are_maps(tmp_path: Path) -> None:
    maps = re.findall(r"^```toml map\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(maps) == 2
    for text in maps:
        (tmp_path / "map.toml").write_text(text, encoding="utf-8")
        assert load_column_map(tmp_path / "map.toml").names()


def test_the_page_has_every_format_and_column() -> None:
    named = set(re.findall(r"`([\w-]+)`", PAGE))
    assert set(COLUMNS) <= named
    assert set(FORMATS) <= named
