"""SGLang's engine as this process sees it: its start, its requests, its end, and why it ended early.

SGLang kills the whole process when one of its own fails, and takes over its signals. Here a failure becomes an
exception, and the worker keeps its signals.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import EngineError, SpecError
from ..common.adapter import Adapter
from ..common.startup import import_errors, start_errors
from .exchange import Exchange

POLL_SECONDS = 0.02

_died = threading.Event()


def _note_death(number: int, frame: Any) -> None:
    """SGLang's processes send SIGQUIT when they fail, and so does its watchdog when one is gone."""
    _died.set()


def import_sglang() -> ModuleType:
    """The package sglang. Raises ModuleNotFoundError where there is none, `EngineError` where it is broken."""
    with import_errors("sglang", "SGLang"):
        import sglang
        import sglang.srt.entrypoints.engine
    return sglang


def check_cpu_graphs(attention_backend: str) -> None:
    """Raise `SpecError` where SGLang would compile for a CPU and its attention cannot be captured.

    SGLang says so when everything is loaded, by an attribute that is not there. Importing it to look takes half a
    minute, so its source is asked; what is not found there is SGLang's to say.
    """
    package = importlib.util.find_spec("sglang")
    if attention_backend != "torch_native" or package is None or package.origin is None:
        return
    directory = Path(package.origin).parent / "srt" / "layers" / "attention"
    sources = [directory / "torch_native_backend.py", directory / "base_attn_backend.py"]
    if not all(source.is_file() for source in sources):
        return
    if not any("def init_cpu_graph_state" in source.read_text(encoding="utf-8") for source in sources):
        raise SpecError(
            "This SGLang cannot compile a model whose attention_backend is torch_native, "
            "the one that runs without a GPU and its kernels.",
            hint="sglang:enable_torch_compile=false",
        )


class Sglang:
    """A running SGLang whose scheduler has our hooks and speaks through the exchange in `directory`."""

    def __init__(
        self, model: Path, adapter: Adapter | None, arguments: dict[str, Any], directory: str, version: str
    ) -> None:
        from sglang.srt.entrypoints.engine import Engine

        from .scheduler import run_scheduler

        class HookedEngine(Engine):
            run_scheduler_process_func = staticmethod(partial(run_scheduler, directory))

        self._exchange = Exchange(Path(directory))
        ours = {
            "name": "mismatchscope",
            "target_modules": ["logits_processor", "*.logits_processor"],
            "hook_factory": "mismatchscope.engines.sglang.scheduler:prefill_hook",
            "config": {"directory": directory},
        }
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        _died.clear()
        with start_errors(
            f"SGLang {version}",
            model,
            memory_hint="a smaller max_total_tokens= or max_running_requests=; mem_fraction_static= is the share "
            "for weights and cache: larger where the cache lacks room, smaller where the rest does",
            refusals=(ValueError, TypeError, NotImplementedError, AssertionError),
            find_cause=self._exchange.failure,
            adapter=adapter,
        ):
            self._engine = HookedEngine(
                **{"log_level": "warning", "sleep_on_idle": True}
                | arguments
                | {
                    "model_path": str(model),
                    "skip_tokenizer_init": True,
                    "skip_server_warmup": True,
                    "custom_sigquit_handler": _note_death,
                    "forward_hooks": [*(arguments.get("forward_hooks") or []), ours],
                }
            )
        self._loop: asyncio.AbstractEventLoop = self._engine.loop
        self._loop.run_until_complete(self._begin())
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGQUIT, _note_death)
        facts = self._exchange.scheduler_facts()
        if facts is None:
            raise EngineError(
                f"SGLang {version} is built otherwise than 0.5.23, the version whose inside mismatchscope knows",
                hint="mismatchscope env create sglang",
            )
        self.facts: dict[str, Any] = facts
        self.model_config = self._engine.tokenizer_manager.model_config

    def resolved_arguments(self) -> dict[str, Any]:
        """SGLang's arguments as it has settled them."""
        return self._engine.server_args.resolved_dict()

    def generate(self, batch_size: int, **request: Any) -> Iterator[None]:
        """Run a batch of `batch_size` requests; yields now and then, and once more when it has ended."""
        from sglang.srt.managers.io_struct import GenerateReqInput

        outputs = self._engine.tokenizer_manager.generate_request(GenerateReqInput(**request))
        task = self._loop.create_task(anext(outputs))
        while not task.done():
            self._loop.run_until_complete(asyncio.wait({task}, timeout=POLL_SECONDS))
            if _died.is_set():
                raise self._exchange.failure() or EngineError(
                    "a process of SGLang's has ended, often killed by the kernel for want of memory",
                    hint=f"batch_size below {batch_size} or a smaller max_total_tokens=; what was finished is kept "
                    "for --resume",
                )
            yield
        self._answers = task.result()

    def cached_tokens(self) -> list[int]:
        """Of the last batch, the tokens of each prompt that the radix cache had."""
        return [answer["meta_info"]["cached_tokens"] for answer in self._answers]

    def update(self, model: Path) -> None:
        """Take a checkpoint's weights in place. Raises `EngineError` where SGLang does not."""
        done, why, *_ = self._engine.update_weights_from_disk(str(model))
        if not done:
            raise EngineError(
                f"SGLang has not taken the weights of {model}: {why}", hint="the same model's checkpoint"
            )

    def close(self) -> None:
        self._engine.shutdown()
        atexit.unregister(self._engine.shutdown)

    async def _begin(self) -> None:
        """What SGLang does at its first request, without its signals. The loop gives them up only while it runs."""
        self._engine.tokenizer_manager.auto_create_handle_loop()
        for number in (signal.SIGTERM, signal.SIGQUIT):
            self._loop.remove_signal_handler(number)
