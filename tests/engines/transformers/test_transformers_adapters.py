"""The transformers engine runs a PEFT adapter as the checkpoint into which it is merged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from adapters import save_adapter
from tiny_engine import DECODE, PREFILL, ROLLOUT, Records, by_id, largest_tv, prompts, roll, to_score

from mismatchscope.demo import model_path
from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.errors import ModelError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base() -> Path:
    return model_path("dense")


@pytest.fixture(scope="module")
def directory(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has `adapter`, and `merged`, the checkpoint of it and the embedded model."""
    made = tmp_path_factory.mktemp("adapters")
    save_adapter(base, made / "adapter", merged=made / "merged")
    return made


def loaded(model: Path, **options: Any) -> TransformersEngine:
    engine = TransformersEngine(str(model), TransformersOptions(**{"dtype": "float32"} | options))
    engine.load()
    engine.check(prompts(6), ROLLOUT)
    return engine


@pytest.fixture(scope="module")
def rollout(base: Path, directory: Path) -> Records:
    return roll(loaded(base, adapter=str(directory / "adapter")))


def scored(rollout: Records, model: Path, task: Any = PREFILL, **options: Any) -> Records:
    return by_id(loaded(model, **options).score(to_score(rollout), task))


def test_the_merged_checkpoint_agrees_and_the_base_does_not(base: Path, directory: Path, rollout: Records) -> None:
    adapter = str(directory / "adapter")
    assert largest_tv(rollout, scored(rollout, base, DECODE, adapter=adapter)) == 0
    for options in (
        {},
        {"padding": "packed"},
        {"train_mode": True},
        {"train_mode": True, "gradient_checkpointing": True},
    ):
        assert largest_tv(rollout, scored(rollout, base, adapter=adapter, **options)) < 1e-5
    assert largest_tv(rollout, scored(rollout, directory / "merged")) < 1e-5
    assert largest_tv(rollout, scored(rollout, base)) > 0.05
    assert 1e-5 < largest_tv(rollout, scored(rollout, base, adapter=adapter, dtype="bfloat16")) < 0.15


def test_an_adapter_directory_as_the_model_stands_for_its_base_with_it(directory: Path, rollout: Records) -> None:
    assert largest_tv(rollout, scored(rollout, directory / "adapter")) < 1e-5
    assert largest_tv(rollout, scored(rollout, directory / "adapter", adapter="none")) > 0.05


def test_facts_name_the_adapter_beside_its_base(base: Path, directory: Path) -> None:
    facts = loaded(base, adapter=str(directory / "adapter")).facts()
    assert json.loads(json.dumps(facts)) == facts
    plain = loaded(base).facts()
    assert facts["model"] == plain["model"] | {"adapter": facts["model"]["adapter"]}
    assert facts["model"]["adapter"]["config"]["lora_alpha"] == 8
    assert facts["effective"]["adapter_dtype"] == "float32" and plain["effective"]["adapter_dtype"] is None


def test_another_scaling_of_the_same_weights_is_another_policy(
    base: Path, directory: Path, rollout: Records, tmp_path: Path
) -> None:
    shutil.copytree(directory / "adapter", tmp_path / "scaled")
    config = json.loads((tmp_path / "scaled" / "adapter_config.json").read_text())
    (tmp_path / "scaled" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 4}))
    assert largest_tv(rollout, scored(rollout, base, adapter=str(tmp_path / "scaled"))) > 0.01


def test_an_adapter_of_another_model_is_refused(models: Path, directory: Path) -> None:
    with pytest.raises(ModelError, match="adapter in ") as caught:
        loaded(models / "tiny", adapter=str(directory / "adapter"))
    assert caught.value.hint


def test_a_float32_head_does_not_leave_an_adapted_head_out(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    assert loaded(base, adapter=str(tmp_path / "adapter")).facts()["effective"]["lm_head"] == "float32"
    with pytest.raises(ModelError, match="changes the LM head") as caught:
        loaded(base, adapter=str(tmp_path / "adapter"), lm_head="float32")
    assert caught.value.hint == "lm_head=model"


def test_the_command_that_merges_does(base: Path, directory: Path, rollout: Records, tmp_path: Path) -> None:
    """The one that a refusal prints, as a person types it."""
    from mismatchscope.engines.common.adapter import split_adapter

    _, adapter = split_adapter(str(base), str(directory / "adapter"))
    code = adapter.merge_hint.split('"')[1].replace("MERGED", str(tmp_path / "merged"))
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert largest_tv(rollout, scored(rollout, tmp_path / "merged")) < 0.05  # in the bfloat16 of the base
