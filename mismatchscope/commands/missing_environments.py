"""The engine environments that a run needs and this machine lacks, created if the person who runs it says so."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from .terminal import stderr, terminal

if TYPE_CHECKING:
    from ..engines.spec import EngineSpec


def create_missing_environments(specs: Iterable[str | None], others: Iterable[EngineSpec] = ()) -> None:
    """Ask whether to create each missing environment of these SPECs, and create it.

    Nobody is asked where nobody watches, nor when told to be quiet: the run then ends with the command to type,
    as it does after a no. Without the environment of one of `others` a run goes on, and says so where it matters.
    """
    from ..engines.spec import parse_spec
    from ..errors import EnvironmentBrokenError, EnvironmentMissingError

    if terminal.quiet or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    for text in specs:
        if text is not None:
            _create_if_missing(parse_spec(text))
    for spec in {(spec.name, spec.version): spec for spec in others}.values():
        with suppress(EnvironmentMissingError, EnvironmentBrokenError):
            _create_if_missing(spec)


def _create_if_missing(spec: EngineSpec) -> None:
    """Raises what `interpreter` does, `EnvironmentMissingError` after a no, and what `create` does after a yes."""
    from ..environments import create, interpreter
    from ..environments.console import CreationProgress
    from ..errors import EnvironmentMissingError

    try:
        interpreter(spec)
    except EnvironmentMissingError as missing:
        if not typer.confirm(f"{missing.message} Create it now? It takes minutes and gigabytes.", err=True):
            raise
        with CreationProgress(stderr()) as progress:
            create(spec.name, spec.version, progress)
