"""What the experiments of one diagnosis have in common: the audit that they are about, and where they are kept."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...collection.collector import Events
from ...collection.run_files import RUNS
from ...config import AuditSettings, GateSettings, ProbeSettings
from ..run_probe import plan_probe, run_probe

if TYPE_CHECKING:
    from ...diagnosis.evidence import Floor
    from ...measures.results import Interval
    from ...reports.pair_fields import Probe

NO_TIME = "Not run: there was no time left."

PROMPTS = 16
"""That an experiment computes, the run's first ones: effects that close a gap show in few."""

_OF_TOKENS = ("prompts", "prompt_column", "limit", "reference_temperature", "evidence")


@dataclass(frozen=True, eq=False)
class Case:
    """An audit whose gap is `gap`, its mean TV, and whose repeats have `floor`.

    `directory` gets the probes' traces and reports; traces are shared by all of them. `deadline` is a time of
    `time.monotonic`, after which no experiment begins.
    """

    settings: AuditSettings
    directory: Path
    gap: Interval
    floor: float | None
    on_event: Events
    deadline: float = float("inf")
    suspected: Sequence[str] = ()
    """Causes that are left, likeliest first."""
    rounding: Floor | None = None
    """R's unit, as the diagnosis has it."""

    @property
    def late(self) -> bool:
        return time.monotonic() >= self.deadline

    @property
    def _time_left(self) -> str | None:
        """What a probe must not be estimated to exceed, as its setting has it; None for no limit."""
        return None if math.isinf(self.deadline) else f"{max(1, round(self.deadline - time.monotonic()))}s"

    def limited(self, **changes: Any) -> AuditSettings:
        """The audit's settings for what an experiment computes, with these changes."""
        limit = min(self.settings.limit or PROMPTS, PROMPTS)
        return self.settings.model_copy(
            update={"limit": limit, "gate": GateSettings(), "baseline": None, "probe": ProbeSettings(), **changes}
        )

    def probe(self, name: str, values: Sequence[str] = (), **changes: Any) -> Probe:
        """What a probe says of the same two engines, `changes` made to the audit's settings.

        Raises what `plan_probe` and `run_probe` do.
        """
        settings = self.limited(probe=ProbeSettings(time=self._time_left), **changes)
        directory = self.directory / name
        directory.mkdir(parents=True, exist_ok=True)
        report = run_probe(
            plan_probe(name, settings, tuple(values)),
            settings,
            directory,
            store=self.directory / RUNS,
            command=self.command(name, values),
            on_event=self.on_event,
        )
        assert report.probe is not None
        return report.probe

    def command(self, name: str, values: Sequence[str] = ()) -> str:
        """What a person types to run this probe."""
        asked = "".join(f" --values {value}" for value in values)
        tokens = "" if name == "weights" else self._tokens
        return f"mismatchscope probe {name} {self._sides}{tokens}{asked} -o {name}"

    @property
    def _sides(self) -> str:
        settings = self.settings
        named = {name: getattr(settings, name) for name in ("model", "adapter", "behavior", "reference")}
        return _options({name: value for name, value in named.items() if value is not None}).lstrip()

    @property
    def _tokens(self) -> str:
        """The options that say which tokens are drawn, where they are not the defaults."""
        given, default = self.limited(), AuditSettings()
        asked = {
            name: getattr(given, name) for name in _OF_TOKENS if getattr(given, name) != getattr(default, name)
        }
        return _options(asked | given.sampling.model_dump(exclude_defaults=True))


def _options(values: Mapping[str, object]) -> str:
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in values.items())
