"""`probe` as a person types it: what is printed, what is written, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import run

pytestmark = pytest.mark.slow

NOISY = ["--behavior", "synthetic:noise=0.003", "--reference", "synthetic"]
SMALL = ["--limit", "6", "--samples", "2", "--max-new-tokens", "12"]


def test_a_probe_ends_with_a_report_in_every_form(tmp_path: Path) -> None:
    done = run("probe", "batch", *NOISY, *SMALL, "--values", "2,4", "-o", tmp_path / "batch")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PROBED  synthetic decode depends on the batch")
    assert "batch of 4" in done.stdout and "alone" in done.stdout
    written = json.loads((tmp_path / "batch" / "report.json").read_bytes())["probe"]
    assert written["name"] == "batch" and {cell["status"] for cell in written["cells"]} == {"measured"}
    page = (tmp_path / "batch" / "report.html").read_text(encoding="utf-8")
    assert 'id="probe-batch-title"' in page and "How far each setting is" in page
    assert "| batch of 4 | " in (tmp_path / "batch" / "report.md").read_text(encoding="utf-8")
    again = run("gate", tmp_path / "batch", "--fail-on", "probe.completions.synthetic.diverging_prompts > 0")
    assert again.returncode == 0, again.stdout


def test_a_directory_is_kept_resumed_or_replaced(tmp_path: Path) -> None:
    command = ["probe", "repeat", *NOISY, *SMALL, "-o", tmp_path / "repeat"]
    assert run(*command).returncode == 0
    taken = run(*command)
    assert taken.returncode == 2 and "--force or --resume" in taken.stderr
    resumed = run(*command, "--resume")
    assert resumed.returncode == 0 and "loading" not in resumed.stderr
    assert run(*command, "--force").returncode == 0


def test_a_plan_is_shown_and_nothing_written(tmp_path: Path) -> None:
    done = run("probe", "repeat", *NOISY, *SMALL, "--dry-run", "-o", tmp_path / "repeat")
    assert done.returncode == 0 and "4 engine starts, 7 runs" in done.stdout
    assert not (tmp_path / "repeat").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batch", *NOISY, "--values", "one"], "sizes of batches"),
        (["batch", *NOISY], "add -o DIR"),
        (["bacth", *NOISY], "No such command 'bacth'"),
        (["repeat", "--behavior", "nothing", "-o", "x"], "There is no engine 'nothing'"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run("probe", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_weights_are_compared_on_disk_and_have_a_report_of_their_own(tmp_path: Path) -> None:
    command = ["probe", "weights", "--model", "demo:dense", "-o", tmp_path / "weights"]
    done = run(*command, "--reference-model", "demo:dense")
    assert done.returncode == 0 and done.stdout.startswith("SAME  Both checkpoints have the same weights."), done
    written = json.loads((tmp_path / "weights" / "weights.json").read_bytes())
    assert (written["verdict"], written["stages"][0]["tensors"]) == ("pass", [])
    assert "All 47 tensors are the same" in (tmp_path / "weights" / "weights.md").read_text(encoding="utf-8")
    taken = run(*command, "--reference-model", "demo:moe")
    assert taken.returncode == 2 and "--force" in taken.stderr
    other = run(*command, "--reference-model", "demo:moe", "--force")
    assert other.returncode == 1 and other.stdout.startswith("DIFFERENT"), other
    unable = run("probe", "weights", "--behavior", "synthetic", "--reference", "synthetic", "-o", tmp_path / "none")
    assert unable.returncode == 2 and "does not show the parameters" in unable.stderr
    assert not (tmp_path / "none").exists()


def test_help_has_an_example() -> None:
    assert "For example: mismatchscope probe batch" in run("probe", "batch", "--help").stdout
