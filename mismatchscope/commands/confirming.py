"""`diagnose --confirm`: which experiments can be run on what was given, and their run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, UsageError
from .diagnosed import Kind, LogReading
from .missing_environments import create_missing_environments
from .options import model_inputs
from .terminal import progress

if TYPE_CHECKING:
    from ..collection.collector import Events
    from ..config import AuditSettings
    from ..probes.confirm.case import Case
    from ..reports.confirmation_fields import Confirmation
    from ..reports.document import Report

_RESPONSES = 32
"""Of a log, that are scored again: so many of those that the diagnosis is about, and as many others."""


@dataclass(frozen=True)
class Asked:
    """What is to be diagnosed, and what experiments may use. `settings` are those of the run that is repeated."""

    paths: Sequence[Path]
    kind: Kind
    settings: AuditSettings
    given: frozenset[str]
    """The settings that were given, here or by the run that a report is of."""
    seconds: float
    candidates: Mapping[str, str]
    reading: LogReading

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        kind: Kind,
        overrides: dict[str, Any],
        *,
        time: str,
        candidates: Sequence[str],
        reading: LogReading,
    ) -> Asked:
        """Raises `ConfigError` for what is no setting, no time and no checkpoint."""
        from ..config import load_settings, parse_duration

        settings, given = load_settings(None, overrides, []), frozenset(overrides)
        earlier = _settings_of(paths[0]) if kind == "report" else None
        if earlier is not None:
            settings = earlier.model_copy(update={key: getattr(settings, key) for key in overrides})
            given |= {"model", "behavior", "reference"}
        named = dict(map(_candidate, candidates))
        return cls(paths, kind, settings, given, parse_duration(time), named, reading)

    @property
    def inputs(self) -> list[Path]:
        """Directories that must not be written into."""
        return [*model_inputs(self.settings), *map(Path, self.candidates.values())]


def _settings_of(report: Path) -> AuditSettings | None:
    from ..collection.run_json import read_settings

    return read_settings(report if report.is_dir() else report.parent)


def _candidate(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    found = Path(path if equals else text)
    if not found.exists():
        raise ConfigError(
            f"The candidate {found} does not exist.", hint="--candidate PATH, or NAME=PATH, of a checkpoint"
        )
    return name or str(found), str(found)


def check_confirmable(asked: Asked) -> None:
    """Raise `UsageError` where no experiment can be run on what was given."""
    if asked.kind == "logs":
        if "model" not in asked.given:
            raise UsageError(
                "The engines of a log are gone: its responses can only be scored again.",
                hint="--model CHECKPOINT, the one that the run has now, and --candidate PATH for older ones",
            )
        return
    if asked.candidates:
        raise UsageError("--candidate is for the logs of a run.", hint="leave it out")
    missing = [name for name in ("model", "behavior", "reference") if name not in asked.given]
    if missing:
        options = " ".join(f"--{name}" for name in missing)
        raise UsageError(
            f"How to run both engines again is not known without {options}.",
            hint="name the model and both engines, or give the directory of an audit",
        )


def suspected(report: Report) -> list[str]:
    """The codes of the causes that the data left open, likeliest first; none where it named nothing."""
    from ..diagnosis.catalogue import UNKNOWN

    return list(dict.fromkeys(cause.cause for cause in report.diagnosis if cause.cause != UNKNOWN))


def plan_text(asked: Asked, report: Report) -> str:
    """What would be run, in order."""
    from ..probes.confirm.dry_run import experiments_text, rescoring_text

    if asked.kind == "logs":
        return rescoring_text(suspected(report), asked.settings, asked.candidates)
    return experiments_text(suspected(report), _case(asked, report, Path(), lambda event: None))


def confirmed(asked: Asked, report: Report, output: Path) -> Confirmation:
    """Run the experiments. Raises what they do."""
    engines = (
        [asked.settings.reference] if asked.kind == "logs" else [asked.settings.behavior, asked.settings.reference]
    )
    from ..collection.run_files import CONFIRM
    from ..probes.confirm.confirm import confirm

    create_missing_environments(engines)
    with progress() as on_event:
        if asked.kind == "logs":
            return _of_log(asked, report, output / CONFIRM, on_event)
        return confirm(_case(asked, report, output / CONFIRM, on_event), suspected(report))


def _case(asked: Asked, report: Report, directory: Path, on_event: Events) -> Case:
    from ..diagnosis.evidence import Floor
    from ..probes.confirm.case import Case

    floor, deadline = report.floor.behavior, time.monotonic() + asked.seconds
    noise, answer = None if floor is None else floor.mean.value, report.diagnosis_answer
    rounding = None if answer is None else Floor(answer.floor, answer.floor_source)
    return Case(asked.settings, directory, report.alpha1.mean, noise, on_event, deadline, rounding=rounding)


def _of_log(asked: Asked, report: Report, directory: Path, on_event: Events) -> Confirmation:
    """What an earlier run has left in the directory is of other responses perhaps, and is made again."""
    from ..analysis.convert import convert_some
    from ..logs.reading import open_logs
    from ..probes.confirm.log_case import LogCase
    from ..probes.confirm.rescore import confirm_log

    deadline = time.monotonic() + asked.seconds
    shutil.rmtree(directory, ignore_errors=True)
    log = open_logs(asked.paths, format=asked.reading.format, column_map=asked.reading.column_map)
    affected = frozenset(id for cause in report.diagnosis for id in cause.sequences if cause.finding == 0)
    sampled = convert_some(log, directory / "sampled", affected or None, _RESPONSES)
    ids = sampled.read_sequences(["sequence_id"])["sequence_id"].to_numpy().tolist()
    case = LogCase(
        sampled,
        affected or frozenset(ids),
        asked.settings.model,
        asked.candidates,
        asked.settings.reference,
        directory,
        on_event,
        adapter=asked.settings.adapter,
        confidence=asked.settings.confidence,
        deadline=deadline,
    )
    return confirm_log(case, suspected(report))
