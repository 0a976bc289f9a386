"""What --help says of a setting is what the settings say: its meaning and its default."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer.main
from command import run

from mismatchscope.cli import app
from mismatchscope.config import AuditSettings, Settings


def settings(model: Settings, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The default and the field of every setting by its dotted key."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, Settings):
            found |= settings(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = (value, field)
    return found


SETTINGS = settings(AuditSettings())


def options(verb: str) -> dict[str, Any]:
    command = typer.main.get_command(app).commands[verb]
    return {parameter.name: parameter for parameter in command.params}


def test_every_setting_is_an_option_of_the_audit_that_is_unset_unless_given() -> None:
    found = options("audit")
    for key, (default, field) in SETTINGS.items():
        option = found[key.rpartition(".")[2]]
        assert option.default is None, key
        assert option.help.startswith(field.description.partition("  [")[0]), key
        shown = re.search(r"\\\[(.+)\]$", option.help)
        if default not in (None, False, []) or (default == 0 and default is not False):
            assert shown[1] == (option.name if default is True else str(default)), key


# What these verbs call so is of the trace or the report that they read, not of an audit.
OTHER = {
    "rollout": set(),
    "score": {"temperature"},
    "compare": {"policy", "baseline", "behavior", "reference"},
    "gate": {"baseline"},
}


@pytest.mark.parametrize("verb", OTHER)
def test_a_setting_is_explained_alike_by_every_verb(verb: str) -> None:
    audit = options("audit")
    names = {key.rpartition(".")[2] for key in SETTINGS} - OTHER[verb]
    shared = {name: option for name, option in options(verb).items() if name in names}
    assert shared
    for name, option in shared.items():
        assert option.help == audit[name].help


def test_the_terminal_shows_defaults_that_are_words() -> None:
    """In brackets, which the terminal would take for markup."""
    shown = " ".join(run("audit", "--help", COLUMNS="200").stdout.split())
    for default in ("[auto]", "[processed]", "[embedded]", "[0.95]", "[transformers:dtype=bfloat16]"):
        assert default in shown
