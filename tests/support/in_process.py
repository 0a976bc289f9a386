"""An engine's job done in this process, as its worker does it: for tests of many short runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mismatchscope.engines.registry import load_class
from mismatchscope.engines.runtime.job import Job
from mismatchscope.engines.runtime.tasks import run_task


def run_here(
    job: Job, *, python: str | None = None, log_path: Path, on_event: Callable[[dict[str, Any]], None]
) -> None:
    """In place of `launcher.run_job`. An error comes as it is raised."""
    engine_type = load_class(job.engine)
    engine = engine_type(job.model, engine_type.options_type(**job.options))
    engine.load()
    try:
        on_event({"event": "ready", "facts": engine.facts(), "seconds": 0.0})
        for task in job.tasks:
            run_task(engine, job, task, lambda event, **fields: on_event({"event": event, **fields}))
    finally:
        engine.close()
