"""A call of the public API as text, for the provenance of its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import ProbeSettings, SamplingSettings
from ..traces.reader import Trace

NOT_SETTINGS = ("name", "directory", "runs", "resume", "progress")


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """What reproduces the report, for its provenance: the call, without what has its default."""
    shown = dict(arguments)
    for key, value in arguments.items():
        if value is None or value == [] or (key in NOT_SETTINGS and value is False):
            del shown[key]
        elif isinstance(value, Trace | Path):
            shown[key] = str(value.path if isinstance(value, Trace) else value)
        elif key == "prompts" and not isinstance(value, str):  # their text is not for reports
            shown[key] = f"<{len(value)} given>"
    return f"mismatchscope.{name}({', '.join(f'{key}={value!r}' for key, value in shown.items())})"


def setting_key(parameter: str) -> str:
    """The dotted key of the setting that a parameter of a call overrides."""
    for table, settings in (("sampling", SamplingSettings), ("probe", ProbeSettings)):
        if parameter in settings.model_fields:
            return f"{table}.{parameter}"
    return "gate.fail_on" if parameter == "fail_on" else parameter
