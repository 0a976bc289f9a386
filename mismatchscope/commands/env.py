"""`env`: the environments of inference engines."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..errors import SpecError
from ..foreign_text import printable_json
from .terminal import stderr, stdout, terminal, write_document

EngineVersion = Annotated[str, typer.Argument(metavar="SPEC", help="vllm, sglang; with ==VERSION for another.")]


def list_environments(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Engine environments, and whether they work."""
    from ..environments import describe
    from ..environments.console import show_environments

    rows = describe()
    if as_json:
        write_document(printable_json(json.dumps(rows, indent=1)) + "\n")
    else:
        show_environments(rows, stdout())


def create(spec: EngineVersion) -> None:
    """Install an engine into an environment of its own; minutes and gigabytes. Prints its interpreter."""
    from .. import environments
    from ..environments.console import CreationProgress

    with CreationProgress(stderr(), quiet=terminal.quiet) as progress:
        environment = environments.create(*_engine_version(spec), on_event=progress)
    stdout().print(str(environment.python), soft_wrap=True)


def remove(spec: EngineVersion) -> None:
    """Remove an engine's environment. Prints the directory that is gone."""
    from .. import environments

    stdout().print(str(environments.remove(*_engine_version(spec))), soft_wrap=True)


def _engine_version(text: str) -> tuple[str, str | None]:
    from ..engines.spec import parse_spec

    spec = parse_spec(text)
    if spec.url or spec.python or spec.options:
        wanted = f"{spec.name}=={spec.version}" if spec.version else spec.name
        raise SpecError(f"An environment has no URL and no options: '{text}'.", hint=f"write {wanted}")
    return spec.name, spec.version
