"""Are both sides' weights the same? Tensor by tensor, before anything is sampled.

Two checkpoints are compared on disk. Else each engine loads the one checkpoint, and what it has loaded is compared
with it where the tensors are: no tensor leaves an engine's process. Then it can be told to take the weights of
another checkpoint, as between two steps of RL, and is compared with that one.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
from ..errors import CapabilityError, ConfigError, DiskFullError, MismatchScopeError
from ..measures.tensor_difference import Weight, compare, values_sha256
from ..measures.tensor_results import TensorRecord
from ..records import Task
from ..reports.weights_report import Side, WeightsReport, WeightsStage, verdict_of
from ..reports.weights_text import sentence_of
from ..temporary import temporary_directory


@dataclass(frozen=True)
class WeightsQuestion:
    """`reference_model`: the checkpoint that `model` is compared with on disk, and no engine is asked.
    `updated_model`: whose weights the engines take once they have loaded `model`."""

    model: str
    behavior: EngineSpec
    reference: EngineSpec
    adapter: str | None = None
    reference_model: str | None = None
    updated_model: str | None = None

    @classmethod
    def of(
        cls,
        model: str,
        behavior: str,
        reference: str,
        adapter: str | None,
        reference_model: str | None,
        updated_model: str | None = None,
    ) -> WeightsQuestion:
        """Raises `ConfigError` for an update of checkpoints that no engine loads."""
        first, second = (with_adapter(parse_spec(text), adapter) for text in (behavior, reference))
        if reference_model is not None and updated_model is not None:
            raise ConfigError("On disk nothing is updated.", hint="--reference-model or --updated-model")
        return cls(model, first, second, adapter, reference_model, updated_model)

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
        updated = None if question.updated_model is None else _on_disk(question.updated_model, question.adapter)
        stages = _loaded(question, directory, on_event)
        stages = [_with_stale(stage, stored) if updated and stage.after_update else stage for stage in stages]
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
            stages += _ask(question, side, spec, directory / LOGS / f"{side}.log", on_event)
        except DiskFullError:
            raise
        except MismatchScopeError as error:
            errors.append(error)
            stages.append(WeightsStage(checkpoint=question.model, found=str(spec), side=side, reason=error.message))
    if all(stage.reason is not None for stage in stages):
        raise errors[0]
    return stages


def _ask(
    question: WeightsQuestion, side: Side, spec: EngineSpec, log: Path, on_event: Events
) -> list[WeightsStage]:
    """Have an engine load the model and compare, and once more after an update. Raises what `run_job` does, and
    `CapabilityError`; an update that fails is a stage that says so."""
    if not capabilities_of(spec).weights:
        raise CapabilityError(f"The engine {spec.name} does not show the parameters that it has loaded.")
    checkpoints = [question.model, *filter(None, [question.updated_model])]
    version: str | None = None
    reason: str | None = None

    def note(event: dict[str, Any]) -> None:
        nonlocal version
        if event["event"] == "ready":
            version = event["facts"]["engine_version"]
        on_event(event | {"side": spec.name})

    with temporary_directory() as scratch:
        places = [scratch / name for name in ("loaded", "updated")[: len(checkpoints)]]
        for place in places:
            place.mkdir()
        taken = ["", *map(resolve_model, checkpoints[1:])]
        tasks = [
            Task(place.name, "weights", requests=model, parts=str(place))
            for place, model in zip(places, taken, strict=True)
        ]
        try:
            job = job_for(spec, resolve_model(question.model), tasks)
            run_job(job, python=interpreter(spec), log_path=log, on_event=note)
        except DiskFullError:
            raise
        except MismatchScopeError as error:
            if not (places[0] / WEIGHTS).exists():
                raise
            reason = error.message
        stages = []
        for place, checkpoint in zip(places, checkpoints, strict=True):
            found = json.loads((place / WEIGHTS).read_bytes()) if (place / WEIGHTS).exists() else []
            stage = WeightsStage.of(
                [TensorRecord(**record | {"shape": tuple(record["shape"])}) for record in found],
                checkpoint=checkpoint,
                found=str(spec),
                side=side,
                engine_version=version,
                after_update=place is not places[0],
            )
            stages.append(stage if found else stage.model_copy(update={"reason": reason}))
    return stages


def _with_stale(stage: WeightsStage, before: Mapping[str, Weight]) -> WeightsStage:
    """A tensor that differs after an update and has the values from before it has not been updated."""

    def told(record: TensorRecord) -> TensorRecord:
        old = before.get(record.name)
        known = record.status == "differs" and record.sha256 is not None and record.dtype_found is not None
        if old is None or not known or not old.has_values:
            return record
        stale = values_sha256(old, str(record.dtype_found)) == record.sha256
        return replace(record, kind="stale") if stale else record

    return stage.with_tensors([told(record) for record in stage.tensors])


def _left_out(question: WeightsQuestion) -> list[str]:
    if question.reference_model is not None:
        return ["What an engine loads of either checkpoint: no engine was started."]
    if question.updated_model is not None:
        return ["Updates by another way than from disk: none was sent by a trainer's processes."]
    return ["Weights after an update (--updated-model): the engines are loaded from disk."]
