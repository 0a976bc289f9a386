"""May a run begin or go on in a directory? Decided here and nowhere else, from what is there and two manifests.

The manifest on disk says what an earlier run was asked for and what its engine said of itself. A run goes on from
there exactly when it is asked for the same, and when no fact that its own engine states contradicts that account.
The manifest is written before the first sequence is, so sequences without one are nobody's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from ..errors import OutputExistsError
from ..locking import DIRECTORY_LOCK
from .schema import MANIFEST, PARTS, Manifest
from .unfinished import DATA, usable_manifest

PRODUCED = ("counts", "files", "created", "complete", "notes", "beside")
"""What a run produced, and when: nothing of what it was asked for."""

FACTS = (
    "engine_version",
    "model",
    "tokenizer_sha256",
    "eos_token_ids",
    "max_length",
    "effective",
    "environment",
)
"""What only the engine can say, once it has loaded: compared where both manifests know it."""

_WHOLE = ("model.config", "model.generation_config", "model.files")
"""Facts that are known as a whole or not at all: a key that they lack is no unknown one."""

_HASH = re.compile("[0-9a-f]{64}")

PLACES = ("environment.executable",)
"""Where something is, which changes no number: a run may go on after its interpreter has moved."""


def earlier_manifest(path: Path, manifest: Manifest) -> Manifest | None:
    """The manifest of the same run that is in `path` already, complete or not; None where nothing is to be kept.

    That is so of a free directory, and of an unfinished run whose manifest is damaged. Raises `OutputExistsError`
    for a directory that is taken, by another run or by other files, and `TraceError` for any other manifest that
    cannot be read.
    """
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"{path} is a file.", hint="choose another directory with -o")
    if not (path / MANIFEST).exists():
        _check_nothing_is_kept(path)
        return None
    earlier = usable_manifest(path)
    if earlier is None:
        return None
    differences = _differences(_identity_of(earlier), _identity_of(manifest))
    if differences:
        shown = "; ".join(differences[:3]) + ("; …" if len(differences) > 3 else "")
        raise OutputExistsError(
            f"{path} holds another trace: {shown}.", hint="choose another directory with -o, or add --force"
        )
    return earlier


def _check_nothing_is_kept(path: Path) -> None:
    """Raise `OutputExistsError` for a directory that has files but no manifest."""
    entries = path.iterdir() if path.exists() else ()
    kept = [entry for entry in entries if not entry.name.endswith(".tmp") and entry.name != DIRECTORY_LOCK]
    if any(entry.name in (PARTS, *DATA) for entry in kept):
        raise OutputExistsError(
            f"{path} has sequences but no {MANIFEST}, so nothing says what they were made for.",
            hint=f"put {MANIFEST} back, choose another directory with -o, or remove {path} yourself",
        )
    if kept:
        raise OutputExistsError(f"{path} is not empty and no trace.", hint="choose another directory with -o")


def check_free(path: Path, *, hint: str) -> None:
    """Raise `OutputExistsError` unless `path` is free or an empty directory."""
    if not is_free(path):
        raise OutputExistsError(f"{path} exists and is not empty.", hint=hint)


def is_free(path: Path) -> bool:
    """Whether nothing is there, or a directory that is empty but for its lock."""
    if not path.is_dir():
        return not os.path.lexists(path)
    return all(entry.name == DIRECTORY_LOCK for entry in path.iterdir())


def joined(earlier: Manifest, manifest: Manifest) -> Manifest:
    """The manifest of a run that goes on: what both say, and the facts that only one of them knows."""
    known = _merged(earlier.model_dump(include=set(FACTS)), manifest.model_dump(include=set(FACTS)))
    kept = {"created": earlier.created or manifest.created, "notes": manifest.notes or earlier.notes}
    return Manifest.model_validate(manifest.model_dump() | kept | known)


def request_sha256(manifest: Manifest) -> str:
    """Names what a run was asked for, before its engine has said anything."""
    asked = manifest.model_dump(mode="json", exclude={*PRODUCED, *FACTS})
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _identity_of(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json", exclude=set(PRODUCED))


def _differences(earlier: dict[str, Any], wanted: dict[str, Any], within: str = "") -> list[str]:
    """Where two manifests contradict each other. A fact that one of them does not know yet is no contradiction."""
    found = []
    for key in sorted(earlier.keys() | wanted.keys()):
        name, a, b = within + key, earlier.get(key), wanted.get(key)
        inside_whole = within.removesuffix(".").startswith(_WHOLE)
        unknown = name.split(".")[0] in FACTS and not inside_whole and (_unknown(a) or _unknown(b))
        if name in PLACES or unknown:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, name + ".")
        elif a != b:
            found.append(f"{name} is {_shown(a)} there and {_shown(b)} here")
    return found


def _shown(value: Any) -> str:
    """A hash by its first digits, anything else as it is."""
    return repr(value[:12] if isinstance(value, str) and _HASH.fullmatch(value) else value)


def _merged(earlier: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    result = dict(earlier)
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(earlier.get(key), dict):
            result[key] = _merged(earlier[key], value)
        elif not _unknown(value):
            result[key] = value
    return result


def _unknown(value: Any) -> bool:
    return value is None or value in ({}, [])
