"""run.json: what an audit was asked for last, and which traces its directory was begun with.

The traces' own manifests decide what may go on. This file says that the directory is one audit's: traces without
it, or with another audit's, were put there by somebody, and nothing says that they belong together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import AuditSettings
from ..credentials import masked
from ..durable import write_atomic
from ..errors import MismatchScopeError, OutputExistsError
from ..input_files import read_json, reason
from ..traces.identity import request_sha256
from ..traces.schema import Manifest
from .run_files import RUN

_TRACES, _CHECKSUM = "traces", "sha256"


def check_run_json(directory: Path, manifests: Mapping[Path, Manifest]) -> str | None:
    """Compare run.json with what the traces are asked for now. None, or why it is to be written again.

    Only traces that have been begun count. Raises `OutputExistsError` where there are some and run.json is missing,
    or has other traces than these.
    """
    begun = {path.name: _asked(manifest) for path, manifest in manifests.items() if _has_files(path)}
    file = directory / RUN
    if not begun:
        return None
    if not file.exists():
        raise OutputExistsError(
            f"{directory} has the traces {', '.join(begun)} but no {RUN}, which says what audit they are of.",
            hint=f"put {RUN} back, choose another -o, or add --force",
        )
    try:
        content = read_json(file)
    except OSError as error:
        raise OutputExistsError(f"{file} cannot be read: {reason(error)}.", hint="choose another -o") from None
    except ValueError as error:
        return f"{file} cannot be read: {reason(error)}"
    if not isinstance(content, dict) or content.pop(_CHECKSUM, None) != _sha256(content):
        return f"{file} is not what an audit wrote"
    listed = content[_TRACES]
    others = [name for name, asked in begun.items() if listed.get(name, asked) != asked]
    if others or not begun.keys() & listed.keys():
        raise OutputExistsError(
            f"{file} is of another audit than the traces beside it, which asked for another "
            f"{' and '.join(others or begun)}.",
            hint=f"put the {RUN} of these traces back, choose another -o, or add --force",
        )
    return None


def write_run_json(directory: Path, settings: AuditSettings, manifests: Mapping[Path, Manifest]) -> None:
    """Replace run.json. Gates, which decide no trace, and credentials are left out."""
    traces = {path.name: _asked(manifest) for path, manifest in manifests.items()}
    content = masked(settings.model_dump(mode="json", exclude={"gate"})) | {_TRACES: traces}
    content[_CHECKSUM] = _sha256(content)
    write_atomic(directory / RUN, json.dumps(content, indent=1).encode())


def read_settings(directory: Path) -> AuditSettings | None:
    """What the audit or probe of a directory was asked for; None where nothing there says so."""
    try:
        content = read_json(directory / RUN)
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.pop(_CHECKSUM, None) != _sha256(content):
        return None
    content.pop(_TRACES, None)
    try:
        return AuditSettings.model_validate(content)
    except (ValueError, MismatchScopeError):  # of another version
        return None


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _asked(manifest: Manifest) -> str:
    """What a trace is asked for, whether or not the one that it scores is there yet."""
    return request_sha256(manifest.model_copy(update={"parent": None}))


def _has_files(path: Path) -> bool:
    return path.is_dir() and any(not entry.name.startswith(".") for entry in path.iterdir())
