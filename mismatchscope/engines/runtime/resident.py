"""A worker that stays, for jobs that differ in an option: one start of an interpreter does all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from ...errors import EngineError
from ...file_errors import file_errors
from ...processes import FollowedProcess, open_log
from ...temporary import temporary_directory
from .job import Job
from .launcher import JobResult, finished, stage_packages, start_worker, write_job
from .worker import STAY


class ResidentWorker:
    """Does jobs as `run_job` does, within a `with`. Every job loads its model: what is saved is the start of an
    interpreter and its imports. A failed job ends the worker, and the next starts another one, as does a job of
    another engine or interpreter. One log has all of them."""

    def __init__(self, log_path: Path) -> None:
        self._log_path = log_path
        self._open = ExitStack()
        self._process: FollowedProcess | None = None
        self._serves: tuple[str, str | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._end()

    @file_errors(
        "The engine's worker cannot be started", hint="check the directory of its log, and TMPDIR", kind=EngineError
    )
    def __call__(
        self, job: Job, *, python: str | None = None, log_path: Path, on_event: Callable[[dict[str, Any]], None]
    ) -> JobResult:
        """As `run_job`, but for `log_path`, where nothing is written. Raises what that does."""
        if self._process is None or self._serves != (job.engine, python):
            self._start(job, python)
        else:
            self._process.write(f"{write_job(self._stage, job)}\n".encode())
        assert self._process is not None
        log_start = self._log.tell()
        try:
            return finished(self._process, job, python, self._log_path, log_start, on_event)
        except BaseException:
            self._end()
            raise

    def _start(self, job: Job, python: str | None) -> None:
        self._end()
        self._stage = self._open.enter_context(temporary_directory())
        self._log = self._open.enter_context(open_log(self._log_path))
        stage_packages(self._stage, job)
        process = start_worker(python, write_job(self._stage, job), self._log, STAY)
        self._process, self._serves = self._open.enter_context(process), (job.engine, python)

    def _end(self) -> None:
        self._process = None
        self._open.close()
