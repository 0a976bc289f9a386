"""Kernels: each setting against the SPEC as given, on both sides, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.engines.spec import parse_spec
from mismatchscope.environments import find
from mismatchscope.errors import ConfigError
from mismatchscope.machine import hardware
from mismatchscope.probes import kernel
from mismatchscope.probes.kernel import PROBE
from mismatchscope.probes.plan import Plan, Question
from mismatchscope.reports.document import Report
from mismatchscope.reports.pair_fields import ProbeCell
from tests.support.probe_runs import probed

EPSILON = 0.02


def found_in(report: Report) -> dict[tuple[str, str], ProbeCell]:
    assert report.probe is not None
    return {(cell.path, cell.setting): cell for cell in report.probe.cells}


def said(report: Report) -> list[tuple[str, str]]:
    assert report.probe is not None
    return [(each.code, each.sentence) for each in report.probe.conclusion]


def planned(behavior: str, reference: str, *values: str) -> Plan:
    return PROBE.plan(Question(parse_spec(behavior), parse_spec(reference), 8, values))


def tried(plan: Plan) -> list[tuple[str, str]]:
    assert {each.against.label for each in plan.comparisons} == {"as given"}
    return [(each.setting.path, each.setting.label) for each in plan.comparisons]


@pytest.mark.slow
def test_what_moves_most_and_what_not_by_a_bit(tmp_path: Path) -> None:
    """A planted error of the engine, one of twice its size, and an option that changes no number."""
    report, _ = probed(
        "kernel",
        tmp_path / "run",
        values=(f"epsilon={EPSILON}", f"epsilon={2 * EPSILON}+variant=1", "slow=0.001"),
    )
    for path in ("decode", "prefill"):
        assert found_in(report)[path, "slow=0.001"].pair.identical
        one, other = (
            found_in(report)[path, value].pair.alpha.mean.value
            for value in (f"epsilon={EPSILON}", f"epsilon={2 * EPSILON}+variant=1")
        )
        assert other == pytest.approx(2 * one, rel=0.5) and other > one
    assert [code for code, _ in said(report)] == ["moves_most", "not_by_a_bit"] * 2
    assert said(report)[0][1].startswith(
        f"synthetic decode: what moves it most is epsilon={2 * EPSILON}+variant=1, mean TV"
    )
    assert said(report)[1][1] == "synthetic decode: not a bit is moved by slow=0.001."
    assert report.verdict == "none"


@pytest.mark.slow
def test_a_setting_that_is_refused_costs_no_other(tmp_path: Path) -> None:
    report, _ = probed("kernel", tmp_path / "run", values=("attn=eager", f"epsilon={EPSILON}"))
    refused = found_in(report)["decode", "attn=eager"]
    assert refused.status == "failed" and refused.reason == "The engine synthetic has no option 'attn'."
    assert found_in(report)["decode", f"epsilon={EPSILON}"].status == "measured"
    assert report.verdict == "inconclusive" and "attn" not in " ".join(sentence for _, sentence in said(report))


def test_both_paths_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "hardware", lambda: {"gpus": []})
    plan = planned("transformers", "transformers:attn=eager,compile=true,train_mode=true")
    assert tried(plan) == [
        *(("decode", value) for value in ("attn=eager", "attn=sdpa", "compile=true", "deterministic=true")),
        *(("prefill", value) for value in ("attn=sdpa", "attn=flex", "compile=false", "deterministic=true")),
        ("prefill", "train_mode=false+gradient_checkpointing=false"),
        ("prefill", "gradient_checkpointing=true"),
        ("prefill", "fsdp=2"),
    ]
    assert set(plan.keys) == {"attn", "compile", "deterministic", "train_mode", "gradient_checkpointing", "fsdp"}


def test_the_precision_of_float32_products_is_tried_where_there_are_any() -> None:
    for options, products in (("dtype=float32", True), ("lm_head=float32", True), ("dtype=bfloat16", False)):
        labels = [label for _, label in tried(planned("transformers", f"transformers:{options}"))]
        assert ("matmul_precision=medium" in labels) == products


@pytest.mark.parametrize("gpus", [[], ["a GPU"]])
def test_what_is_tried_is_what_the_machine_can_run(monkeypatch: pytest.MonkeyPatch, gpus: list[str]) -> None:
    monkeypatch.setattr(kernel, "hardware", lambda: {"gpus": gpus})
    backends = [key for _, key in tried(planned("vllm", "transformers")) if key.startswith("attention_backend")]
    assert bool(backends) == bool(gpus)
    labels = [label for path, label in tried(planned("vllm", "transformers")) if path == "decode"]
    assert labels[0] == "enforce_eager=true"
    of_sglang = [
        each for each in planned("sglang", "transformers").comparisons if each.setting.spec.name == "sglang"
    ]
    assert bool(of_sglang) == bool(gpus)


def test_norms_and_rotary_embeddings_are_switched_to_what_is_not_run_already() -> None:
    for spec, sign in (("vllm", "+"), ("vllm:enforce_eager=true", "-")):
        plan = planned(spec, "transformers")
        labels = [label for path, label in tried(plan) if path == "decode"]
        assert f'compilation_config={{"custom_ops":["{sign}rotary_embedding"]}}' in labels
        configs = {each.setting.spec.options.get("compilation_config") for each in plan.comparisons}
        assert f'{{"custom_ops":["{sign}rms_norm"]}}' in configs, "a plus sign in brackets begins no other option"
    assert not any(
        "custom_ops" in label for _, label in tried(planned('vllm:compilation_config={"mode":0}', "transformers"))
    )


def test_what_does_not_decode_is_tried_where_it_reads() -> None:
    assert tried(planned("transformers", "transformers", "fsdp=2")) == [("prefill", "fsdp=2")]
    assert [path for path, _ in tried(planned("transformers", "transformers", "attn=eager"))] == [
        "decode",
        "prefill",
    ]


def test_devices_are_shared_where_that_is_asked_for() -> None:
    plan = planned("vllm", "transformers", "tensor_parallel_size=2")
    assert tried(plan) == [("decode", "tensor_parallel_size=2")]


@pytest.mark.parametrize("values", [(), ("epsilon=0.0",)])
def test_with_nothing_to_try_there_is_no_probe(values: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="no kernel"):
        planned("synthetic", "synthetic", *values)


@pytest.mark.slow
def test_kernels_of_transformers(tmp_path: Path) -> None:
    """In float32 eager attention differs from SDPA by rounding alone; what changes no number changes no bit; an
    attention that is not installed is refused."""
    report, _ = probed(
        "kernel",
        tmp_path / "run",
        values=("attn=eager", "deterministic=true", "train_mode=true", "attn=flash_attention_2"),
        behavior="transformers:dtype=float32",
        reference="transformers:dtype=float32",
        model="demo:dense",
        limit=4,
        sampling={"samples": 1, "max_new_tokens": 16},
    )
    found = found_in(report)
    for path in ("decode", "prefill"):
        eager = found[path, "attn=eager"]
        assert eager.pair is not None and not eager.pair.identical and eager.effective["attn"] == "eager"
        assert eager.pair.alpha.observed_max < 1e-4
        assert found[path, "deterministic=true"].pair.identical
        refused = found[path, "attn=flash_attention_2"]
        assert refused.status == "failed" and "FlashAttention2" in str(refused.reason)
    assert found["prefill", "train_mode=true"].effective["train_mode"] is True
    assert report.verdict == "inconclusive"


@pytest.mark.engines
@pytest.mark.usefixtures("forked_engines")
@pytest.mark.slow
@pytest.mark.skipif(bool(hardware()["gpus"]), reason="a GPU has that attention")
def test_what_vllm_ignores_is_said(tmp_path: Path) -> None:
    """It takes an attention that a CPU does not have, runs its own, and says so: nothing is said of FLASH_ATTN."""
    if find("vllm") is None:
        pytest.skip("no environment: mismatchscope env create vllm")
    report, _ = probed(
        "kernel",
        tmp_path / "run",
        values=("attention_backend=FLASH_ATTN",),
        behavior="vllm:enforce_eager=true,kv_cache_memory_bytes=268435456",
        reference="transformers",
        model="demo:dense",
        limit=2,
        sampling={"samples": 1, "max_new_tokens": 8},
    )
    [cell] = found_in(report).values()
    assert cell.status == "ignored" and report.verdict == "inconclusive"
    assert cell.reason == "asked for attention_backend=FLASH_ATTN, the engine has CPU_ATTN"
    assert said(report) == [("nothing_tried", "No setting did what it was asked to.")]
