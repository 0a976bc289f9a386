"""Are both sides' weights the same? Tensor by tensor, before anything is sampled.

Two checkpoints are compared on disk. Else each engine loads the one checkpoint, and what it has loaded is compared
with it where the tensors are: no tensor leaves an engine's process.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import __version__
from ..collection.capabilities import capabilities_of
from ..collection.collector import Events
from ..collection.embedded import resolve_model
from ..collection.run_files import LOGS
from ..engines.common.adapter import split_adapter
from ..engines.common.location import locate
from ..engines.common.stored_weights import stored_weights
from ..engines.runtime.job import WEIGHTS
from ..engines.runtime.launcher import job_for, run_job
from ..engines.spec import EngineSpec, parse_spec, with_adapter
from ..environments import interpreter
from ..errors import CapabilityError, DiskFullError, MismatchScopeError
from ..measures.tensor_difference import Weight, compare
from ..measures.tensor_results import TensorRecord
from ..records import Task
from ..reports.weights_report import Side, WeightsReport, WeightsStage, verdict_of
from ..reports.weights_text import sentence_of
from ..temporary import temporary_directory


@dataclass(frozen=True)
class WeightsQuestion:
    """`reference_model`: the checkpoint that `model` is compared with on disk, and no engine is asked."""

    model: str
    behavior: EngineSpec
    reference: EngineSpec
    adapter: str | None = None
    reference_model: str | None = None

    @classmethod
    def of(
        cls, model: str, behavior: str, reference: str, adapter: str | None, reference_model: str | None
    ) -> WeightsQuestion:
        first, second = (with_adapter(parse_spec(text), adapter) for text in (behavior, reference))
        return cls(model, first, second, adapter, reference_model)

    @property
    def engines(self) -> list[tuple[Side, EngineSpec]]:
        """Each that loads the checkpoint, once."""
        if self.reference_model is not None:
            return []
        if str(self.behavior) == str(self.reference):
            return [("both", self.behavior)]
        return [("behavior", self.behavior), ("reference", self.reference)]


def probe_weights(question: WeightsQuestion, directory: Path, *, command: str, on_event: Events) -> WeightsReport:
    """Compare, and say what was found. Raises `ModelError` for a checkpoint that cannot be read, and why the
    engines cannot tell where none can."""
    stored = _on_disk(question.model, question.adapter)
    if question.reference_model is not None:
        records = compare_checkpoints(stored, _on_disk(question.reference_model, None))
        stages = [WeightsStage.of(records, checkpoint=question.model, found=question.reference_model, side="disk")]
    else:
        stages = _loaded(question, directory, on_event)
    return WeightsReport(
        verdict=verdict_of(stages),
        sentence=sentence_of(stages),
        stages=stages,
        left_out=_left_out(question),
        command=command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        tool_version=__version__,
    )


def compare_checkpoints(expected: dict[str, Weight], found: dict[str, Weight]) -> list[TensorRecord]:
    """A record of every tensor that either has, in the order of the names."""
    records = [compare(name, weight, found[name]) for name, weight in expected.items() if name in found]
    records += [_alone(name, expected[name], "missing") for name in expected.keys() - found.keys()]
    records += [_alone(name, found[name], "extra") for name in found.keys() - expected.keys()]
    return sorted(records, key=lambda record: record.name)


def _alone(name: str, weight: Weight, status: Literal["missing", "extra"]) -> TensorRecord:
    return TensorRecord(name, status, weight.shape, weight.dtype)


def _on_disk(model: str, adapter: str | None) -> dict[str, Weight]:
    base, found = split_adapter(resolve_model(model), adapter or "")
    return stored_weights(locate(base), found)


def _loaded(question: WeightsQuestion, directory: Path, on_event: Events) -> list[WeightsStage]:
    """A stage an engine. What fails with one costs none of the other."""
    stages, errors = [], []
    for side, spec in question.engines:
        try:
            stages.append(_ask(question.model, side, spec, directory / LOGS / f"{side}.log", on_event))
        except DiskFullError:
            raise
        except MismatchScopeError as error:
            errors.append(error)
            stages.append(WeightsStage(checkpoint=question.model, found=str(spec), side=side, reason=error.message))
    if len(errors) == len(stages):
        raise errors[0]
    return stages


def _ask(model: str, side: Side, spec: EngineSpec, log: Path, on_event: Events) -> WeightsStage:
    """Have an engine load the model and compare. Raises what `run_job` does, and `CapabilityError`."""
    if not capabilities_of(spec).weights:
        raise CapabilityError(f"The engine {spec.name} does not show the parameters that it has loaded.")
    with temporary_directory() as scratch:
        job = job_for(spec, resolve_model(model), [Task("weights", "weights", requests="", parts=str(scratch))])
        result = run_job(
            job,
            python=interpreter(spec),
            log_path=log,
            on_event=lambda event: on_event(event | {"side": spec.name}),
        )
        records = [TensorRecord(**record) for record in json.loads((scratch / WEIGHTS).read_bytes())]
    return WeightsStage.of(
        records, checkpoint=model, found=str(spec), side=side, engine_version=result.facts["engine_version"]
    )


def _left_out(question: WeightsQuestion) -> list[str]:
    if question.reference_model is not None:
        return ["What an engine loads of either checkpoint: no engine was started."]
    return ["Weights after an update: the engines are loaded from disk, and none is updated by a trainer."]
