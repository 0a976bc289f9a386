"""Causes that two engines cannot have, by their model's configuration and their SPECs."""

from __future__ import annotations

from ...collection.capabilities import declared_by
from ...collection.embedded import resolve_model
from ...config import AuditSettings
from ...diagnosis.narrowing import OF_EXPERTS, OF_RECURRENT_LAYERS, OF_SEVERAL_DEVICES
from ...engines.spec import EngineSpec, parse_spec
from ..shown_bytes import EXPERTS

_OF_ATTENTION = ("num_attention_heads",)
_RECURRENT = ("mamba", "linear_attention", "recurrent", "conv", "ssm")
"""Parts of the names of layers, or of the model's type, that keep a state in place of keys and values."""
_DEVICES = ("parallel", "tp_size", "fsdp", "device_map")


def impossible(settings: AuditSettings) -> frozenset[str]:
    """Empty where the configuration of the model is not at hand."""
    model, left_out = resolve_model(settings.model), frozenset[str]()
    if not isinstance(declared_by(model, *_OF_ATTENTION), int):
        return left_out
    if not declared_by(model, *EXPERTS):
        left_out |= OF_EXPERTS
    kinds = f"{declared_by(model, 'model_type')} {declared_by(model, 'layer_types')}".lower()
    if not any(word in kinds for word in _RECURRENT):
        left_out |= OF_RECURRENT_LAYERS
    if all(map(_on_one_device, map(parse_spec, (settings.behavior, settings.reference)))):
        left_out |= OF_SEVERAL_DEVICES
    return left_out


def _on_one_device(spec: EngineSpec) -> bool:
    """As far as the SPEC says; what a server runs on is not known."""
    spread = any(
        word in key and value not in ("0", "1") for key, value in spec.options.items() for word in _DEVICES
    )
    return not spread and not spec.served
