"""What is said of an engine of somebody else's that does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.engines.common.startup import import_errors, start_errors
from mismatchscope.errors import EngineError, MismatchScopeError, ModelError, SpecError


@pytest.mark.parametrize(
    ("raised", "cause", "error", "says"),
    [
        (RuntimeError("CUDA out of memory while loading the weights"), None, EngineError, "CUDA out of memory"),
        (MemoryError(), None, EngineError, "does not start: "),
        (
            RuntimeError("scheduler died"),
            EngineError("ValueError: Loaded weights leave no GPU memory for the KV cache"),
            EngineError,
            "Loaded weights leave no GPU memory",
        ),
        (
            RuntimeError("scheduler died"),
            EngineError("RuntimeError: the weights leave no room for the full KV pool"),
            EngineError,
            "no room for the full KV pool",
        ),
        (RuntimeError("unknown model type 'x'"), None, ModelError, "Engine 1.0 cannot run the model in m: unknown"),
        (ValueError("no such backend"), None, SpecError, "Engine 1.0 refuses these settings: no such backend"),
        (TypeError("no such backend"), None, EngineError, "does not start: TypeError: no such backend"),
        (RuntimeError("it ended"), ModelError("the head is random"), ModelError, "^the head is random$"),
        (RuntimeError("it ended"), EngineError("KeyError: 'x'"), EngineError, "does not start: KeyError: 'x'"),
        (RuntimeError("x" * 900), None, EngineError, "x{400}…$"),
        (SpecError("ours"), None, SpecError, "^ours$"),
    ],
)
def test_why_an_engine_did_not_start(
    raised: Exception, cause: Exception | None, error: type[MismatchScopeError], says: str
) -> None:
    with (
        pytest.raises(error, match=says) as caught,
        start_errors(
            "Engine 1.0", Path("m"), memory_hint="a smaller x=", refusals=(ValueError,), find_cause=lambda: cause
        ),
    ):
        raise raised
    assert type(caught.value) is error
    if isinstance(raised, MemoryError) or "memory" in says or "no room" in says:
        assert caught.value.hint == "a smaller x="


def test_a_package_that_is_broken_is_told_from_one_that_is_missing() -> None:
    with pytest.raises(ModuleNotFoundError), import_errors("engine", "Engine"):
        raise ModuleNotFoundError(name="engine")
    for broken in (ModuleNotFoundError("no kernels", name="kernels"), ImportError("libx.so"), OSError("libx.so")):
        with pytest.raises(EngineError, match="importing it fails") as caught, import_errors("engine", "Engine"):
            raise broken
        assert caught.value.hint.startswith("engine:python=PATH runs it elsewhere; mismatchscope env create engine")
