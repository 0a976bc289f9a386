"""The content that a run depends on, found out without an engine: weights, tokenizer, adapter, packages."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import manifest
from safetensors.numpy import save_file

from mismatchscope import __version__
from mismatchscope.collection.content import RunContent
from mismatchscope.demo import model_path
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import ModelError

SPEC = parse_spec("transformers")
COMPLETE, INCOMPLETE = manifest(complete=True), manifest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_path("dense"), tmp_path / "model"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    save_file({"a": np.ones(3, dtype=np.float32)}, directory / "adapter_model.safetensors")
    return directory


def test_weights_are_told_apart_by_their_content_alone(model: Path) -> None:
    file = model / "model.safetensors"
    before, times = RunContent(str(model)).model_facts(SPEC, COMPLETE), file.stat()
    assert before.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    after = RunContent(str(model)).model_facts(SPEC, COMPLETE)
    assert after == before.model_copy(update={"weights_sha256": after.weights_sha256})
    assert after.weights_sha256 != before.weights_sha256


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        ("tokenizer_config.json", '{"model_max_length": 7}', "files"),
        ("config.json", None, "config"),
        ("chat_template.jinja", "{{ messages }}", "chat_template_sha256"),
        ("generation_config.json", '{"eos_token_id": 3}', "generation_config"),
        ("modeling_own.py", "class Own: ...", "files"),
    ],
)
def test_whatever_decides_a_number_is_part_of_it(model: Path, name: str, content: str | None, fact: str) -> None:
    before = RunContent(str(model)).model_facts(SPEC, COMPLETE).model_dump()
    if content is None:
        content = json.dumps(json.loads((model / name).read_text()) | {"rope_theta": 1.0})
    (model / name).write_text(content)
    after = RunContent(str(model)).model_facts(SPEC, COMPLETE).model_dump()
    assert fact in {key for key in before if before[key] != after[key]}


@pytest.mark.parametrize("of_one_side", [True, False])
def test_an_adapter_is_part_of_the_model(model: Path, adapter: Path, of_one_side: bool) -> None:
    spec = parse_spec(f"transformers:adapter={adapter}")
    content = RunContent(str(model))
    before = content.model_facts(spec, COMPLETE).adapter
    assert before is not None and content.model_facts(SPEC, COMPLETE).adapter is None
    changed = "adapter_config.json" if of_one_side else "adapter_model.safetensors"
    if of_one_side:
        (adapter / changed).write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    else:
        save_file({"a": np.zeros(3, dtype=np.float32)}, adapter / changed)
    after = RunContent(str(model)).model_facts(spec, COMPLETE).adapter
    assert after is not None and after != before


def test_weights_are_hashed_once_for_both_sides(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = hashlib.file_digest

    def digest(handle: object, name: str) -> object:
        hashed.append(Path(handle.name).name)
        return real(handle, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    content = RunContent(str(model))
    for spec in ("transformers:dtype=bfloat16", "transformers:dtype=float32", "vllm"):
        content.model_facts(parse_spec(spec), COMPLETE)
    assert hashed == ["model.safetensors"]


def test_a_model_that_is_gone_is_not_taken_for_the_same(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.rmtree(model)
    with pytest.raises(ModelError, match="Nothing says that the traces there are of the model that is meant"):
        RunContent(str(model)).model_facts(SPEC, COMPLETE)
    with pytest.raises(ModelError, match="neither a directory nor"):
        RunContent(str(model)).model_facts(SPEC, INCOMPLETE)


@pytest.mark.parametrize("spec", ["synthetic", "vllm@http://127.0.0.1:1"])
def test_of_an_engine_that_reads_no_checkpoint_here_nothing_is_known(spec: str) -> None:
    content = RunContent("nowhere")
    assert content.model_facts(parse_spec(spec), COMPLETE).weights_sha256 is None
    assert content.packages(parse_spec(spec)) == {"mismatchscope": __version__}


def test_packages_are_those_of_the_interpreter_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.9", "transformers": "5.0"}
    monkeypatch.setattr("mismatchscope.environments.packages.package_version", versions.get)
    content = RunContent("m")
    assert content.packages(SPEC) == {"mismatchscope": __version__} | versions
    elsewhere = content.packages(parse_spec(f"transformers:python={sys.executable}"))
    assert elsewhere["torch"] not in versions.values()
