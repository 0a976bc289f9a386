"""Who was compared: the model, and on either side the engine with its version, dtype and path."""

from __future__ import annotations

from typing import Any

from .document import Report

_MODEL = "model of unknown name"
_SHORT_HASH = 8


def model_name(report: Report) -> str:
    """The model of both sides, or of each where they differ; the weights are told by the start of their sha256."""
    mu, pi = (_model(side) for side in (report.provenance.behavior, report.provenance.reference))
    return mu if mu == pi else f"{mu} against {pi}"


def engine_name(side: dict[str, Any]) -> str:
    """`vllm 0.32.0 bfloat16 rollout`, as far as it is known."""
    dtype = (side.get("effective") or {}).get("dtype")
    known = [side.get("engine") or side.get("format"), side.get("engine_version"), dtype, side.get("path")]
    return " ".join(str(part) for part in known if part) or "unknown engine"


def compared(report: Report) -> str:
    """One line: the model, μ's engine and π's; of a log, which of its columns they are; of a probe, which cell."""
    provenance = report.provenance
    if report.log is not None:
        symbols = {"behavior_logprobs": "μ", "reference_logprobs": "π", "target_logprobs": "π_θ"}
        columns = [f"{symbols[each.column]} {each.source}" for each in report.log.columns if each.column in symbols]
        return " · ".join([f"{report.log.format} log", *columns])
    if report.probe is not None:
        return f"{model_name(report)} · {report.probe.pair_shown}"
    return f"{model_name(report)} · μ {engine_name(provenance.behavior)} · π {engine_name(provenance.reference)}"


def _model(side: dict[str, Any]) -> str:
    model = side.get("model") or {}
    name, weights = model.get("name") or model.get("path") or _MODEL, model.get("weights_sha256")
    adapter = (model.get("adapter") or {}).get("name")
    shown = f"{name} ({weights[:_SHORT_HASH]})" if weights else str(name)
    return f"{shown} with adapter {adapter}" if adapter else shown
