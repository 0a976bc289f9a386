"""The options that several verbs take, each once.

A setting's option says what `defaults` says of it: its type, its meaning and its default are written there alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..defaults import SETTINGS

if TYPE_CHECKING:
    from ..config import AuditSettings

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Directory to write.")]
RequiredOutput = Annotated[Path, typer.Option("--output", "-o", help="Directory to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file with the same settings.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="Override one setting: a.b=c.")]

Ray = Annotated[
    str | None, typer.Option("--ray", help="Address of a Ray cluster that does the work; 'local' starts one.")
]
RayWorkers = Annotated[
    int | None, typer.Option("--ray-workers", min=1, help="Engines on the cluster.  \\[one a GPU, else a node]")
]

Overrides = dict[str, Any]
"""The settings that were given on the command line, by their dotted keys; None is "not given"."""

SAMPLING = tuple(key for key in SETTINGS if key.startswith("sampling."))
"""The keys of all that a rollout is sampled with."""

# Settings that can be switched on only: there is no --no-tail.
_ONE_WAY = {"tail"}


def model_inputs(settings: AuditSettings) -> list[Path]:
    """The directories that a run reads its model from, which it must not write into."""
    return [Path(name) for name in (settings.model, settings.adapter) if name is not None]


def takes_settings(*keys: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a verb override settings: each key becomes an option, and its parameter `overrides` gets their values."""
    options = {key: _option(key) for key in keys}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            overrides: Overrides = {key: arguments.pop(option.name) for key, option in options.items()}
            function(overrides=overrides, **arguments)

        signature = inspect.signature(function, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            others = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
            parameters += options.values() if parameter.name == "overrides" else others
        vars(run)["__signature__"] = signature.replace(parameters=parameters)
        return run

    return decorate


def _option(key: str) -> inspect.Parameter:
    """The option of one setting. Its value is None where it is not given, so that a file can decide."""
    setting, name = SETTINGS[key], key.rpartition(".")[2]
    flags = [f"--{name}"] if name in _ONE_WAY else []
    meaning = f"{setting.meaning}{_shown(name, setting.default)}".replace("[", "\\[")  # a bracket would be markup
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[setting.kind | None, typer.Option(*flags, help=meaning)],
    )


def _shown(name: str, default: Any) -> str:
    """The default as --help shows it; the description of a setting that has none says what happens then."""
    if default is None or default is False or default == []:
        return ""
    return f"  [{name if default is True else default}]"
