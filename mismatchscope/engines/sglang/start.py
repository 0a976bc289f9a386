"""SGLang's engine as this process sees it: its start, its requests, its end, and why it ended early.

SGLang kills the whole process when one of its own fails, and takes over its signals. Here a failure becomes an
exception, and the worker keeps its signals.
"""

from __future__ import annotations

import asyncio
import atexit
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import EngineError, MismatchScopeError, ModelError, SpecError, UsageError
from .exchange import Exchange

POLL_SECONDS = 0.02

_ABOUT_MEMORY = re.compile(r"\bmemory\b", re.IGNORECASE)
_ABOUT_THE_MODEL = re.compile(r"architecture|model type|checkpoint|safetensors|weights", re.IGNORECASE)
_LONGEST_REASON = 400

_died = threading.Event()


def _note_death(number: int, frame: Any) -> None:
    """SGLang's processes send SIGQUIT when they fail, and so does its watchdog when one is gone."""
    _died.set()


def import_sglang() -> ModuleType:
    """The package sglang. Raises ModuleNotFoundError where there is none, `EngineError` where it is broken."""
    try:
        import sglang
        import sglang.srt.entrypoints.engine
    except ModuleNotFoundError as error:
        if error.name == "sglang":
            raise
        raise _broken(error) from error
    except (ImportError, OSError) as error:
        raise _broken(error) from error
    return sglang


def _broken(error: Exception) -> EngineError:
    return EngineError(
        f"SGLang is in {sys.executable}, but importing it fails: {_shortened(error)}",
        hint="mismatchscope env create sglang makes an environment that works",
    )


class Sglang:
    """A running SGLang whose scheduler has our hooks and speaks through the exchange in `directory`."""

    def __init__(self, model: Path, arguments: dict[str, Any], directory: str, version: str) -> None:
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
        with self._start_errors(model, version):
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

    def generate(self, **request: Any) -> Iterator[None]:
        """Run a batch of requests; yields now and then, and once more when it has ended."""
        from sglang.srt.managers.io_struct import GenerateReqInput

        answers = self._engine.tokenizer_manager.generate_request(GenerateReqInput(**request))
        task = self._loop.create_task(anext(answers))
        while not task.done():
            self._loop.run_until_complete(asyncio.wait({task}, timeout=POLL_SECONDS))
            if _died.is_set():
                raise self._exchange.failure() or EngineError(
                    "a process of SGLang's has ended, often killed by the kernel for want of memory",
                    hint="a smaller batch_size= or max_total_tokens=; what was finished is kept for --resume",
                )
            yield
        task.result()

    def close(self) -> None:
        self._engine.shutdown()
        atexit.unregister(self._engine.shutdown)

    async def _begin(self) -> None:
        """What SGLang does at its first request, without its signals. The loop gives them up only while it runs."""
        self._engine.tokenizer_manager.auto_create_handle_loop()
        for number in (signal.SIGTERM, signal.SIGQUIT):
            self._loop.remove_signal_handler(number)

    @contextmanager
    def _start_errors(self, model: Path, version: str) -> Iterator[None]:
        """Tell apart the model that SGLang cannot run, the settings that it refuses, and the want of memory."""
        try:
            yield
        except (MismatchScopeError, ImportError):
            raise
        except Exception as error:
            cause = self._exchange.failure() or error
            if isinstance(cause, UsageError):
                raise cause from error
            reason = _shortened(cause)
            if _ABOUT_THE_MODEL.search(reason):
                raise ModelError(
                    f"SGLang {version} cannot run the model in {model}: {reason}",
                    hint="another version of SGLang, or the engine transformers",
                ) from error
            if _ABOUT_MEMORY.search(reason):
                raise EngineError(
                    f"SGLang {version} does not start: {reason}",
                    hint="a smaller max_total_tokens=, max_running_requests= or mem_fraction_static=",
                ) from error
            if isinstance(cause, ValueError | TypeError | NotImplementedError | AssertionError):
                raise SpecError(f"SGLang {version} refuses these settings: {reason}") from error
            raise EngineError(f"SGLang {version} does not start: {reason}") from error


def _shortened(error: Exception) -> str:
    reason = " ".join(str(error).split())
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
