"""The probe `path`: gaps that were planted between decode and prefill, or between the engine and the trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import POLICY, FakeServer
from probe_runs import probed

from mismatchscope.engines.spec import parse_spec
from mismatchscope.engines.vllm.engine import VllmEngine
from mismatchscope.engines.vllm.options import VllmOptions
from mismatchscope.environments import find
from mismatchscope.errors import CapabilityError, ConfigError
from mismatchscope.machine import hardware
from mismatchscope.probes import path as path_probe
from mismatchscope.probes.plan import Question
from mismatchscope.reports.document import Report
from mismatchscope.reports.figure_paths import check_path, figure_at
from mismatchscope.reports.pair_fields import ProbeCell

LONG: dict[str, Any] = {"limit": 8, "sampling": {"samples": 2, "max_new_tokens": 24}}


def codes(report: Report) -> list[str]:
    assert report.probe is not None
    return [each.code for each in report.probe.conclusion]


def gaps(report: Report) -> dict[str, ProbeCell]:
    assert report.probe is not None
    return {f"{cell.setting} against {cell.against}": cell for cell in report.probe.cells}


def mean(cell: ProbeCell) -> float:
    assert cell.pair is not None and cell.pair.alpha.mean.value is not None
    return cell.pair.alpha.mean.value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behavior", "reference", "code"),
    [
        ("synthetic", "synthetic", "no_gap"),
        ("synthetic:tv=0.1", "synthetic", "all_engine"),
        ("synthetic:noise=0.05", "synthetic:noise=0.05", "all_path"),
        ("synthetic:noise=0.01", "synthetic:tv=0.2", "engine_larger"),
        ("synthetic:noise=0.3", "synthetic:noise=0.3,epsilon=0.01", "path_larger"),
    ],
)
def test_a_planted_part_is_the_one_that_is_named(tmp_path: Path, behavior: str, reference: str, code: str) -> None:
    report, started = probed("path", tmp_path / "path", behavior=behavior, reference=reference, **LONG)
    assert code in codes(report) and codes(report)[0] == "total"
    found = gaps(report)
    in_all, path, engine = (
        found[name] for name in ("decode against trainer", "decode against prefill", "prefill against trainer")
    )
    if code == "all_engine":
        assert path.pair.identical and mean(in_all) == pytest.approx(mean(engine), rel=1e-6) and mean(engine) > 0
    if code == "all_path":
        assert engine.pair.identical and mean(in_all) == pytest.approx(mean(path), rel=1e-6) and mean(path) > 0
    difference = engine.differences[0]
    assert difference.than == "decode against prefill"
    assert difference.tv.value == pytest.approx(mean(engine) - mean(path), abs=1e-12)
    assert started == ["synthetic"] * (1 if behavior == reference else 2)


@pytest.mark.slow
def test_one_prompt_tells_no_part_from_the_other(tmp_path: Path) -> None:
    one = {"limit": 1, "sampling": {"samples": 4, "max_new_tokens": 24}}
    sides = {"behavior": "synthetic:noise=0.01", "reference": "synthetic:tv=0.2"}
    report, _ = probed("path", tmp_path / "path", **sides, **one)
    assert "undecided" in codes(report) and not {"engine_larger", "grows", "shrinks"} & set(codes(report))


@pytest.mark.slow
def test_what_a_repeat_shows_too_is_no_gap(tmp_path: Path) -> None:
    """Batches of three, so that shuffled ones have other members."""
    sides = {"behavior": "synthetic:noise=0.05,batch_size=3", "reference": "synthetic:tv=0.3"}
    report, _ = probed("path", tmp_path / "path", **sides, **LONG)
    sentences = {each.code: each.sentence for each in report.probe.conclusion}
    assert sentences["noise"].endswith("decode again against decode; prefill again against prefill.")
    assert sentences["above_repeats"].endswith(": decode against trainer; prefill against trainer.")
    assert sentences["not_above_repeats"].endswith(": decode against prefill.")


@pytest.mark.slow
def test_without_repeats_that_differ_nothing_is_said_of_noise(tmp_path: Path) -> None:
    report, _ = probed("path", tmp_path / "path", behavior="synthetic:noise=0.05", **LONG)
    assert "deterministic" in codes(report) and "above_repeats" not in codes(report)


@pytest.mark.slow
@pytest.mark.parametrize("evidence", ["sampled", "topk:4"])
def test_the_parts_are_told_apart_from_less_evidence(tmp_path: Path, evidence: str) -> None:
    sides = {"behavior": "synthetic:noise=0.01", "reference": "synthetic:tv=0.3,cluster=1"}
    many = {"limit": 24, "sampling": {"samples": 2, "max_new_tokens": 24}}
    report, _ = probed("path", tmp_path / "path", evidence=evidence, **sides, **many)
    assert "engine_larger" in codes(report)
    assert gaps(report)["trainer again against trainer"].pair.identical


@pytest.mark.slow
def test_each_gap_has_a_name_in_gates(tmp_path: Path) -> None:
    report, _ = probed("path", tmp_path / "path", behavior="synthetic:tv=0.1", **LONG)
    for against in ("trainer", "prefill"):
        path = f"probe.cells.decode_synthetic_decode_against_{against}.pair.alpha.mean"
        check_path(path)
        assert figure_at(report, path).value == mean(gaps(report)[f"decode against {against}"])
    path = "probe.cells.prefill.differences.decode_against_prefill.tv"
    check_path(path)
    assert figure_at(report, path).value == mean(gaps(report)["prefill against trainer"])


@pytest.mark.slow
def test_an_engine_that_cannot_force_decoding_costs_only_what_needs_it(tmp_path: Path) -> None:
    model, prompts = tmp_path / "model", tmp_path / "prompts.jsonl"
    model.mkdir()
    config = {"vocab_size": POLICY.vocabulary, "max_position_embeddings": 64, "eos_token_id": 0}
    (model / "config.json").write_text(json.dumps(config))
    prompts.write_text("".join(json.dumps({"prompt_token_ids": [3 + i, 9, 20]}) + "\n" for i in range(4)))
    with FakeServer("vllm") as server:
        spec = f"vllm@{server.url}"
        asked = {"model": str(model), "prompts": prompts, "behavior": spec, "reference": spec}
        report, _ = probed("path", tmp_path / "path", evidence="topk:8", **asked)
    found = gaps(report)
    failed = {name for name, cell in found.items() if cell.status == "failed"}
    assert failed == {"decode against trainer", "decode against prefill", "decode again against decode"}
    assert all("decode" in found[name].reason for name in failed)
    assert found["prefill against trainer"].pair.identical
    assert codes(report) == ["no_decode", "deterministic"] and report.verdict == "inconclusive"


def test_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one value"):
        probed("path", tmp_path / "path", values=("2",))


@pytest.mark.parametrize(
    ("gpus", "spec", "tried"),
    [
        (["a GPU"], "vllm", True),
        (["a GPU"], "vllm==0.32.0", True),
        (["a GPU"], "vllm==0.27.1", False),
        (["a GPU"], "sglang", False),
        ([], "vllm", False),
    ],
)
def test_native_replay_is_tried_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, gpus: list[str], spec: str, tried: bool
) -> None:
    monkeypatch.setattr(path_probe, "hardware", lambda: {"gpus": gpus})
    sides = parse_spec(spec), parse_spec("transformers")
    labels = {setting.label for setting in path_probe.PROBE.plan(Question(*sides, 4)).settings}
    assert ("native replay" in labels) == tried
    asked = path_probe.PROBE.plan(Question(*sides, 4, ("native",)))
    [native] = [setting for setting in asked.settings if setting.label == "native replay"]
    assert (native.path, native.spec.options["enable_trace_replay"]) == ("decode", "true")


@pytest.mark.skipif(bool(hardware()["gpus"]), reason="a GPU replays")
def test_native_replay_is_refused_on_a_cpu() -> None:
    options = VllmOptions(engine_args={"enable_trace_replay": True})
    with pytest.raises(CapabilityError, match="on a GPU alone"):
        VllmEngine("demo", options).load()


@pytest.mark.gpu
@pytest.mark.skipif(not hardware()["gpus"], reason="only a GPU replays")
@pytest.mark.engines
@pytest.mark.slow
def test_native_replay_is_ours(tmp_path: Path) -> None:
    if find("vllm", "0.32.0") is None:
        pytest.skip("no environment: mismatchscope env create vllm==0.32.0")
    small = {"limit": 4, "sampling": {"samples": 1, "max_new_tokens": 16}}
    sides = {"behavior": "vllm==0.32.0:enforce_eager=true", "reference": "transformers"}
    report, _ = probed("path", tmp_path / "path", values=("native",), model="demo:dense", **sides, **small)
    assert gaps(report)["native replay against decode"].pair.identical and "same_replay" in codes(report)


@pytest.mark.slow
def test_a_real_model_in_two_precisions(tmp_path: Path) -> None:
    sides = {"behavior": "transformers:dtype=bfloat16", "reference": "transformers:dtype=float32"}
    small = {"limit": 4, "sampling": {"samples": 1, "max_new_tokens": 16}}
    report, _ = probed("path", tmp_path / "path", model="demo:dense", **sides, **small)
    assert report.verdict == "none" and codes(report)[0] == "total"
    found = gaps(report)
    assert all(found[f"{once} again against {once}"].pair.identical for once in ("decode", "prefill", "trainer"))
    assert mean(found["prefill against trainer"]) > 0
