"""The process that hosts an engine, in the engine's interpreter:

    python -m mismatchscope.engines.runtime.worker job.json

What was its standard output carries events to the parent, one JSON object a line, each with the key `event`:

    loading    pid
    ready      facts, seconds                     it then waits for an empty line on its standard input: the parent
                                                  may refuse to go on from sequences that other facts made
    task       name, sequences_total, done        done counts what an earlier run left on disk
    sequence   task, sequence_id, tokens, done, total
    task_done  task, seconds, tokens              of this run alone
    error      type, message, hint, log, package  the last one, instead of done; a traceback goes to the log, and
                                                  `log` says whether it tells more than the message
    done

With `--stay` it then waits for the file of another job, a line on its standard input, until that ends.

Whatever an engine prints goes to standard error, which is the log. The end of standard input means that the parent
is gone, and the worker goes too; where native code keeps it from noticing, its supervisor ends it.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import queue
import re
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...credentials import masked
from ...errors import DiskFullError, EngineError, MismatchScopeError, SpecError
from ...file_errors import NO_ROOM

if TYPE_CHECKING:
    from ..base import Engine
    from .job import Job

STAY = "--stay"
GRACE_SECONDS = 10.0
"""What an engine is given to close before it and all that it started are killed."""


def main(arguments: list[str]) -> int:
    emit = _open_events()
    faulthandler.enable()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    let_begin, jobs = _follow_parent()
    path: str | None = arguments[0]
    while path is not None:
        emit("loading", pid=os.getpid())
        try:
            _run(Path(path), emit, let_begin)
        except Exception as error:
            with suppress(OSError):  # the log may be on the disk that is full
                sys.stderr.write(masked(traceback.format_exc()))
            # The engine is closed: a parent that has read of it may end us while we go.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            emit("error", **_describe(error))
            return 3
        emit("done")
        path = _following(let_begin, jobs) if STAY in arguments else None
    return 0


def _following(let_begin: threading.Event, jobs: queue.Queue[str]) -> str:
    """Free what the last job's model took, and wait for the file of the next."""
    let_begin.clear()
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return jobs.get()


def _run(path: Path, emit: Callable[..., None], let_begin: threading.Event) -> None:
    # Imported here, where a missing package becomes an event: this needs numpy and safetensors.
    from ..registry import load_class
    from .job import Job
    from .tasks import check_capabilities, check_composition, run_task

    job = Job.from_json(json.loads(path.read_text(encoding="utf-8")))
    engine_type = load_class(job.engine)
    engine = engine_type(job.model, engine_type.options_type(**job.options))
    for task in job.tasks:
        check_capabilities(engine, task)
        check_composition(job, task)
    began = time.monotonic()
    engine.load()
    try:
        facts = engine.facts()
        if job.version is not None and _release(job.version) != _release(facts["engine_version"] or ""):
            raise _other_version(engine, job, facts["engine_version"])
        emit("ready", facts=facts, seconds=time.monotonic() - began)
        let_begin.wait()
        for task in job.tasks:
            run_task(engine, job, task, emit)
    finally:
        engine.close()


def _other_version(engine: Engine, job: Job, found: str | None) -> SpecError:
    """What is there is not what the SPEC names: behind a URL, or in an interpreter."""
    url = job.options.get("url")
    return SpecError(
        f"{url or sys.executable} has {engine.name} {found or 'of an unknown version'}, not {job.version}.",
        hint=f"leave =={job.version} out" + ("" if url else ", or give an interpreter that has it: python=PATH"),
    )


def _release(version: str) -> str:
    """A version without what does not tell releases apart: 5.23 is 5.23.0 is 5.23.0+cpu."""
    return re.sub(r"(\.0)+$", "", version.partition("+")[0])


def _open_events() -> Callable[..., None]:
    """Keep the real standard output for events, and let everything that is printed go to the log instead."""
    sys.stdout.flush()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: str, **fields: Any) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")
        events.flush()

    return emit


def _follow_parent() -> tuple[threading.Event, queue.Queue[str]]:
    """Set once the parent lets us begin, by an empty line; and the files of jobs that it names in other lines. Go
    when it is gone, however it went: our standard input then ends."""
    let_begin, jobs = threading.Event(), queue.Queue[str]()
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        let_begin.set()  # started by hand
        return let_begin, jobs
    parent = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def watch() -> None:
        with open(parent, encoding="utf-8") as lines:
            for line in lines:
                if job := line.rstrip("\n"):
                    jobs.put(job)
                else:
                    let_begin.set()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    return let_begin, jobs


def _exit(number: int, frame: Any) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):  # told once is enough: the engine is closed now
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _describe(error: Exception) -> dict[str, Any]:
    """An exception as the parent can raise it again, by its name in `errors`."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return {"type": "ModuleNotFoundError", "message": str(error), "package": package, "log": False}
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        error = DiskFullError(
            f"There is no room left to write {error.filename or 'results'}; what was finished is kept.",
            hint="make room, then run the same command with --resume",
        )
    foreign = error.__cause__ is not None
    if not isinstance(error, MismatchScopeError):
        foreign, error = True, EngineError(f"{type(error).__name__}: {error}")
    log = foreign and isinstance(error, EngineError)
    return {"type": type(error).__name__, "message": error.message, "hint": error.hint, "log": log}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
