"""What --help says of a setting: its meaning and its default, alike for every verb."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer.main
from command import run

from mismatchscope.cli import app
from mismatchscope.defaults import SETTINGS


def options(verb: str) -> dict[str, Any]:
    command = typer.main.get_command(app).commands[verb]
    return {parameter.name: parameter for parameter in command.params}


def test_every_setting_is_an_option_of_the_audit_that_is_unset_unless_given() -> None:
    found = options("audit")
    for key, setting in SETTINGS.items():
        if key.startswith("probe."):
            continue  # an audit changes nothing
        option = found[key.rpartition(".")[2]]
        assert option.default is None, key
        assert option.help.startswith(setting.meaning.partition("  [")[0]), key
        shown = re.search(r"\\\[(.+)\]$", option.help)
        if setting.default is not None and setting.default is not False and setting.default != []:
            assert shown[1] == (option.name if setting.default is True else str(setting.default)), key


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
