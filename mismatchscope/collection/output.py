"""The directory that a run writes to: free, or one of ours that may be replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..errors import OutputExistsError
from ..traces.identity import check_free, is_free

_OURS = {
    "manifest.json": {"schema_version", "engine", "policy"},
    "run.json": {"behavior", "reference"},
    "report.json": {"schema_version", "alpha1"},
}


def prepare_output(directory: Path, *, force: bool, resume: bool, inputs: Sequence[Path | None] = ()) -> None:
    """Make the directory that a run writes to. Raises `OutputExistsError` for one that is taken.

    `inputs` is what the run reads: a directory that holds any of it is not replaced.
    """
    if resume or not force:
        check_free(directory, resume=resume, hint="choose another -o, or add --force or --resume")
    elif not is_free(directory):
        if not _is_ours(directory):
            raise OutputExistsError(
                f"{directory} holds files that no run of mismatchscope wrote, so --force will not replace it.",
                hint="choose another -o, or remove it yourself",
            )
        for path in inputs:
            if path is not None and path.exists() and path.resolve().is_relative_to(directory.resolve()):
                raise OutputExistsError(
                    f"{directory} holds {path}, which this run reads, so --force will not replace it.",
                    hint="choose another -o",
                )
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)


def _is_ours(directory: Path) -> bool:
    """Whether a run wrote this: others have files of these names too."""
    for name, keys in _OURS.items():
        try:
            content = json.loads((directory / name).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and keys <= content.keys():
            return True
    return False
