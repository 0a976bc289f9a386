"""What the engines of a run can see and do, asked before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import AuditSettings
from ..engines.base import Capabilities
from ..engines.common.identity import read_json
from ..engines.registry import engine_class
from ..engines.spec import EngineSpec, resolve_options
from ..errors import CapabilityError, ModelError, SpecError
from ..records import Evidence
from .embedded import resolve_model
from .evidence import PlannedEvidence, StatesToRecord, plan_recording


def capabilities_of(spec: EngineSpec) -> Capabilities:
    """With the options of the SPEC, as far as they are any."""
    engine = engine_class(spec.name, served=spec.served)
    try:
        return engine.capabilities_with(resolve_options(spec))
    except SpecError:  # which is for its run to say
        return engine.capabilities


def check_capabilities(spec: EngineSpec, *, evidence: Evidence, path: str | None, rollout: bool) -> None:
    """Raise `CapabilityError` when the engine cannot see or do what is about to be asked of it."""
    able = capabilities_of(spec)
    name = spec.name if able == engine_class(spec.name, served=spec.served).capabilities else str(spec)
    if rollout and not able.rollout:
        raise CapabilityError(f"The engine {name} cannot sample.", hint="use it with --reference, or score")
    if evidence.level not in able.evidence:
        raise CapabilityError(
            f"The engine {spec.name} cannot see {evidence.level} evidence.",
            hint=f"--evidence {' or '.join(able.evidence)}",
        )
    if path is not None and path not in able.paths:
        raise CapabilityError(
            f"The engine {name} cannot score through the {path} path.", hint=f"it has {', '.join(able.paths)}"
        )


def plan_evidence(
    settings: AuditSettings, engines: Sequence[EngineSpec], *, prompts: int, traces: int
) -> PlannedEvidence:
    """What will be recorded of each state: all engines must see it, and `traces` traces share the byte budget.

    The first engine is the one that samples, and so knows the vocabulary; where its sampler changes the
    distribution, the raw one is stored beside it.
    """
    sampling = settings.sampling
    traces += sampling.sampling().transforms
    states = StatesToRecord(
        tokens=prompts * sampling.samples * sampling.max_new_tokens,
        traces=traces,
        vocabulary=_vocabulary_size(engines[0], resolve_model(settings.model)),
        visible=set.intersection(*(set(capabilities_of(spec).evidence) for spec in engines)),
    )
    return plan_recording(settings, states)


def _vocabulary_size(spec: EngineSpec, model: str) -> int | None:
    """What the engine or the model's config.json says before anything is loaded; None where neither does."""
    declared = getattr(resolve_options(spec), "vocabulary", None)
    if declared is not None:
        return int(declared)
    found = declared_by(model, "vocab_size")
    return None if found is None else int(found)


def declared_by(model: str, *keys: str) -> Any:
    """What the config.json of a model, or of an adapter's base, has under the first of these keys that it knows.

    None for a model that is no directory here, and for one whose files cannot be read, which its engine will say.
    """
    try:
        if (adapter := Path(model) / "adapter_config.json").is_file():
            model = read_json(adapter).get("base_model_name_or_path") or model
        config = read_json(Path(model) / "config.json")
    except ModelError:
        return None
    text = config.get("text_config") or {}
    return next((value for key in keys for value in (config.get(key), text.get(key)) if value is not None), None)
