"""Weights that were altered on purpose are named, on disk and in what transformers has loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import save_adapter
from offline import SGLANG, VLLM
from safetensors.torch import load_file, save_file
from stale_engine import SCALED, STALE
from tiny_models import save_model

from mismatchscope.demo import model_path
from mismatchscope.engines import registry
from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.environments import find
from mismatchscope.errors import CapabilityError, ConfigError, ModelError
from mismatchscope.probes.weights import WeightsQuestion, probe_weights
from mismatchscope.reports.weights_report import WeightsReport, WeightsStage
from mismatchscope.reports.weights_text import render, weights_sections

Tensors = dict[str, torch.Tensor]
VLLM_SMALL = "enforce_eager=true,max_model_len=128,kv_cache_memory_bytes=268435456"
UP, HEAD = "model.layers.1.mlp.up_proj.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


def altered(base: Path, directory: Path, alter: Callable[[Tensors], Any], **config: Any) -> Path:
    """A copy of a checkpoint with other tensors, or other keys in its configuration."""
    shutil.copytree(base, directory)
    tensors = load_file(base / "model.safetensors")
    alter(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((base / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(written | config))
    return directory


def compared(model: Path | str, other: Path | str) -> WeightsReport:
    question = WeightsQuestion.of(str(model), "synthetic", "synthetic", None, str(other))
    return probe_weights(question, Path("unused"), command="", on_event=lambda event: None)


def updated(model: Path, directory: Path) -> Path:
    """A checkpoint of the same model in which every tensor is another one, as after a step of training."""

    def step(tensors: Tensors) -> None:
        for number, (name, tensor) in enumerate(tensors.items()):
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
            tensors[name] = tensor + (0.01 * noise).to(tensor.dtype)

    return altered(model, directory, step)


def loaded(
    model: Path | str, directory: Path, behavior: str, reference: str, updated_model: Path | None = None
) -> tuple[WeightsReport, list[str]]:
    """The report, and the engines that were started."""
    started: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            started.append(event["side"])

    directory.mkdir()
    newer = None if updated_model is None else str(updated_model)
    question = WeightsQuestion.of(str(model), behavior, reference, None, None, newer)
    return probe_weights(question, directory, command="", on_event=on_event), started


def told(stage: WeightsStage) -> dict[str, str | None]:
    return {record.name: record.kind or record.status for record in stage.tensors}


def sentences(report: WeightsReport) -> str:
    return " ".join(line.text for section in weights_sections(report) for line in section.lines)


def test_a_checkpoint_saved_again_in_another_dtype_is_the_same(tiny: Path, tmp_path: Path) -> None:
    def cast(tensors: Tensors) -> None:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})

    report = compared(tiny, altered(tiny, tmp_path / "bf16", cast))
    assert (report.verdict, report.stages[0].counts["cast"]) == ("pass", report.stages[0].total)
    assert "cast to another dtype" in sentences(report)


def test_one_tensor_altered_and_one_scaled(tiny: Path, tmp_path: Path) -> None:
    def alter(tensors: Tensors) -> None:
        tensors[UP][3, 5] += 1
        tensors["model.norm.weight"] *= 1.01

    report = compared(tiny, altered(tiny, tmp_path / "other", alter))
    assert report.verdict == "fail"
    assert told(report.stages[0]) == {UP: "values", "model.norm.weight": "scaled"}
    scaled = next(record for record in report.stages[0].tensors if record.kind == "scaled")
    assert scaled.ratio == pytest.approx(1.01)
    assert "scaled by 1.01: model.norm.weight" in sentences(report)


def test_a_layer_of_an_older_checkpoint(tiny: Path, tmp_path: Path) -> None:
    def make_old(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if ".layers.1." in name:
                tensor += 0.01 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))

    report = compared(tiny, altered(tiny, tmp_path / "stale", make_old))
    layer = {name for name in load_file(tiny / "model.safetensors") if ".layers.1." in name}
    assert told(report.stages[0]) == dict.fromkeys(layer, "values")
    assert "All that differ are of layer 1." in sentences(report)


def test_an_adapter_that_one_side_has_not_merged(tiny: Path, tmp_path: Path) -> None:
    save_adapter(tiny, tmp_path / "adapter", merged=tmp_path / "merged")
    report = compared(tiny, tmp_path / "merged")
    names = {f"model.layers.{n}.{m}.weight" for n in (0, 1) for m in ("self_attn.q_proj", "self_attn.v_proj")}
    assert names <= told(report.stages[0]).keys()
    assert {record.rank for record in report.stages[0].tensors} == {4}
    assert "one side may have merged one" in sentences(report)


def test_a_head_of_its_own_where_the_other_ties_it(tiny: Path, tmp_path: Path) -> None:
    def untie(tensors: Tensors, change: float) -> None:
        tensors[HEAD] = tensors["model.embed_tokens.weight"] + change * torch.randn(64, 32)

    same = altered(tiny, tmp_path / "same", lambda tensors: untie(tensors, 0.0), tie_word_embeddings=False)
    other = altered(tiny, tmp_path / "other", lambda tensors: untie(tensors, 0.1), tie_word_embeddings=False)
    assert compared(tiny, same).verdict == "pass"
    assert told(compared(tiny, other).stages[0]) == {HEAD: "values"}


def test_a_tensor_that_one_checkpoint_lacks(tiny: Path, tmp_path: Path) -> None:
    report = compared(tiny, altered(tiny, tmp_path / "less", lambda tensors: tensors.pop(UP)))
    assert (report.verdict, told(report.stages[0])) == ("fail", {UP: "missing"})
    assert f"not found there: {UP}" in sentences(report)


def test_what_transformers_has_loaded_is_told_tensor_by_tensor(tiny: Path) -> None:
    engine = TransformersEngine(str(tiny), TransformersOptions(device="cpu"))
    engine.load()
    before = engine.weights()
    assert {record.status for record in before} == {"same"}
    assert {record.name for record in before} == {*load_file(tiny / "model.safetensors"), HEAD}
    tensors = engine._lm.network.state_dict()
    with torch.no_grad():
        tensors[UP].mul_(2)
        tensors["model.layers.0.self_attn.k_proj.weight"].zero_()
    after = WeightsStage.of(list(engine.weights()), checkpoint="tiny", found="transformers", side="both")
    assert told(after) == {UP: "scaled", "model.layers.0.self_attn.k_proj.weight": "scaled"}
    assert [record.ratio for record in after.tensors if record.name != UP] == [0.0]


def test_an_adapter_that_runs_unmerged_is_all_there(tiny: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tiny, tmp_path / "adapter")
    engine = TransformersEngine(str(tiny), TransformersOptions(device="cpu", adapter=str(adapter)))
    engine.load()
    records = engine.weights()
    assert {record.status for record in records} == {"same"}
    assert sum("lora_" in record.name for record in records) == 12


def test_a_head_that_is_stored_is_loaded_whatever_the_configuration_says(tiny: Path, tmp_path: Path) -> None:
    def add_head(tensors: Tensors) -> None:
        tensors[HEAD] = torch.randn(64, 32)

    engine = TransformersEngine(str(altered(tiny, tmp_path / "both", add_head)), TransformersOptions(device="cpu"))
    engine.load()
    assert {record.status for record in engine.weights()} == {"same"}


@pytest.mark.slow
def test_both_sides_have_the_embedded_model(tmp_path: Path) -> None:
    model = "demo:moe"  # which has all that the dense one has, and experts
    report, started = loaded(model, tmp_path / "out", "transformers:dtype=float32", "transformers:dtype=bfloat16")
    assert (report.verdict, started) == ("pass", ["transformers", "transformers"])
    assert [stage.side for stage in report.stages] == ["behavior", "reference"]
    assert report.sentence == f"Both sides have loaded what is in {model}."
    assert WeightsReport.model_validate_json(report.to_json()) == report


@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.usefixtures("forked_engines")
@pytest.mark.parametrize(("spec", "options"), [(VLLM[-1], VLLM_SMALL), (SGLANG[0], "dtype=auto")])
def test_what_an_engine_has_loaded_and_what_an_update_makes_of_it(spec: str, options: str, tmp_path: Path) -> None:
    """Of the mixture, which has all that the dense model has, and experts. vLLM's kernels for a CPU pack the linear
    layers, and the experts in an order of their own. Dummy weights are none of the checkpoint's."""
    if find(*spec.split("==")) is None:
        pytest.skip(f"no environment: mismatchscope env create {spec}")
    newer = updated(model_path("moe"), tmp_path / "newer")
    dummy = f"{spec}:{options},load_format=dummy"
    report, _ = loaded("demo:moe", tmp_path / "out", f"{spec}:{options}", dummy, updated_model=newer)
    good, after, wrong, _ = report.stages
    for stage, checkpoint in ((good, "demo:moe"), (after, str(newer))):
        assert (stage.verdict, stage.checkpoint, stage.tensors) == ("pass", checkpoint, [])
    assert good.engine_version == spec.split("==")[1] and after.after_update
    assert wrong.verdict == "fail"
    parts = {f"model.layers.{layer}.self_attn.{part}_proj.weight" for layer in range(4) for part in "qkvo"}
    assert parts <= {record.name for record in wrong.tensors if record.kind == "values"}
    assert report.sentence == f"What {dummy} has loaded is not what is in demo:moe."


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_an_update_left_out_is_named(
    dtype: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the engine's dtype is; the side whose update is whole has nothing named."""
    monkeypatch.setitem(registry.ENGINES, "stale", "stale_engine:StaleEngine")
    newer = updated(tiny, tmp_path / "newer")
    report, started = loaded(
        tiny, tmp_path / "out", f"stale:device=cpu,dtype={dtype}", "transformers:device=cpu", updated_model=newer
    )
    assert started == ["stale", "transformers"], "an engine is started once"
    assert [(stage.side, stage.after_update, stage.verdict) for stage in report.stages] == [
        ("behavior", False, "pass"),
        ("behavior", True, "fail"),
        ("reference", False, "pass"),
        ("reference", True, "pass"),
    ]
    assert told(report.stages[1]) == {STALE: "stale", SCALED: "scaled"}
    assert report.sentence.endswith(f"does not have what is in {newer}: 1 tensor is as before it.")
    assert f"stale, as before the update: {STALE}" in sentences(report) and "After the update" in render(report)


def test_an_update_needs_engines(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is updated"):
        WeightsQuestion.of(str(tiny), "transformers", "transformers", None, str(tiny), str(tiny))


@pytest.mark.slow
def test_an_engine_that_cannot_tell_costs_not_the_other(tiny: Path, tmp_path: Path) -> None:
    report, started = loaded(tiny, tmp_path / "out", "synthetic", "transformers:device=cpu")
    assert (report.verdict, started) == ("inconclusive", ["transformers"])
    assert [stage.verdict for stage in report.stages] == ["inconclusive", "pass"]
    assert "The engine synthetic does not show the parameters" in render(report)


def test_where_nobody_can_tell_it_is_an_error(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="does not show the parameters"):
        loaded(tiny, tmp_path / "out", "synthetic", "synthetic:noise=0.1")


def test_what_is_no_checkpoint(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a directory"):
        compared(tiny, tmp_path / "nothing")
    shutil.copytree(tiny, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no safetensors weights"):
        compared(tiny, tmp_path / "pickled")
