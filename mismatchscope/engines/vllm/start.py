"""Starting vLLM, and saying in one sentence why it did not, or why its memory ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

from ...errors import EngineError
from ..common.adapter import Adapter
from ..common.startup import import_errors, is_about_memory, reason_of, start_errors

_MORE_MEMORY = (
    "gpu_memory_utilization= on a GPU, VLLM_CPU_KVCACHE_SPACE (GiB) on a CPU; "
    "what was finished is kept for --resume"
)


def import_vllm() -> ModuleType:
    """The package vllm. Raises ModuleNotFoundError where there is none, `EngineError` where it does not import."""
    with import_errors("vllm", "vLLM"):
        import vllm
        from vllm import LLM, EngineArgs, SamplingParams  # noqa: F401 - imported on use, which is when they fail
    return vllm


def load_errors(directory: Path, version: str, adapter: Adapter | None = None) -> AbstractContextManager[None]:
    """Say why vLLM cannot load the model in `directory`, or the adapter on it."""
    return start_errors(
        f"vLLM {version}",
        directory,
        memory_hint=f"a smaller max_model_len=, max_num_seqs= or batch_size=; {_MORE_MEMORY}",
        refusals=(ValueError, NotImplementedError),
        adapter=adapter,
    )


@contextmanager
def memory_errors(batch_size: int) -> Iterator[None]:
    """Name the way out when memory ends while vLLM runs a batch of so many sequences."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_about_memory(error):
            raise
        raise EngineError(
            f"vLLM ran out of memory with batch_size={batch_size}: {reason_of(error)}",
            hint=f"a smaller batch_size={max(1, batch_size // 2)}; {_MORE_MEMORY}",
        ) from error
