"""What tells two checkpoints apart beside their weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mismatchscope.demo import model_path
from mismatchscope.engines.common.checkpoint import describe
from mismatchscope.engines.common.identity import identity


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_path("dense"), tmp_path / "model"))


def edit(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def test_every_key_of_both_configurations_is_there(checkpoint: Path) -> None:
    found = describe("m", checkpoint)
    for name in ("config", "generation_config"):
        assert found[name] == json.loads((checkpoint / f"{name}.json").read_text())
    assert set(found["files"]) == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    (checkpoint / "generation_config.json").unlink()
    assert identity(checkpoint)["generation_config"] == {}


def test_the_same_weights_with_another_key_are_another_model(checkpoint: Path) -> None:
    before = describe("m", checkpoint)
    edit(checkpoint / "config.json", rope_theta=5e5)
    after = describe("m", checkpoint)
    assert {key for key in before if before[key] != after[key]} == {"config"}


def test_a_chat_template_is_the_same_wherever_it_is_kept(checkpoint: Path) -> None:
    template = "{{ messages }}"
    edit(checkpoint / "tokenizer_config.json", chat_template=template)
    inside = identity(checkpoint)["chat_template_sha256"]
    edit(checkpoint / "tokenizer_config.json", chat_template=None)
    assert inside is not None and identity(checkpoint)["chat_template_sha256"] is None
    (checkpoint / "chat_template.jinja").write_text(template)
    assert identity(checkpoint)["chat_template_sha256"] == inside
    (checkpoint / "chat_template.jinja").write_text(template + " ")
    assert identity(checkpoint)["chat_template_sha256"] != inside
