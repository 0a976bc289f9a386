"""What a `vllm` SPEC may say, and what is said of a vLLM that is missing, broken, or out of memory."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import save_model

from mismatchscope.engines.common import startup
from mismatchscope.engines.common.adapter import Adapter
from mismatchscope.engines.common.options import check_arguments
from mismatchscope.engines.runtime.launcher import job_for, run_job
from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.engines.vllm import options as vllm_options
from mismatchscope.engines.vllm.options import VllmOptions, compiles, lora_arguments, prepare_process
from mismatchscope.engines.vllm.start import load_errors, memory_errors
from mismatchscope.errors import CapabilityError, EngineError, MismatchScopeError, ModelError, SpecError
from mismatchscope.records import Request, Task, write_requests


def test_the_keys_of_a_spec_become_arguments_of_vllm() -> None:
    text = 'vllm==0.32.0:dtype=float32,max_num_seqs=4,block_size=32,compilation_config={"mode":0},batch_size=8'
    options = resolve_options(parse_spec(text))
    assert options.arguments() == {
        "dtype": "float32",
        "max_num_seqs": 4,
        "tensor_parallel_size": 1,
        "trust_remote_code": False,
        "block_size": 32,
        "compilation_config": {"mode": 0},
    }
    assert options.batch_size == 8


@pytest.mark.parametrize(
    ("spec", "on_cpu", "on_gpu"),
    [
        ("vllm", True, True),
        ("vllm:enforce_eager=false", True, True),
        ("vllm:enforce_eager=true", False, False),
        ('vllm:compilation_config={"mode":0}', False, False),
        ("vllm:optimization_level=0", False, False),
        ("vllm:adapter=somewhere", False, True),
    ],
)
def test_when_a_compiler_is_needed_for_sure(tmp_path: Path, spec: str, on_cpu: bool, on_gpu: bool) -> None:
    options = resolve_options(parse_spec(spec))
    assert compiles(str(tmp_path), options, gpu=False) is on_cpu
    assert compiles(str(tmp_path), options, gpu=True) is on_gpu
    (tmp_path / "adapter_config.json").touch()
    assert not compiles(str(tmp_path), options, gpu=False)


def test_the_room_for_an_adapter_is_the_smallest_that_vllm_has() -> None:
    def room(**config: Any) -> int:
        return lora_arguments(Adapter(Path(), config))["max_lora_rank"]

    assert (room(r=1), room(r=8), room(r=9), room(r=300), room(r=999)) == (1, 8, 16, 320, 512)
    assert room(r=4, rank_pattern={"q_proj": 17}) == 32
    assert "adapter" not in VllmOptions(adapter="a").arguments()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ("batch_size=0", SpecError, "batch_size=0 is below 1"),
        ("dtype=int8", SpecError, "dtype=int8"),
        ("model=other", SpecError, "mismatchscope's to set"),
        ("async_scheduling=true", SpecError, "mismatchscope's to set"),
        ("pipeline_parallel_size=2", CapabilityError, "does not look"),
        ('speculative_config={"method":"ngram"}', CapabilityError, "speculative_config"),
    ],
)
def test_what_a_spec_may_not_say(options: str, error: type[MismatchScopeError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        resolve_options(parse_spec(f"vllm:{options}"))
    assert caught.value.hint or "dtype" in says


def test_an_argument_that_this_vllm_does_not_have() -> None:
    options = VllmOptions(engine_args={"enforce_eagr": True})
    with pytest.raises(SpecError, match=r"vLLM 0\.33\.0 has no engine argument 'enforce_eagr'") as caught:
        check_arguments(
            options, ["dtype", "enforce_eager", "tensor_parallel_size", "trust_remote_code"], "vLLM 0.33.0"
        )
    assert caught.value.hint == "did you mean enforce_eager?"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An empty process environment, on a machine of 64 GiB and 4 cores."""
    process = SimpleNamespace(environ={}, sched_getaffinity=lambda pid: {3, 4, 6, 7})
    facts = {"gpus": [], "memory_bytes": 64 * 2**30, "cores": 4}
    for module in (vllm_options, startup):
        monkeypatch.setattr(module, "os", process)
        monkeypatch.setattr(module, "hardware", lambda: facts)
    return process.environ


def test_the_process_of_a_machine_without_a_gpu(environment: dict[str, str], tmp_path: Path) -> None:
    prepare_process(str(tmp_path), VllmOptions(tensor_parallel_size=2))
    assert "HF_HUB_OFFLINE" not in environment, "an adapter, whose base may be on the hub"
    (tmp_path / "config.json").write_text("{}")
    prepare_process(str(tmp_path), VllmOptions(tensor_parallel_size=2))
    assert environment == {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "8",
        "VLLM_CPU_OMP_THREADS_BIND": "3,4|6,7",
    }


def test_what_the_user_has_set_stays(environment: dict[str, str]) -> None:
    environment |= {"OMP_NUM_THREADS": "4", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    prepare_process("someone/a-model", VllmOptions(engine_args={"kv_cache_memory_bytes": 2**30}))
    assert environment == {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "4",
    }


def test_a_gpu_needs_no_more(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (vllm_options, startup):
        monkeypatch.setattr(module, "hardware", lambda: {"gpus": [{"name": "one"}], "cores": 4})
    prepare_process("someone/a-model", VllmOptions(tensor_parallel_size=2))
    assert environment == {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}


def start(directory: Path, python: str) -> None:
    save_model(directory / "model")
    write_requests(directory / "requests", [Request(0, 0, prompt="a")])
    task = Task("t", "rollout", str(directory / "requests"), str(directory / "t"))
    job = job_for(parse_spec("vllm"), str(directory / "model"), [task])
    run_job(job, python=python, log_path=directory / "log", on_event=lambda event: None)


def test_an_interpreter_without_vllm(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="needs the package vllm") as caught:
        start(tmp_path, sys.executable)
    assert "pip install vllm" in caught.value.hint


@pytest.mark.parametrize(
    "failure", ["ImportError('libcudart.so.13: cannot open')", "ModuleNotFoundError(name='torchvision')"]
)
def test_a_vllm_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    (tmp_path / "site" / "vllm").mkdir(parents=True)
    (tmp_path / "site" / "vllm" / "__init__.py").write_text(f"raise {failure}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with pytest.raises(EngineError, match="importing it fails") as caught:
        start(tmp_path, sys.executable)
    assert "env create vllm" in caught.value.hint and str(tmp_path / "log") in caught.value.hint
    assert f"raise {failure}" in caught.value.log_tail


class Invalid(ValueError):
    """A validation error as pydantic raises it: long, with the reason somewhere inside."""

    def __init__(self, location: tuple[str, ...], message: str) -> None:
        super().__init__(f"1 validation error for ModelConfig\n  {message} [type=value_error, input_value=…]")
        self._details = [{"loc": location, "msg": message}]

    def errors(self) -> list[dict[str, Any]]:
        return self._details


@pytest.mark.parametrize(
    ("raised", "error", "says"),
    [
        (
            Invalid((), "Value error, Model architectures ['X'] are not supported"),
            ModelError,
            "cannot run .*: Model",
        ),
        (Invalid(("cache_dtype",), "Input should be 'auto'"), SpecError, "settings: cache_dtype: Input"),
        (ValueError("Unknown attention backend: 'NOPE'"), SpecError, "Unknown attention backend"),
        (ValueError("Following weights were not initialized: {'w'}"), ModelError, "not initialized"),
        (ValueError("No available memory for the cache blocks."), EngineError, "No available memory"),
        (RuntimeError("Engine core initialization failed."), EngineError, "RuntimeError: Engine core"),
        (EngineError("ours"), EngineError, "^ours$"),
    ],
)
def test_why_vllm_did_not_start(raised: Exception, error: type[MismatchScopeError], says: str) -> None:
    with pytest.raises(error, match=says) as caught, load_errors(Path("m"), "0.32.0"):
        raise raised
    assert type(caught.value) is error


def test_memory_that_ends_on_the_way() -> None:
    with pytest.raises(EngineError, match="ran out of memory") as caught, memory_errors(batch_size=9):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
    assert "batch_size=4" in caught.value.hint and "--resume" in caught.value.hint
    with pytest.raises(RuntimeError, match=r"^something else$"), memory_errors(batch_size=9):
        raise RuntimeError("something else")
