"""vLLM and SGLang run a LoRA adapter: as the merged checkpoint does, and as its base does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapters import save_adapter
from offline import BOTH_PATHS, SGLANG, VLLM, Engine, transformers_score, tv

from mismatchscope.engines.common.adapter import split_adapter

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.parametrize("spec", [VLLM[1], *SGLANG])]


def test_an_adapter_agrees_with_the_merged_checkpoint_and_not_with_the_base(
    engine: Engine, models: dict[str, Path], tmp_path: Path
) -> None:
    adapter = save_adapter(models["dense"], tmp_path / "adapter", merged=tmp_path / "merged")
    run = engine.run("adapter", "dense", f"dtype=float32,adapter={adapter}", {"roll": {}, **BOTH_PATHS})
    roll = run.of("roll")
    for path in BOTH_PATHS:
        assert tv(roll, run.of(path)).max() < 1e-4
    merged = transformers_score(tmp_path / "merged", roll, dtype="float32")
    unmerged = transformers_score(models["dense"], roll, dtype="float32", adapter=str(adapter))
    base = transformers_score(models["dense"], roll, dtype="float32")
    assert tv(roll, merged).max() < 1e-4 and tv(roll, unmerged).max() < 1e-4
    assert tv(roll, base).mean() > 0.01
    _, expected = split_adapter(str(models["dense"]), str(adapter))
    assert run.facts["model"]["adapter"] == expected.facts()
    assert run.facts["effective"]["adapter_dtype"] == "float32"


def test_a_scaling_that_an_engine_does_not_read_is_a_remark_and_shows(
    engine: Engine, models: dict[str, Path], tmp_path: Path
) -> None:
    """SGLang divides by r where the adapter says √r; vLLM does as it says."""
    adapter = save_adapter(models["dense"], tmp_path / "adapter", use_rslora=True)
    run = engine.run("rslora", "dense", f"dtype=float32,adapter={adapter}", {"roll": {}})
    scored = transformers_score(models["dense"], run.of("roll"), dtype="float32", adapter=str(adapter))
    if engine.name == "sglang":
        assert any("takes no notice of use_rslora" in remark for remark in run.facts["notes"])
        assert tv(run.of("roll"), scored).mean() > 0.01
    else:
        assert run.facts["notes"] == [] and tv(run.of("roll"), scored).max() < 1e-4
