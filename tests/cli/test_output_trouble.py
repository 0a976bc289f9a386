"""What goes wrong with printing changes no verdict: the exit code is the gate's, and nothing is a traceback."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import example_reports
import pytest
from command import COMMAND

pytestmark = pytest.mark.slow

PASSES, FAILS = "token.tv.mean > 0.5", "token.tv.mean > 0.000001"
TROUBLE = ("Traceback", "Unexpected", "Exception ignored")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("trouble") / "report.json"
    full = example_reports.full()
    file.write_text(full.model_copy(update={"gates": [], "verdict": "none"}).to_json(), encoding="utf-8")
    return file


def start(
    *arguments: str | Path, shell: str = "", limit: int | None = None, **variables: str
) -> tuple[int, str, str]:
    """Run the command below a shell that redirects its streams; returns its exit code and what it printed."""

    def small_files() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        ["bash", "-c", f'"$@" {shell}', "bash", COMMAND, *map(str, arguments)],
        env={key: value for key, value in os.environ.items() if key != "GITHUB_STEP_SUMMARY"} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=small_files,
        timeout=60,
        check=False,
    )
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    assert not [word for word in TROUBLE if word in out + err], out + err
    return done.returncode, out, err


def c_locale(encoding: str) -> dict[str, str]:
    return {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}


@pytest.mark.parametrize(
    ("shell", "variables"),
    [
        ("> /dev/full", {}),
        ("> /dev/full 2>&1", {}),
        ("<&- >&- 2>&-", {}),
        ("| true; exit ${PIPESTATUS[0]}", {}),
        ("", {"COLUMNS": "0", "LINES": "-1"}),
        ("", {"COLUMNS": "1", "LINES": "99999999999999999999", "TERM": "dumb"}),
        *[
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (">&-", {}),
                ("2>&-", {}),
                ("<&-", {}),
                ("2> /dev/full", {}),
                ("2> >(true)", {}),
                ("", {"COLUMNS": "99999999999999999999"}),
                ("", {"COLUMNS": "many", "LINES": ""}),
                ("", {"COLUMNS": "٣", "TERM": ""}),
                ("", {"TERM": "nonsense", "FORCE_COLOR": "1"}),
                ("", c_locale("latin-1")),
                ("", c_locale("utf-16")),
            ]
        ],
    ],
)
def test_the_exit_code_is_the_verdicts(report: Path, shell: str, variables: dict[str, str]) -> None:
    assert start("gate", report, "--fail-on", FAILS, shell=shell, **variables)[0] == 1
    assert start("gate", report, "--fail-on", PASSES, shell=shell, **variables)[0] == 0


@pytest.mark.parametrize("encoding", ["ascii", *(pytest.param(e, marks=pytest.mark.slow) for e in ("latin-1", ""))])
def test_what_an_encoding_lacks_is_spelled_out(report: Path, encoding: str) -> None:
    code, out, err = start("report", report, "-v", **c_locale(encoding))
    assert (code, err) == (0, "")
    assert r"\u03b1\u2081" in out


@pytest.mark.parametrize(
    "format", ["json", *(pytest.param(f, marks=pytest.mark.slow) for f in ("markdown", "html"))]
)
def test_a_document_is_the_same_whatever_the_terminal_reads(report: Path, tmp_path: Path, format: str) -> None:
    start("report", report, "--format", format, "-o", tmp_path / "written")
    code, out, _ = start("report", report, "--format", format, **c_locale("ascii"))
    assert code == 0
    assert out == (tmp_path / "written").read_text(encoding="utf-8")


def fifo(directory: Path) -> Path:
    os.mkfifo(directory / "fifo")
    return directory / "fifo"


@pytest.mark.parametrize(
    "place",
    [
        lambda directory: directory / "absent" / "summary.md",
        fifo,
        pytest.param(lambda directory: directory, marks=pytest.mark.slow),
        pytest.param(lambda directory: "/dev/full", marks=pytest.mark.slow),
        pytest.param(lambda directory: f"{directory}/\x1b[31m\n::error::/x", marks=pytest.mark.slow),
    ],
    ids=["absent", "fifo", "directory", "device", "hostile"],
)
def test_a_step_summary_that_cannot_be_written_is_a_note(
    report: Path, tmp_path: Path, place: Callable[[Path], object]
) -> None:
    code, out, err = start("gate", report, "--fail-on", FAILS, GITHUB_STEP_SUMMARY=str(place(tmp_path)))
    assert code == 1
    assert "fail" in out
    assert err.startswith("note: The step summary") and "cannot be written" in err
    assert "\x1b" not in err and "\n::" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "REPORT", "--format", "json"],
        pytest.param(["--help"], marks=pytest.mark.slow),
        pytest.param(["doctor", "--json"], marks=pytest.mark.slow),
    ],
)
def test_a_document_that_is_lost_is_a_failure_but_a_reader_may_leave(report: Path, arguments: list[str]) -> None:
    arguments = [str(report) if argument == "REPORT" else argument for argument in arguments]
    code, _, err = start(*arguments, shell="> /dev/full")
    assert code == 3
    assert "stdout cannot be written: No space left on device." in err and "next:" in err
    assert start(*arguments, shell=">&-")[0] == 3
    assert start(*arguments, shell="| head -c 10; exit ${PIPESTATUS[0]}")[0] == 0


@pytest.mark.parametrize("shell", ["2> /dev/full", "2>&-"])
def test_wrong_usage_stays_wrong_usage(report: Path, shell: str) -> None:
    assert start("gate", report, "--no-such-option", shell=shell)[0] == 2


def test_a_full_disk_is_named_and_what_was_written_stays(report: Path, tmp_path: Path) -> None:
    size = report.stat().st_size
    code, _, err = start("gate", report, "--fail-on", PASSES, "-o", tmp_path / "run", limit=size + 20_000)
    assert code == 3
    assert "report.html cannot be written: File too large." in err and "next: make room" in err
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"report.json", "report.md"}
    code, _, err = start("report", report, "--format", "json", "-o", tmp_path / "one.json", limit=1024)
    assert code == 3 and "one.json cannot be written" in err
