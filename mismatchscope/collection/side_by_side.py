"""Two settings of transformers that score the same batches in one process: what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from ..engines.runtime.job import Job
from ..engines.runtime.launcher import job_for
from ..engines.spec import EngineSpec, parse_spec, resolve_options
from ..records import Task
from .passes import Pass

_ENGINE = "mismatchscope.engines.transformers.side_by_side:SideBySideEngine"


def beside_of(pass_: Pass) -> tuple[EngineSpec, Pass]:
    """The other setting of a pass that has one, and the pass that it would be by itself."""
    beside = pass_.beside
    assert beside is not None
    return parse_spec(beside.spec), replace(pass_, role=beside.role, sampling=beside.sampling, beside=None)


def job_of(spec: EngineSpec, passes: Sequence[Pass], model: str, tasks: Sequence[Task]) -> Job:
    """The job of these passes: of one engine or, of a pass that has another setting beside it, of both.

    Raises `SpecError`.
    """
    job = job_for(spec, model, tasks)
    if all(pass_.beside is None for pass_ in passes):
        return job
    [pass_] = passes
    other, by_itself = beside_of(pass_)
    sides = {"mu": asdict(resolve_options(other)), "pi": job.options, "mu_sampling": asdict(by_itself.sampling)}
    return replace(job, engine=_ENGINE, options=sides)
