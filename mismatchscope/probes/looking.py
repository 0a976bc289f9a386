"""Looking into two engines as they read the same tokens: what the probes of a model's inside have in common."""

from __future__ import annotations

from collections.abc import Iterator

from ..collection.capabilities import capabilities_of
from ..composition import BatchComposition
from ..engines.spec import EngineSpec
from ..errors import CapabilityError
from ..machine import hardware
from .options import changed, has_options
from .plan import Question

ALONE = BatchComposition(batch_size=1)
"""As sequences are read where the inside is shown, so that it is that of the forward that is scored."""

_EAGERLY = {
    "transformers": {"compile": "false"},
    "vllm": {"enforce_eager": "true"},
    "sglang": {"disable_cuda_graph": "true"},
}
"""What lets an engine be looked into: between the modules of a compiled model, or of a graph, nothing is seen."""
EAGER_KEYS = tuple(dict.fromkeys(key for options in _EAGERLY.values() for key in options))


def visible(question: Question, *, shows: str) -> tuple[EngineSpec, EngineSpec]:
    """The SPECs of behaviour and reference with what lets them be looked into.

    Raises `CapabilityError` for an engine that cannot; `shows` is what it does not show.
    """
    for spec in (question.behavior, question.reference):
        if not capabilities_of(spec).internals:
            raise CapabilityError(
                f"The engine {spec.name} does not show {shows}.",
                hint="transformers, vllm and sglang in a process of ours do",
            )
    return _visible(question.behavior), _visible(question.reference)


def changes(question: Question, specs: tuple[EngineSpec, EngineSpec], names: tuple[str, str]) -> Iterator[str]:
    """What of the SPECs had to be changed for that, in a few words each."""
    for name, given, spec in zip(names, (question.behavior, question.reference), specs, strict=True):
        if spec is not given:
            yield f"{name} reads as {spec}"


def _visible(spec: EngineSpec) -> EngineSpec:
    options = _EAGERLY.get(spec.name, {})
    if spec.name == "sglang" and not hardware()["gpus"]:
        return spec  # it has no graphs there
    return changed(spec, options) if options and has_options(spec, options) else spec
