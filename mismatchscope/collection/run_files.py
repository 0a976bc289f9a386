"""The files that runs write, by their names: what is a run's may be replaced, and nothing else.

A name alone proves little, since others call their files report.md or manifest.json too: a directory is a run's if
one of the files in it that say what they are says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..input_files import read_json
from ..locking import DIRECTORY_LOCK
from ..reports.formats import FORMATS
from ..reports.prompt_sums import sums_file
from ..reports.weights_report import WEIGHTS_MARKDOWN, WEIGHTS_PAGE, WEIGHTS_REPORT
from ..traces.schema import DISTRIBUTIONS, MANIFEST, PARTS, SEQUENCES, TOKENS

RUN = "run.json"
"""What an audit was asked for."""

PROMPTS = "api-prompts.jsonl"
"""Prompts that an audit was given in Python."""

CHECKPOINT = "follow.checkpoint"
"""What following a log has read so far."""

LOGS = "logs"

RUNS = "runs"
"""The traces of a probe."""

CONFIRM = "confirm"
"""The experiments of a diagnosis."""

TIMES = "times.jsonl"
"""How long they took."""

SIDES = ("behavior", "reference", "baseline")

_REPORT = FORMATS["json"].file
_MARKS = {
    MANIFEST: {"schema_version", "engine", "policy"},
    RUN: {"behavior", "reference"},
    _REPORT: {"schema_version", "alpha1"},
    WEIGHTS_REPORT: {"schema_version", "stages"},
}
"""The files that say what they are, and the keys by which they do."""

_RUN_NAME = re.compile(r"[0-9a-f]{16}(-\d+-\d+)?(-raw|-beside)?")
_UNFINISHED = re.compile(r"\.(.+?)(\.\d+)?\.tmp")


@dataclass(frozen=True)
class _Layout:
    """What a directory of a run has in it: a pattern of its files' names, and its directories."""

    files: re.Pattern[str]
    directories: dict[str, _Layout] = field(default_factory=dict)
    runs: _Layout | None = None
    """Of every directory that is named like a run of a probe."""

    def directory(self, name: str) -> _Layout | None:
        return self.runs if self.runs is not None and _RUN_NAME.fullmatch(name) else self.directories.get(name)

    def has_file(self, name: str) -> bool:
        unfinished = _UNFINISHED.fullmatch(name)
        return bool(self.files.fullmatch(unfinished[1] if unfinished else name))


def _named(*names: str) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, names)))


_TRACE_FILES = (MANIFEST, SEQUENCES, TOKENS, DISTRIBUTIONS, DIRECTORY_LOCK)
_REPORT_FILES = (*(format.file for format in FORMATS.values()), sums_file(Path(_REPORT)).name)
_PARTS = {PARTS: _Layout(re.compile(r"\d+\.safetensors"))}
_TRACE = _Layout(_named(*_TRACE_FILES), _PARTS)
_OF_A_PROBE = _Layout(re.compile(rf"{_named(*_TRACE_FILES).pattern}|internals-\d+\.safetensors"), _PARTS)
"""A trace, or what an engine has shown of the inside of its model."""
_VIEWS = ("", "-repeat", "-raw", "-repeat-raw")

TRACES = frozenset(f"{side}{view}" for side in SIDES for view in _VIEWS)
"""The directories of an audit's traces."""

_LOG_FILES = re.compile(rf"({'|'.join(SIDES)}|both|start-\d+)\.log")
_RUNS = _Layout(_named(DIRECTORY_LOCK, TIMES), runs=_OF_A_PROBE)
_EXPERIMENT = _Layout(_named(RUN), {LOGS: _Layout(_LOG_FILES)})
_EXPERIMENTS = ("batch", "bisect", "context", "dtype", "layers", "path", "repeat", "weights")
_RESCORED = tuple(
    f"{part}{model}"
    for part in ("affected", "others")
    for model in ("", "-model", *(f"-candidate-{number}" for number in range(100)))
)
_UNDER_CANDIDATES = ("scored", "closing", *(f"tokens-{number}" for number in range(100)))
_RESCORE = _Layout(
    _named("engine.log"),
    {LOGS: _Layout(_LOG_FILES)} | dict.fromkeys(_UNDER_CANDIDATES, _TRACE),
)
_CONFIRM = _Layout(
    _named("engine.log", *(f"{name}.log" for name in _RESCORED)),
    {RUNS: _RUNS, "sampled": _TRACE, "affected-of-model": _TRACE, "rescore": _RESCORE}
    | dict.fromkeys(_EXPERIMENTS, _EXPERIMENT)
    | dict.fromkeys(_RESCORED, _TRACE),
)
_OUTPUT = _Layout(
    _named(RUN, PROMPTS, CHECKPOINT, WEIGHTS_REPORT, WEIGHTS_MARKDOWN, WEIGHTS_PAGE, *_REPORT_FILES, *_TRACE_FILES),
    _PARTS | {LOGS: _Layout(_LOG_FILES), RUNS: _RUNS, CONFIRM: _CONFIRM} | dict.fromkeys(TRACES, _TRACE),
)


def is_of_a_run(directory: Path) -> bool:
    """Whether a run wrote this directory: a file in it, or in the directory of one of its traces, says so."""
    places = (directory, *(directory / name for name in sorted(TRACES) if not (directory / name).is_symlink()))
    return any(_says_so(place / name, keys) for place in places for name, keys in _MARKS.items())


def content(directory: Path) -> tuple[list[Path], list[Path]]:
    """All that is in a directory: what has a name that a run gives, in an order in which it can be removed, and the
    rest. A link is never a run's. What says that the directory is a run's comes last. `OSError` if unreadable."""
    ours: list[Path] = []
    foreign: list[Path] = []
    for path, known in _entries(directory, _OUTPUT):
        (ours if known else foreign).append(path)
    return sorted(ours, key=lambda path: path.parent == directory and path.name in _MARKS), foreign


def unfinished_files(directory: Path) -> list[Path]:
    """What a killed run was just writing at the top of its output directory."""
    return [path for path in directory.glob(".*.tmp") if _OUTPUT.has_file(path.name) and not path.is_symlink()]


def _entries(directory: Path, layout: _Layout) -> Iterator[tuple[Path, bool]]:
    for path in sorted(directory.iterdir()):
        inner = layout.directory(path.name)
        if inner is not None and path.is_dir() and not path.is_symlink():
            yield from _entries(path, inner)
            yield path, True
        else:
            yield path, path.is_file() and not path.is_symlink() and layout.has_file(path.name)


def _says_so(path: Path, keys: set[str]) -> bool:
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and keys <= value.keys()
