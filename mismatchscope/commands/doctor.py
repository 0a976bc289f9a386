"""`doctor`: facts about this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..foreign_text import printable_json
from .terminal import stdout, write_document


def command(
    as_json: Annotated[bool, typer.Option("--json", help="The facts as JSON.")] = False,
) -> None:
    """Facts about this machine and every engine on it."""
    from ..doctor import examine, show_facts

    facts = examine()
    if as_json:
        write_document(printable_json(json.dumps(facts, indent=1)) + "\n")
    else:
        show_facts(facts, stdout())
