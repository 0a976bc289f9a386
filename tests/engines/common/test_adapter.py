"""Which model and which adapter a run means, and what of the adapter belongs to the model's identity."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mismatchscope.engines.common.adapter import CONFIG, WEIGHTS, split_adapter
from mismatchscope.engines.common.location import locate
from mismatchscope.errors import ModelError

SET = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"]}


def write(directory: Path, *, tensor: str = "layers.0.q_proj.lora_A.weight", **config: Any) -> Path:
    directory.mkdir(exist_ok=True)
    unset = {"use_dora": False, "modules_to_save": None, "rank_pattern": {}, "peft_version": "0.21.2"}
    (directory / CONFIG).write_text(json.dumps(SET | unset | {"base_model_name_or_path": None} | config))
    save_file({tensor: np.ones((4, 8), np.float32)}, directory / WEIGHTS)
    return directory


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    save_file({"w": np.ones(3, np.float32)}, directory / "model.safetensors")
    return directory


def test_a_model_with_an_adapter_named_or_not(base: Path, tmp_path: Path) -> None:
    directory = write(tmp_path / "adapter")
    for adapter in ("", "none"):
        assert split_adapter(str(base), adapter) == (str(base), None)
    model, adapter = split_adapter(str(base), str(directory))
    assert model == str(base) and adapter.directory == directory


def test_a_model_that_is_an_adapter_stands_for_its_base_with_it(base: Path, tmp_path: Path) -> None:
    directory = write(tmp_path / "adapter", base_model_name_or_path=str(base))
    for given in ("", str(directory)):
        model, adapter = split_adapter(str(directory), given)
        assert model == str(base) and adapter.directory == directory
    assert split_adapter(str(directory), "none") == (str(base), None)
    with pytest.raises(ModelError, match="is a second one") as caught:
        split_adapter(str(directory), str(write(tmp_path / "other")))
    assert "--model" in caught.value.hint
    with pytest.raises(ModelError, match=r"no config\.json") as caught:  # where no adapter can be run: a server
        locate(str(directory))
    assert "it is an adapter" in caught.value.hint


@pytest.mark.parametrize("named", [None, "", "/nowhere/base", "./nowhere", "runs/nowhere/base"])
def test_an_adapter_that_does_not_lead_to_its_base_names_the_command(tmp_path: Path, named: str | None) -> None:
    directory = write(tmp_path / "adapter", base_model_name_or_path=named)
    with pytest.raises(ModelError, match=r"which model it belongs to|which is not there") as caught:
        split_adapter(str(directory), "")
    assert caught.value.hint == f"--model BASE --adapter {directory}"


def test_what_is_no_adapter_or_only_half_of_one(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no PEFT adapter"):
        split_adapter(str(base), str(base))
    directory = write(tmp_path / "adapter")
    (directory / WEIGHTS).rename(directory / "adapter_model.bin")
    with pytest.raises(ModelError, match="a pickle is never loaded"):
        split_adapter(str(base), str(directory))
    write(base)
    with pytest.raises(ModelError, match="nothing says which of them is meant"):
        split_adapter(str(base), "")


def test_its_identity_is_its_weights_and_the_keys_that_are_set(base: Path, tmp_path: Path) -> None:
    def facts(name: str, **config: Any) -> dict[str, Any]:
        _, adapter = split_adapter(str(base), str(write(tmp_path / name, **config)))
        return adapter.facts()

    first = facts("first")
    weights_sha256 = hashlib.sha256((tmp_path / "first" / WEIGHTS).read_bytes()).hexdigest()
    assert first["weights_sha256"] == weights_sha256 and first["name"] == "first"
    assert first["config"] == SET | {"target_modules": ["q_proj", "v_proj"]}
    moved = facts("moved", base_model_name_or_path="elsewhere", target_modules=["q_proj", "v_proj"])
    assert moved | {"name": "first", "path": first["path"]} == first, "neither its place nor its base's, nor order"
    for change in ({"lora_alpha": 16}, {"r": 2}, {"use_rslora": True}, {"target_modules": ["q_proj"]}):
        assert facts("changed", **change)["config"] != first["config"]
    assert facts("renamed", tensor="layers.1.q_proj.lora_A.weight")["weights_sha256"] != weights_sha256


def test_what_engines_cannot_run_is_refused_with_how_to_merge(base: Path, tmp_path: Path) -> None:
    _, plain = split_adapter(str(base), str(write(tmp_path / "plain", rank_pattern={"v_proj": 9})))
    plain.check_lora("vLLM 1.0")
    plain.check_head("vLLM")
    assert plain.rank == 9
    _, other = split_adapter(str(base), str(write(tmp_path / "other", tensor="lm_head.lora_A", peft_type="IA3")))
    for check, says in (
        (other.check_lora, "LoRA adapters alone; .* kind IA3"),
        (other.check_head, "changes the LM head"),
    ):
        with pytest.raises(ModelError, match=says) as caught:
            check("vLLM 1.0")
        assert "merge_and_unload" in caught.value.hint and str(tmp_path / "other") in caught.value.hint


def test_what_an_engine_does_not_read_of_a_configuration_is_remarked_on(base: Path, tmp_path: Path) -> None:
    def remarks(read: tuple[str, ...] = (), **config: Any) -> list[str]:
        _, adapter = split_adapter(str(base), str(write(tmp_path / "adapter", **config)))
        return adapter.remarks("SGLang 0.5.23", read)

    assert remarks() == remarks(use_rslora=False, rank_pattern={}, modules_to_save=None) == []
    [remark] = remarks(use_rslora=True, alpha_pattern={"q_proj": 2})
    assert remark == "SGLang 0.5.23 takes no notice of use_rslora, alpha_pattern in the adapter's configuration."
    assert remarks(("use_rslora",), use_rslora=True) == []
