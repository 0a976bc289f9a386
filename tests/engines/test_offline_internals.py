"""What vLLM and SGLang show of their inside, in float32, against transformers. See also test_offline.py."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from offline import HAS_AMX, SGLANG, VLLM, Engine
from safetensors.torch import load_file

from mismatchscope.engines.common.stage_files import finished_internals, read_internals
from mismatchscope.engines.common.stages import EXPERT_IDS, EXPERT_WEIGHTS, kind_of
from mismatchscope.engines.transformers.engine import TransformersEngine, TransformersOptions
from mismatchscope.errors import EngineError
from mismatchscope.records import Request, Task

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.parametrize("spec", [*VLLM, *SGLANG])]


@pytest.mark.parametrize("model", ["dense", "moe"])
def test_every_stage_is_that_of_transformers(
    engine: Engine, models: dict[str, Path], spec: str, model: str, tmp_path: Path
) -> None:
    refused = HAS_AMX and (spec, model) == ("vllm==0.27.1", "moe")
    with pytest.raises(EngineError, match="AMX") if refused else nullcontext():
        run = engine.float32(model)
    if refused:
        return
    shown = finished_internals(run.directory / "inside")
    records = run.of("roll")
    assert shown.keys() == records.keys()
    reference = TransformersEngine(str(models[model]), TransformersOptions(dtype="float32", attn="eager"))
    reference.load()
    for sequence_id in sorted(shown)[:4]:
        record = records[sequence_id]
        request = Request(sequence_id, 0, record.prompt_token_ids, response_token_ids=record.response_token_ids)
        reference.internals([request], Task("t", "internals", "", str(tmp_path)))
        path = finished_internals(tmp_path)[sequence_id]
        own, found = load_file(path), load_file(shown[sequence_id])
        assert found.keys() == own.keys()
        assert read_internals(shown[sequence_id]).unmatched == {}
        for stage, value in own.items():
            other = found[stage]
            if kind_of(stage) in (EXPERT_IDS, EXPERT_WEIGHTS):  # engines have slots in orders of their own
                value, other = value.sort().values, other.sort().values
            distance = (value.double() - other.double()).norm() / value.double().norm()
            assert distance < 1e-4, stage
            assert value.shape == other.shape and (torch.is_floating_point(value) == torch.is_floating_point(other))
