"""The probe `context` on tiny models, one of which differs from the other in what was planted."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import run_here
from probe_runs import codes
from tiny_models import save_model

from mismatchscope.collection.collector import Collector
from mismatchscope.collection.output import output_directory
from mismatchscope.config import AuditSettings
from mismatchscope.engines import registry
from mismatchscope.probes import run_probe as running
from mismatchscope.reports.document import Report
from mismatchscope.reports.pair_fields import ProbeCell

pytestmark = pytest.mark.slow

BOS = 3


def probed(directory: Path, values: str, **settings: Any) -> Report:
    asked = AuditSettings(**settings)
    with output_directory(directory):
        planned = running.plan_probe("context", asked, (values,))
        return running.run_probe(planned, asked, directory, command="", on_event=lambda event: None)


def cells(report: Report) -> dict[tuple[str, str], ProbeCell]:
    assert report.probe is not None
    return {(cell.setting, cell.against): cell for cell in report.probe.cells}


def write_config(directory: Path, **keys: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def change_weights(directory: Path, change: Callable[[Any], None]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        change(model.model)
    model.save_pretrained(directory)


def scale_scores(model: Any) -> None:
    """The norm of the queries is what the scale of the softmax multiplies."""
    for layer in model.layers:
        layer.self_attn.q_norm.weight.mul_(1.1)


def change_one_layer(model: Any) -> None:
    weight = model.layers[0].mlp.down_proj.weight
    weight.add_(weight.roll(1, 0), alpha=0.02)


SLIDING = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 0}
PLANTED: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "nothing": (lambda path: None, ["no_gap"]),
    "rotary base": (
        lambda path: write_config(path, rope_parameters={"rope_theta": 5e3, "rope_type": "default"}),
        ["vanishes", "gap", "grows"],
    ),
    "sliding window": (
        lambda path: write_config(path, layer_types=["sliding_attention"] * 2, **SLIDING),
        ["vanishes", "gap", "further_back"],
    ),
    "softmax scale": (lambda path: change_weights(path, scale_scores), ["vanishes", "gap"]),
    "one layer": (lambda path: change_weights(path, change_one_layer), ["stays", "gap"]),
    "epsilon": (lambda path: write_config(path, rms_norm_eps=1e-4), ["stays", "gap"]),
}


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine `other`, and no process for any engine."""
    monkeypatch.setitem(registry.ENGINES, "other", "other_checkpoint:OtherCheckpoint")
    monkeypatch.setattr(running, "Collector", functools.partial(Collector, run=run_here))


def probed_models(directory: Path, values: str, reference: str, first: list[int]) -> Report:
    rng = np.random.default_rng(1)
    prompts = [first + rng.integers(4, 60, rng.integers(24, 48)).tolist() for _ in range(6)]
    lines = [json.dumps({"prompt_token_ids": prompt}) for prompt in prompts]
    (directory / "prompts.jsonl").write_text("\n".join(lines))
    return probed(
        directory / "run",
        values,
        model=str(directory / "model"),
        prompts=directory / "prompts.jsonl",
        behavior="transformers:dtype=float32",
        reference=reference,
        sampling={"max_new_tokens": 12},
    )


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_difference_is_told_from_attention_or_weights(name: str, tmp_path: Path, other: None) -> None:
    for each in ("model", "other"):
        save_model(tmp_path / each)
    change, expected = PLANTED[name]
    change(tmp_path / "other")
    spec = f"other:dtype=float32,checkpoint={tmp_path / 'other'}"
    report = probed_models(tmp_path, "1,8", reference=spec, first=[])
    found = codes(report)
    assert found[: len(expected)] == expected
    one = cells(report)["one token", "behaviour"].pair
    assert one is not None and one.identical == (expected[0] != "stays"), "a softmax over one key is 1"


def test_a_bos_token_that_one_side_adds_is_found(tmp_path: Path, other: None) -> None:
    save_model(tmp_path / "model", bos_token_id=BOS)
    report = probed_models(tmp_path, "1,bos", reference=f"other:dtype=float32,first={BOS}", first=[BOS])
    found = cells(report)
    for closing in (("BOS doubled", "whole"), ("BOS missing", "behaviour")):
        assert found[closing].pair.identical
    for other_way in (("BOS doubled", "behaviour"), ("BOS missing", "whole")):
        assert found[other_way].ratio.value.low > 0.5
    assert codes(report) == ["bos", "bos", "gap"]


def test_attention_kernels_of_the_embedded_model_agree_on_one_key(tmp_path: Path) -> None:
    sides = {"behavior": "transformers:attn=eager", "reference": "transformers:attn=sdpa"}
    report = probed(tmp_path / "run", "1,16", limit=4, sampling={"max_new_tokens": 16}, model="demo:dense", **sides)
    found = cells(report)
    assert found["one token", "behaviour"].pair.identical and not found["whole", "behaviour"].pair.identical
    assert codes(report)[:2] == ["vanishes", "gap"] and report.verdict == "none"
