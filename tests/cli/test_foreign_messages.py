"""What is typed, what a file holds and what a worker says, quoted in messages: nothing of it acts on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from command import COMMAND, run
from hostile_text import FRAGMENTS, SURROGATES, dangers, hostile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mismatchscope import doctor
from mismatchscope.commands.terminal import show_error, show_note, stderr, stdout
from mismatchscope.environments.console import CreationProgress, show_environments
from mismatchscope.errors import MismatchScopeError
from mismatchscope.foreign_text import printable
from mismatchscope.progress import ProgressReporter

pytestmark = pytest.mark.slow

anything = hostile(*SURROGATES)
widths = st.integers(1, 120)
FACTS = doctor.examine()
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(width=widths, message=anything, hint=anything, log=st.lists(anything, max_size=3).map("\n".join))
@QUICK
def test_an_error(message: str, hint: str, log: str, width: int, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    error = MismatchScopeError(message, hint, log)
    assert not dangers(f"{error}\n{error.message}\n{error.hint}\n{error.log_tail}")
    assert "\n" not in error.message
    show_error(error.message, error.hint, error.log_tail)
    show_error(message, hint, log)
    show_note(message)
    assert not dangers(capsys.readouterr().err)


@given(width=widths, texts=st.lists(anything, min_size=9, max_size=9))
@QUICK
def test_progress(texts: list[str], width: int, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    side, name, sentence, step, line, *_ = texts
    with ProgressReporter(stderr()) as on_event, CreationProgress(stderr()) as on_creation:
        on_event({"event": "evidence", "sentence": sentence})
        on_event({"event": "loading", "side": side})
        on_event({"event": "waiting", "side": side, "seconds": 3.0})
        on_event({"event": "ready", "side": side, "seconds": 1.0})
        on_event({"event": "task", "side": side, "name": name, "sequences_total": 1})
        on_event({"event": "sequence", "side": side, "task": name, "done": 1, "tokens": 3})
        on_event({"event": "task_done", "side": side, "task": name, "seconds": 1.0})
        on_creation({"event": "step", "name": step})
        on_creation({"event": "alive", "seconds": 99.0, "lines": 1, "line": line})
    assert not dangers(capsys.readouterr().err)


def test_progress_on_a_terminal(capsys, monkeypatch) -> None:
    """Where bars move the cursor: what is left without these codes of theirs is safe, and no markup."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for text in FRAGMENTS:
        if "\x1b[" in text:  # cannot be told apart from theirs
            continue
        with ProgressReporter(stderr()) as on_event:
            on_event({"event": "evidence", "sentence": text})
            on_event({"event": "loading", "side": text})
            on_event({"event": "task", "side": text, "name": f"of {text}", "sequences_total": 1})
        with CreationProgress(stderr()) as on_event:
            on_event({"event": "step", "name": text})
            on_event({"event": "alive", "seconds": 9.0, "lines": 1, "line": text})
        printed = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|\r", "", capsys.readouterr().err)
        assert not dangers(printed)
        assert f"of {printable(text).strip()}" in printed


@given(width=widths, texts=st.lists(anything, min_size=10, max_size=10))
@QUICK
def test_environments_and_facts(texts: list[str], width: int, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("name", "version", "interpreter", "torch", "transformers", "device", "broken", "hint")
    good = dict(zip(names, texts, strict=False)) | {"variables": {texts[8]: texts[9]}}
    rows = [good, good | {"broken": None}]
    show_environments(rows, stdout())
    engines = [
        engine | {"version": texts[0], "why": texts[1], "reason": texts[2], "engine": texts[3], "ready": ready}
        for engine in FACTS["engines"][:2]
        for ready in (True, False)
    ]
    for engine in engines:
        engine["interpreter"] = "own"
    machine = FACTS["machine"] | dict.fromkeys(("cpu", "platform", "executable"), texts[4])
    facts = {"machine": machine, "packages": {texts[5]: texts[6]}, "variables": {texts[7]: texts[8]}}
    doctor.show_facts(FACTS | facts | {"engines": engines, "environments": rows}, stdout())
    assert not dangers(capsys.readouterr().out)


EVIL = "\x1b[31m\n::set-output name=a::b\r##[error]c \u202e[bold]:smile:"


ON_A_TERMINAL = "\x1b]0;owned\x07\u202e[bold]:smile:"
COMMANDS = [
    (["report", EVIL], 3),
    (["audit", "--behavior", EVIL], 2),
    (["audit", "--config", "evil.toml"], 2),
    (["audit", f"--{EVIL}"], 2),
    ([EVIL], 2),
    (["report", "evil.json"], 3),
]
MORE_COMMANDS = [
    (["report", "evil.json", "--format", EVIL], 3),
    (["compare", EVIL, EVIL, "-o", "run"], 3),
    (["audit", "--fail-on", EVIL], 2),
    (["audit", "--behavior", f"synthetic:{EVIL}=1"], 2),
    (["audit", "--set", f"{EVIL}=1"], 2),
    (["audit", "--model", EVIL, "--behavior", "transformers"], 2),
    (["audit", "--prompts", f"{EVIL}.jsonl"], 2),
    (["audit", "--prompts", "evil.jsonl"], 2),
    (["audit", "--samples", EVIL], 2),
    (["audit", "--debug", "--behavior", EVIL], 2),
    (["env", "remove", EVIL], 2),
]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [*COMMANDS, *(pytest.param(*command, marks=pytest.mark.slow) for command in MORE_COMMANDS)],
    ids=[f"{number}-{arguments[0][:6]!a}" for number, (arguments, _) in enumerate(COMMANDS + MORE_COMMANDS)],
)
def test_a_command(tmp_path: Path, arguments: list[str], code: int) -> None:
    (tmp_path / "evil.toml").write_text(f"[sampling]\n{json.dumps(EVIL)} = 1\n", encoding="utf-8")
    (tmp_path / "evil.jsonl").write_text(json.dumps({EVIL: 1}) + "\n", encoding="utf-8")
    (tmp_path / "evil.json").write_text(json.dumps({EVIL: 1, "verdict": EVIL}) + "\n", encoding="utf-8")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("error:") == 1 or "--debug" in arguments
    assert not dangers(done.stderr + "\n" + done.stdout)
    assert "Unexpected" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "--behavior", ON_A_TERMINAL],
        ["audit", f"--{ON_A_TERMINAL}"],
        pytest.param(
            ["rollout", "--engine", "synthetic", "--limit", "2", "-o", ON_A_TERMINAL], marks=pytest.mark.slow
        ),
    ],
)
def test_a_command_on_a_terminal(tmp_path: Path, arguments: list[str]) -> None:
    leader, follower = pty.openpty()
    command = subprocess.Popen(
        [COMMAND, *arguments], cwd=tmp_path, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    printed = b""
    with suppress(OSError):  # which is how a terminal ends
        while chunk := os.read(leader, 65536):
            printed += chunk
    os.close(leader)
    assert command.wait(timeout=60) in (0, 2)
    text = printed.decode()
    assert not [char for char in ("\x1b]", "\x07", "\u202e") if char in text], ascii(text)
    assert r"\x1b]0;owned\x07" in text and "[bold]:smile:" in text
