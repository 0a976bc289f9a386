"""An engine for tests of the worker: it answers at once, and misbehaves as its options say."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from mismatchscope.engines.base import Capabilities, Engine, Options
from mismatchscope.errors import EngineError, ModelError
from mismatchscope.records import Observed, Request, SequenceRecord, Task


@dataclass(frozen=True)
class ToyOptions(Options):
    flag: bool = False
    size: int = 4
    rate: float = 0.5
    mode: Literal["eager", "sdpa"] = "eager"
    limit: int | None = None
    buckets: list[int] | None = None
    label: str = ""
    fault: str = ""
    weights: str = "w0"
    more: dict[str, Any] | None = None


class ToyEngine(Engine):
    name: ClassVar[str] = "toy"
    options_type: ClassVar[type[Options]] = ToyOptions
    capabilities: ClassVar[Capabilities] = Capabilities()
    batch_size = 3

    def load(self) -> None:
        fault = self.options.fault
        print("printed by Python", flush=True)
        os.write(1, b"written to descriptor 1\n")
        subprocess.run(["echo", "printed by a child"], check=True)
        if fault == "model":
            raise ModelError("The model is not there.", hint="look elsewhere")
        if fault == "segfault at load":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "import":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        if fault == "disk":
            from mismatchscope.engines.runtime import tasks

            def full(*_: Any, **__: Any) -> None:
                raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/part")

            tasks.write_part = full
        if fault == "orphan":  # a child that outlives the engine and holds every descriptor that it was given
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            print(f"orphan {pid}", flush=True)

    def facts(self) -> dict[str, Any]:
        return {
            "engine": "toy",
            "engine_version": "1.0",
            "model": {"name": self.model, "weights_sha256": os.environ.get("TOY_WEIGHTS", "w0")},
            "environment": {
                "package": os.path.realpath(sys.modules["mismatchscope"].__file__),
                "poison": importlib.util.find_spec("poison") is not None,
            },
        }

    def check(self, requests: Sequence[Request], task: Task) -> None:
        if self.options.fault == "exception in check":
            raise ValueError([request.prompt for request in requests])

    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        for request in batch:
            self._misbehave(request)
            yield self._answer(request, np.array([1, 2], dtype=np.int32), batch)

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        for request in batch:
            yield self._answer(request, request.response_token_ids, batch)

    def _misbehave(self, request: Request) -> None:
        fault = self.options.fault
        if request.sequence_id < 2:
            return
        if fault == "exception":
            raise ValueError(f"cannot tokenise {request.prompt!r}")
        if fault == "exception on a piece":
            raise ValueError(f"near {request.prompt[:-2]!r}")
        if fault == "exception of the system":
            os.stat(request.prompt)
        if fault == "exception of ours":
            raise EngineError(f"It stopped at {request.prompt}")
        if fault in ("segfault", "exit"):
            print(f"last words on {request.prompt!r}", flush=True)
        if fault == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "exit":
            os._exit(7)
        if fault == "native":
            self._hold_the_interpreter()
        if fault == "closed":  # all that it has open but the standard streams
            os.closerange(3, 256)
        if fault in ("hang", "orphan", "closed"):
            time.sleep(60)

    def _hold_the_interpreter(self) -> None:
        """Native code that no signal and no other thread gets past; a child of it is in a session of its own."""
        child = "import os, time; os.setsid(); os.write(1, b'away'); time.sleep(300)"
        process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
        process.stdout.read(4)
        print(f"child {process.pid}", flush=True)
        mutex = ctypes.create_string_buffer(256)
        for _ in range(2):
            ctypes.PyDLL(None).pthread_mutex_lock(mutex)

    def _answer(self, request: Request, response: np.ndarray, batch: Sequence[Request]) -> SequenceRecord:
        fault = self.options.fault
        if fault == "other tokens":
            response = response + 1
        return SequenceRecord(
            sequence_id=request.sequence_id + (100 if fault == "other id" else 0),
            prompt_id=request.prompt_id,
            prompt_token_ids=np.array([7], dtype=np.int32),
            response_token_ids=response,
            finish_reason="length",
            observed=Observed(np.full(3 if fault == "short" else len(response), -0.5)),
            extra={"neighbours": [other.sequence_id for other in batch]},
        )
