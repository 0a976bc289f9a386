"""`mismatchscope env`, as a person types it: what is printed where, and the exit code."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from mismatchscope.cli import app
from mismatchscope.environments import Environment, installed
from mismatchscope.environments.console import CreationProgress, show_environments

pytestmark = pytest.mark.slow


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["env", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_create_prints_the_interpreter_and_its_progress_beside(home) -> None:
    done = run("create", "toy==1.1.0")
    assert done.exit_code == 0
    assert done.stdout == f"{home}/environments/toy-1.1.0/bin/python\n"
    assert "0:00 install toyengine" in done.stderr
    quiet = run("create", "toy==1.1.0", "-q")
    assert (quiet.stdout, quiet.stderr, quiet.exit_code) == (done.stdout, "", 0)


def test_list_and_remove(environment: Environment) -> None:
    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["name"], row["version"], row["torch"]) == ("toy", "1.0.0", "2.9.0+cpu")
    listed = run("list").stdout
    assert "toy==1.0.0  ready" in listed
    assert "torch 2.9.0+cpu, transformers –, device cpu" in listed
    removed = run("remove", "toy==1.0.0")
    assert (removed.stdout, removed.exit_code) == (f"{environment.path}\n", 0)
    assert installed() == []
    assert json.loads(run("list", "--json").stdout) == []
    assert "mismatchscope env create" in run("list").stdout


def test_a_broken_environment_is_listed_with_the_way_out(environment: Environment) -> None:
    environment.python.unlink()
    done = run("list")
    assert done.exit_code == 0
    assert "broken" in done.stdout
    assert "next: mismatchscope env remove toy==1.0.0 && mismatchscope env create toy==1.0.0" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["create", "transformers"], 2, "There is no environment to make for 'transformers'."),
        (["create", "toy==1.0.7"], 2, "pip offers no toyengine 1.0.7 for this machine."),
        (["create", "vllm==0.32.0:dtype=float32"], 2, "An environment has no URL and no options"),
        (["create", "vllm@http://localhost:8000"], 2, "An environment has no URL and no options"),
        (["create", "vllm=0.32.0"], 2, "is not an engine SPEC"),
        (["create", "sglang==0.5.1"], 2, "Without a GPU, sglang 0.5.1 cannot be installed."),
        (["remove", "toy==1.0.7"], 2, "There is no environment of toy 1.0.7."),
    ],
)
def test_bad_input_is_one_sentence(home, arguments: list[str], exit_code: int, message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == exit_code
    assert message in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_failed_creation_shows_the_end_of_its_log(home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_BREAKS", "1")
    done = run("create", "toy==1.1.0")
    assert done.exit_code == 3
    assert "libtoy.so: undefined symbol" in done.stderr
    assert f"the whole log is {home}/logs/env-create-toy-1.1.0-" in done.stderr


def test_a_long_step_speaks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=40)
    with CreationProgress(console) as progress:
        progress({"event": "locked", "holder": "process 7", "seconds": 1.0})
        progress({"event": "step", "name": "install torch"})
        for now in range(1, 26):
            progress({"event": "alive", "seconds": float(now), "lines": 7, "line": "Downloading [a wheel]"})
    assert console.file.getvalue().splitlines() == [
        "0:00 install torch",
        "0:10 install torch, 10 s, 7 lines",
        "0:20 install torch, 20 s, 7 lines",
    ]


def test_on_a_terminal_the_line_moves() -> None:
    console = Console(file=io.StringIO(), width=60, force_terminal=True)
    with CreationProgress(console) as progress:
        progress({"event": "step", "name": "install torch"})
        progress({"event": "alive", "seconds": 5.0, "lines": 7, "line": "Downloading [a wheel] " * 9})
    assert "0:00 install torch" in console.file.getvalue()


def test_no_environments_is_said() -> None:
    console = Console(file=io.StringIO(), width=80)
    show_environments([], console)
    assert "none" in console.file.getvalue()
