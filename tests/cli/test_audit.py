"""The audit from the command line: its answer, its files, its exit codes, and going on after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import junitparser
import pandas as pd
import pytest
from command import COMMAND, SMALL, SYNTHETIC, audit, run

FILES = ["report.json", "report.md", "report.html", "junit.xml", "report.csv"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    directory = tmp_path_factory.mktemp("audit") / "run"
    return audit(directory), directory


def report_of(directory: Path) -> dict:
    return json.loads((directory / "report.json").read_text())


def without_circumstances(report: dict) -> dict:
    """The report less what differs between two runs of the same audit: when, how long, where."""
    for key in ("command", "duration_s", "created"):
        report["provenance"].pop(key)
    for side in ("behavior", "reference"):
        report["provenance"][side].pop("created")
    return report


def test_it_answers_first_and_writes_every_form(finished) -> None:
    done, directory = finished
    assert done.returncode == 0, done.stderr
    assert "repeat floor" in done.stdout.splitlines()[0]
    assert all((directory / name).stat().st_size > 0 for name in FILES)
    assert "behavior: ready" in done.stderr  # progress is not data
    assert "behavior: ready" not in done.stdout
    assert junitparser.JUnitXml.fromfile(str(directory / "junit.xml"))
    assert len(pd.read_csv(directory / "report.csv")) > 100


def test_it_measures_what_the_engine_put_in(finished) -> None:
    """The synthetic reference is shifted by a TV of at most 0.05 at every state."""
    report = report_of(finished[1])
    assert report["evidence"] == "full"
    assert report["finding"]["code"] == "above_floor"
    assert report["counts"]["prompts"] == 12
    assert 0.01 < report["token"]["tv"]["mean"] < 0.05
    assert report["alpha1"]["observed_max"] <= 0.07
    assert report["floor"]["excess"]["low"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("evidence", ["topk:8", "sampled", "full:0.3"])
def test_weaker_evidence_agrees_with_full(finished, tmp_path, evidence: str) -> None:
    done = audit(tmp_path / "run", "--evidence", evidence)
    assert done.returncode == 0, done.stderr
    full, weak = report_of(finished[1]), report_of(tmp_path / "run")
    exact = full["alpha1"]
    assert weak["alpha1"]["observed_max"] <= exact["observed_max"] + 1e-9
    if weak["alpha1"]["observed_upper"] is not None:
        assert weak["alpha1"]["observed_upper"] >= exact["observed_max"] - 1e-9
    assert weak["alpha1"]["mean"]["low"] <= exact["mean"]["value"] <= weak["alpha1"]["mean"]["high"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gate", "code"),
    [("token.tv.mean > 0.5", 0), ("token.tv.mean > 0.001", 1), ("sequence.pareto_k > 99", 4)],
)
def test_gates_decide_the_exit_code(tmp_path, gate: str, code: int) -> None:
    done = audit(tmp_path / "run", "--fail-on", gate)
    assert done.returncode == code, done.stdout + done.stderr
    assert gate in done.stdout


@pytest.mark.slow
def test_policies_are_kept_apart(tmp_path) -> None:
    """With top-k the processed policy leaks what was cut off; raw and support do not."""
    options = ["--top-k", "8", "--temperature", "0.8"]
    reports = {}
    for policy in ("raw", "processed", "support"):
        done = audit(tmp_path / policy, *options, "--policy", policy)
        assert done.returncode == 0, done.stderr
        reports[policy] = report_of(tmp_path / policy)
        assert reports[policy]["policy"] == policy
    floor = reports["processed"]["truncation_floor"]
    assert floor > 0.01
    assert reports["processed"]["token"]["tv"]["mean"] > floor
    assert "support_leak" in {alarm["code"] for alarm in reports["processed"]["alarms"]}
    for policy in ("raw", "support"):
        assert reports[policy]["token"]["tv"]["mean"] < 0.05
        assert reports[policy]["token"]["leak"]["mean"] < 1e-9


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_report(tmp_path) -> None:
    """kill −9 of the command and its worker in the middle; the resumed report equals an undisturbed one."""
    slow = ["--behavior", "synthetic:noise=0.003,slow=0.05", *SYNTHETIC[2:], *SMALL]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert run("audit", *slow, "-o", undisturbed).returncode == 0
    process = subprocess.Popen([COMMAND, "audit", *slow, "-o", killed], stderr=subprocess.DEVNULL)
    parts = killed / "behavior" / "parts"
    deadline = time.monotonic() + 60
    while len(list(parts.glob("[0-9]*.safetensors"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run("audit", *slow, "-o", killed, "--resume")
    assert done.returncode == 0, done.stderr
    assert without_circumstances(report_of(killed)) == without_circumstances(report_of(undisturbed))


@pytest.mark.slow
def test_killed_worker_is_explained_and_resumable(tmp_path) -> None:
    crashing = ["--behavior", "synthetic:noise=0.003,fail_at=7", *SYNTHETIC[2:], *SMALL]
    done = run("audit", *crashing, "-o", tmp_path / "run")
    assert done.returncode == 3
    assert "SIGKILL" in done.stderr
    assert "--resume" in done.stderr
    assert list((tmp_path / "run" / "behavior" / "parts").glob("[0-9]*.safetensors"))


@pytest.mark.slow
def test_nan_logprobs_are_rejected_and_counted(tmp_path) -> None:
    sides = [*SYNTHETIC[:2], "--reference", "synthetic:noise=0.003,tv=0.05,nan_at=3"]
    done = run("audit", *sides, *SMALL, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path / "run")
    assert report["counts"]["rejected"] > 0
    assert "rejected" in {alarm["code"] for alarm in report["alarms"]}


@pytest.mark.slow
def test_output_is_never_overwritten_unasked(finished, tmp_path) -> None:
    directory = finished[1]
    done = audit(directory)
    assert done.returncode == 2
    assert "--force" in done.stderr
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    (foreign / "manifest.json").write_text('{"name": "a web application"}')
    assert audit(foreign, "--force").returncode == 2
    assert (foreign / "thesis.txt").exists()


@pytest.mark.slow
def test_force_never_removes_what_the_run_reads(tmp_path) -> None:
    assert audit(tmp_path / "run").returncode == 0
    mu, pi = tmp_path / "run" / "behavior", tmp_path / "run" / "reference"
    (tmp_path / "run" / "prompts.txt").write_text("Why?\n")
    for inside in (
        ("compare", mu, pi, "-o", tmp_path / "run"),
        ("score", mu, "--engine", "synthetic", "-o", mu),
        ("audit", *SYNTHETIC, "--prompts", tmp_path / "run" / "prompts.txt", "-o", tmp_path / "run"),
    ):
        done = run(*inside, "--force")
        assert done.returncode == 2 and "which this run reads" in done.stderr
    assert run("compare", mu, pi, "-o", tmp_path / "again").returncode == 0


@pytest.mark.slow
def test_resume_goes_on_with_the_last_audit_where_none_is_named(tmp_path) -> None:
    crashing = ["--behavior", "synthetic:noise=0.003,fail_at=7", *SYNTHETIC[2:], *SMALL]
    assert run("audit", *crashing, cwd=tmp_path).returncode == 3
    [directory] = tmp_path.glob("mismatchscope-audit-*")
    finished = len(list((directory / "behavior" / "parts").glob("[0-9]*.safetensors")))
    assert finished == 7
    done = run("audit", *crashing, "--resume", cwd=tmp_path)
    assert done.returncode == 3 and "SIGKILL" in done.stderr, "it went on, and met what ended it"
    assert [directory] == list(tmp_path.glob("mismatchscope-audit-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--behavior", "transfomers"], 2, "transformers"),
        (["--behavior", "synthetic:vocabluary=3"], 2, "vocabulary"),
        (["--behavior", "synthetic:vocabulary=many"], 2, "vocabulary"),
        (["--prompts", "absent.jsonl"], 2, "absent.jsonl"),
        (["--evidence", "topk:none"], 2, "topk:64"),
        (["--set", "sampling.temprature=1"], 2, "sampling.temperature"),
        (["--set", "sampling.samples=0"], 2, "sampling.samples"),
        (["--evidence", "full", "--budget", "1kB"], 2, "budget"),
        (["--model", "demo:dens", "--behavior", "transformers"], 2, "dense"),
        (["--fail-on", "token.tv"], 2, "PATH OP NUMBER"),
        (["--resume"], 2, "-o DIR"),
        (["--behavior", "vllm@http://me:hunter2@127.0.0.1"], 2, "key_env"),
        (["--baseline", "vllm:hf_token=hf_hunter2"], 2, "export HF_TOKEN"),
        (["--no-such-option"], 2, "No such option"),
    ],
)
def test_bad_input_is_one_clear_sentence(tmp_path, arguments: list[str], code: int, said: str) -> None:
    output = [] if "--resume" in arguments else ["-o", tmp_path / "run"]
    done = run("audit", *SYNTHETIC, *SMALL, *output, *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    if arguments[0] in ("--behavior", "--baseline"):
        assert not (tmp_path / "run").exists(), "a SPEC is understood before anything is written"


@pytest.mark.slow
@pytest.mark.parametrize(("gate", "code"), [("token.tv.mean > 0.5", 0), ("token.tv.mean > 0.001", 1)])
def test_a_reader_that_leaves_early_does_not_change_the_verdict(tmp_path, gate: str, code: int) -> None:
    """`mismatchscope audit … | head -1`"""
    command = [COMMAND, "audit", "-q", *SYNTHETIC, *SMALL, "--fail-on", gate, "-o", tmp_path / "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(timeout=120) == code
    assert b"Traceback" not in process.stderr.read()
