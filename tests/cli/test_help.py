"""What --help and errors print is what was written: square brackets are no markup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from command import run
from rich.markup import render

from mismatchscope.cli import app


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def test_no_help_loses_words_to_markup() -> None:
    seen = 0
    for path, command in commands(typer.main.get_command(app)):
        for text in [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]:
            if text:
                seen += 1
                assert render(text).plain == text.replace("\\[", "["), (path, text)
    assert seen > 50


def test_gate_names_its_section_of_the_file() -> None:
    done = run("gate", "--help")
    assert "[gate] fail_on" in " ".join(done.stdout.split())
    assert "other-weights" in done.stdout


def test_brackets_of_an_argument_come_back_in_its_error(tmp_path: Path) -> None:
    done = run("gate", tmp_path / "[bold]report", "--fail-on", "token.tv > 1")
    assert done.returncode == 3
    assert "[bold]report" in done.stderr
