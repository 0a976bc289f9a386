"""Why a file is no report, in one sentence."""

from __future__ import annotations

from pydantic import ValidationError

from ..input_files import misfit, reason


def why_not_read(error: OSError | ValueError, version: int) -> str:
    """The schema version where it is another one; else the first thing that does not fit."""
    if not isinstance(error, ValidationError):
        return reason(error)
    found = next((each for each in error.errors() if each["loc"] == ("schema_version",)), None)
    if found is not None:
        return f"its schema version is {found['input']!r}, not {version}"
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {misfit(first)}" if where else misfit(first)
