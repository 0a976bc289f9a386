"""Starting vLLM, and saying in one sentence why it did not."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ...errors import EngineError, MismatchScopeError, ModelError, SpecError

_ABOUT_MEMORY = re.compile(r"\bmemory\b", re.IGNORECASE)
_ABOUT_THE_MODEL = re.compile(r"architecture|checkpoint|safetensors|weights", re.IGNORECASE)
_LONGEST_REASON = 400


def import_vllm() -> ModuleType:
    """The package vllm. Raises ModuleNotFoundError where there is none, `EngineError` where it does not import."""
    try:
        import vllm
        from vllm import LLM, EngineArgs, SamplingParams  # noqa: F401 - imported on use, which is when they fail
    except ModuleNotFoundError as error:
        if error.name == "vllm":
            raise
        raise _broken(error) from error
    except (ImportError, OSError) as error:
        raise _broken(error) from error
    return vllm


def _broken(error: Exception) -> EngineError:
    return EngineError(
        f"vLLM is in {sys.executable}, but importing it fails: {_reason(error)}",
        hint="mismatchscope env create vllm makes an environment that works",
    )


@contextmanager
def load_errors(directory: Path, version: str) -> Iterator[None]:
    """Tell apart the model that vLLM cannot run, the settings that it refuses, and the want of memory."""
    try:
        yield
    except (MismatchScopeError, ImportError):
        raise
    except Exception as error:
        reason = _reason(error)
        if _is_memory(error):
            raise _no_memory(
                f"vLLM {version} does not start: {reason}", "max_model_len=, max_num_seqs= or batch_size="
            ) from error
        if _ABOUT_THE_MODEL.search(reason):
            raise ModelError(
                f"vLLM {version} cannot run the model in {directory}: {reason}",
                hint="another version of vLLM, or the engine transformers",
            ) from error
        if isinstance(error, ValueError | NotImplementedError):
            raise SpecError(f"vLLM {version} refuses these settings: {reason}") from error
        raise EngineError(f"vLLM {version} does not start: {type(error).__name__}: {reason}") from error


@contextmanager
def memory_errors(batch_size: int) -> Iterator[None]:
    """Name the way out when memory ends while vLLM runs."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not _is_memory(error):
            raise
        raise _no_memory(
            f"vLLM ran out of memory: {_reason(error)}", f"batch_size={max(1, batch_size // 2)}"
        ) from error


def _no_memory(message: str, smaller: str) -> EngineError:
    return EngineError(
        message,
        hint=f"a smaller {smaller}; gpu_memory_utilization= on a GPU, VLLM_CPU_KVCACHE_SPACE (GiB) on a CPU; "
        "what was finished is kept for --resume",
    )


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or _ABOUT_MEMORY.search(str(error)) is not None


def _reason(error: Exception) -> str:
    """The first thing an exception says: pydantic, which vLLM checks its settings with, says much more."""
    if hasattr(error, "errors") and (details := error.errors()):
        where = ".".join(str(part) for part in details[0]["loc"][:1])
        reason = f"{where}: {details[0]['msg']}".removeprefix(": ").removeprefix("Value error, ")
    else:
        reason = str(error)
    reason = " ".join(reason.split())
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
