"""The engine environments that a run needs and this machine lacks, created if the person who runs it says so."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import typer

from .terminal import stderr, terminal


def create_missing_environments(specs: Iterable[str | None]) -> None:
    """Ask whether to create each missing environment of these SPECs, and create it.

    Nobody is asked where nobody watches, nor when told to be quiet: the run then ends with the command to type,
    as it does after a no.
    """
    from ..engines.spec import parse_spec
    from ..environments import create, interpreter
    from ..environments.console import CreationProgress
    from ..errors import EnvironmentMissingError

    if terminal.quiet or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    for spec in (parse_spec(text) for text in specs if text is not None):
        try:
            interpreter(spec)
        except EnvironmentMissingError as missing:
            if not typer.confirm(f"{missing.message} Create it now? It takes minutes and gigabytes.", err=True):
                raise
            with CreationProgress(stderr()) as progress:
                create(spec.name, spec.version, progress)
