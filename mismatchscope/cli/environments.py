"""`env`: the environments of inference engines."""

from __future__ import annotations

import functools
import json
import sys
from typing import Annotated

import typer

from ..errors import SpecError
from .frame import app, stderr, stdout, terminal, verb

env = typer.Typer(help="Engine environments: vLLM and SGLang in one each.", no_args_is_help=True)
app.add_typer(env, name="env")

EngineVersion = Annotated[str, typer.Argument(metavar="SPEC", help="vllm, sglang; with ==VERSION for another.")]


@functools.partial(verb, group=env, name="list")
def env_list(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Engine environments, and whether they work."""
    from ..environments import describe
    from ..environments.console import show_environments

    rows = describe()
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    else:
        show_environments(rows, stdout())


@functools.partial(verb, group=env, name="create")
def env_create(spec: EngineVersion) -> None:
    """Install an engine into an environment of its own; minutes and gigabytes. Prints its interpreter."""
    from ..environments import create
    from ..environments.console import CreationProgress

    with CreationProgress(stderr(), quiet=terminal.quiet) as progress:
        environment = create(*_engine_version(spec), on_event=progress)
    sys.stdout.write(f"{environment.python}\n")


@functools.partial(verb, group=env, name="remove")
def env_remove(spec: EngineVersion) -> None:
    """Remove an engine's environment. Prints the directory that is gone."""
    from ..environments import remove

    sys.stdout.write(f"{remove(*_engine_version(spec))}\n")


def _engine_version(text: str) -> tuple[str, str | None]:
    from ..engines.spec import parse_spec

    spec = parse_spec(text)
    if spec.url or spec.python or spec.options:
        wanted = f"{spec.name}=={spec.version}" if spec.version else spec.name
        raise SpecError(f"An environment has no URL and no options: '{text}'.", hint=f"write {wanted}")
    return spec.name, spec.version
