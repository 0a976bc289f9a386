"""What an `sglang` SPEC may say, what becomes of it, and what is said of an SGLang that does not import."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed_here import install

from mismatchscope.engines.common.adapter import Adapter
from mismatchscope.engines.common.options import check_arguments
from mismatchscope.engines.runtime.launcher import job_for, run_job
from mismatchscope.engines.sglang.facts import effective_settings
from mismatchscope.engines.sglang.options import SglangOptions
from mismatchscope.engines.sglang.start import check_cpu_graphs
from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.errors import CapabilityError, EngineError, SpecError
from mismatchscope.records import Request, Task, write_requests


def options(spec: str) -> Any:
    return resolve_options(parse_spec(spec))


def test_any_argument_is_a_key() -> None:
    mine = options("sglang:dtype=float32,tp_size=2,schedule_policy=lpm,random_seed=7,chunked_prefill_size=-1")
    assert mine.arguments() == {
        "dtype": "float32",
        "tp_size": 2,
        "schedule_policy": "lpm",
        "random_seed": 7,
        "chunked_prefill_size": -1,
        "trust_remote_code": False,
    }


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("batch_size=0", SpecError),
        ("tp_size=-1", SpecError),
        ("dtype=float8", SpecError),
        ("model_path=x", SpecError),
        ("speculative_algorithm=EAGLE", CapabilityError),
        ("dp_size=2", CapabilityError),
        ("pp_size=2", CapabilityError),
    ],
)
def test_what_cannot_be_recorded_is_refused(spec: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        options(f"sglang:{spec}")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("spec", "compiles"),
    [
        ("sglang", False),
        ("sglang:enable_torch_compile=true", True),
        ("sglang:enable_torch_compile=true,disable_cuda_graph=true", False),
    ],
)
def test_when_a_compiler_is_needed(spec: str, compiles: bool) -> None:
    assert options(spec).compiles is compiles


@pytest.mark.parametrize(
    ("method", "backend", "refused"),
    [
        ("init_cuda_graph_state", "torch_native", True),
        ("init_cpu_graph_state", "torch_native", False),
        ("init_cuda_graph_state", "intel_amx", False),
        (None, "torch_native", False),  # built otherwise: SGLang will say
    ],
)
def test_attention_that_cannot_be_compiled_is_refused_before_anything_is_imported(
    method: str | None, backend: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "sglang", "0.5.23", source="raise ImportError")
    if method is not None:
        directory = tmp_path / "sglang" / "srt" / "layers" / "attention"
        directory.mkdir(parents=True)
        (directory / "base_attn_backend.py").touch()
        (directory / "torch_native_backend.py").write_text(f"class Attention:\n    def {method}(self): ...\n")
    if not refused:
        check_cpu_graphs(backend)
        return
    with pytest.raises(SpecError, match="cannot compile") as caught:
        check_cpu_graphs(backend)
    assert caught.value.hint == "sglang:enable_torch_compile=false"


def test_an_unknown_argument_is_named() -> None:
    known = [*SglangOptions.keys(), "schedule_policy"]
    check_arguments(options("sglang:schedule_policy=lpm"), known, "SGLang 0.5.23")
    with pytest.raises(SpecError, match="no engine argument 'chunked_prefil_size'") as caught:
        check_arguments(options("sglang:chunked_prefil_size=4"), known, "SGLang 0.5.23")
    assert caught.value.hint == "did you mean chunked_prefill_size?"


def test_without_a_gpu_the_defaults_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus in ([], [{"name": "H100"}]):
        monkeypatch.setattr("mismatchscope.engines.sglang.options.hardware", lambda gpus=gpus: {"gpus": gpus})
        arguments = SglangOptions(batch_size=5, max_total_tokens=9).engine_arguments()
        assert arguments["max_total_tokens"] == 9
        assert arguments.get("attention_backend") == (None if gpus else "torch_native")
        assert arguments.get("max_running_requests") == (None if gpus else 5)


def test_an_adapter_is_loaded_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = Adapter(tmp_path, {"r": 4})
    for gpus in ([], [{"name": "H100"}]):
        monkeypatch.setattr("mismatchscope.engines.sglang.options.hardware", lambda gpus=gpus: {"gpus": gpus})
        assert "lora_paths" not in SglangOptions().engine_arguments()
        arguments = SglangOptions(adapter="a", server_args={"max_loras_per_batch": 3}).engine_arguments(adapter)
        assert [path["lora_path"] for path in arguments["lora_paths"]] == [str(tmp_path)]
        assert arguments["max_loras_per_batch"] == 3 and "adapter" not in arguments
        assert arguments.get("lora_backend") == (None if gpus else "torch_native")


def test_what_runs_goes_before_what_was_configured() -> None:
    resolved = defaultdict(
        lambda: None,
        enable_torch_compile=True,
        sampling_backend="flashinfer",
        schedule_policy="lpm",
        cuda_graph_config={"decode": {"backend": "disabled"}, "prefill": {"backend": "disabled"}},
    )
    examined = {"graph_runner": None, "chunked_prefill_size": 8}
    effective = effective_settings(resolved, examined, ["enable_torch_compile", "sampling_backend", "dist_timeout"])
    assert effective["enable_torch_compile"] is False, "it compiles what it captures"
    assert (effective["chunked_prefill_size"], effective["schedule_policy"]) == (8, "lpm")
    assert effective["sampling_backend"] == "mismatchscope" and effective["decode_cuda_graph"] == "disabled"
    assert effective["dist_timeout"] is None


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "needs the package sglang"),
        ("raise ImportError('libnuma.so is not there')", "importing it fails: libnuma.so is not there"),
        ("import no_such_kernels", "importing it fails: No module named 'no_such_kernels'"),
    ],
)
def test_an_sglang_that_does_not_import(
    source: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source is not None:
        (tmp_path / "sglang.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    write_requests(tmp_path / "requests", [Request(0, 0, np.ones(3, np.int32))])
    task = Task("roll", "rollout", str(tmp_path / "requests"), str(tmp_path / "parts"))
    with pytest.raises(EngineError, match=says) as caught:
        run_job(
            job_for(parse_spec("sglang"), "any", [task]),
            log_path=tmp_path / "log",
            on_event=lambda event: None,
        )
    assert caught.value.hint
