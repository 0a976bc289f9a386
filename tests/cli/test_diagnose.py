"""`diagnose` as a person types it: of a report, of two traces, of a log; what is refused, and what a plan says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import planted_logs
import pytest
from command import audit, run
from written_traces import sampled_trace

from mismatchscope import compare
from mismatchscope.commands.diagnosed import kind_of
from mismatchscope.errors import UsageError
from mismatchscope.reports.document import NO_DIAGNOSIS, Alarm

SHIFTED_BY_SETTING = ("--behavior", "synthetic:noise=0.003", "--reference", "synthetic:noise=0.003,tv=0.05")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_logs.planted_log(tmp_path_factory.mktemp("log") / "log.parquet", planted_logs.shifted_quarter)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("audits") / "audit"
    done = audit(directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.slow
def test_a_log_is_diagnosed_and_nothing_is_written(log: Path, tmp_path: Path) -> None:
    done = run("-q", "diagnose", log, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())
    assert "A column that is off by a token or two (" in printed and "24 of 96 sequences: 1, 5, 9" in printed
    assert "read      docs/causes/off_by_one.md" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_json_is_the_diagnosis_alone(log: Path) -> None:
    done = run("-q", "diagnose", log, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"diagnosis", "diagnosis_answer", "confirmation"}
    assert [each["cause"] for each in found["diagnosis"]] == ["off_by_one"]
    assert found["diagnosis_answer"]["code"] == "cause" and found["confirmation"] is None


@pytest.mark.slow
def test_every_form_of_the_report_can_be_written_and_read_again(log: Path, tmp_path: Path) -> None:
    assert run("-q", "diagnose", log, "-o", tmp_path / "out").returncode == 0
    again = run("-q", "diagnose", tmp_path / "out")
    assert again.returncode == 0 and "A column that is off by a token or two" in again.stdout
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert 'id="diagnosis-0-title"' in page and "The gap of each sequence" in page
    gated = run("gate", tmp_path / "out", "--fail-on", "diagnosis_answer.size > 1.5")
    assert gated.returncode == 1, gated.stdout
    sound = run("gate", tmp_path / "out", "--fail-on", "diagnosis_answer.left > 1.5")
    assert sound.returncode == 0, sound.stdout


@pytest.mark.slow
def test_two_traces_and_their_audit_have_the_same_diagnosis(audited: Path) -> None:
    of_traces = run("-q", "diagnose", audited / "behavior", audited / "reference", "--json")
    of_report = run("-q", "diagnose", audited, "--json")
    assert of_traces.returncode == of_report.returncode
    first, second = (json.loads(done.stdout) for done in (of_traces, of_report))
    assert first["diagnosis_answer"]["code"] == second["diagnosis_answer"]["code"]
    assert [each["cause"] for each in first["diagnosis"]] == [each["cause"] for each in second["diagnosis"]]


@pytest.mark.slow
def test_an_audit_is_put_to_experiments(audited: Path, tmp_path: Path) -> None:
    plan = run("diagnose", audited, "--confirm", "--dry-run")
    assert plan.returncode == 0 and "put to experiments:" in plan.stdout
    done = run("-q", "diagnose", audited, "--confirm", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "Proved" in done.stdout and "the gap falls from" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["confirmation"]["proof"]["before"]["value"] > report["confirmation"]["proof"]["after"]["value"]
    for form in ("report.md", "report.html"):
        assert "the gap falls from" in (tmp_path / "out" / form).read_text(encoding="utf-8")
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/confirm/runs/*/manifest.json")}
    again = run("-q", "diagnose", audited, "--confirm", "-o", tmp_path / "out", "--resume")
    assert again.returncode == 0 and "Proved" in again.stdout, again.stderr
    assert made and {path: path.stat().st_mtime_ns for path in made} == made
    replaced = run("-q", "diagnose", audited, "--confirm", "-o", tmp_path / "out", "--force")
    assert replaced.returncode == 0, replaced.stderr


@pytest.mark.slow
def test_too_few_tokens_say_how_many_and_decide_nothing(tmp_path: Path) -> None:
    mu = sampled_trace(tmp_path / "mu", [np.array([-1.0, -2.0])])
    pi = sampled_trace(tmp_path / "pi", [np.array([-1.1, -2.3])], role="reference", path="prefill")
    done = run("-q", "diagnose", mu.path, pi.path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "2 tokens have a probability below 0.9 on both sides; that takes 30." in done.stdout


@pytest.mark.slow
def test_bad_input_is_one_message(log: Path, audited: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([log, "--confirm", "-o", "out"], "--model CHECKPOINT"),
        ([log, "--confirm", "--model", "demo:dense"], "add -o DIR"),
        ([log, "--confirm", "--model", "m", "--candidate", "old=nowhere", "-o", "out"], "nowhere does not exist"),
        ([audited, "--confirm", "--time", "soon", "-o", "out"], "'soon' is not a time"),
        ([audited, "--confirm", "--candidate", str(log), "-o", "out"], "--candidate is for the logs of a run"),
        (
            [audited / "behavior", audited / "reference", "--confirm", "-o", "out"],
            "not known without --model --behavior --reference",
        ),
    ):
        done = run("diagnose", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_what_is_given_is_a_report_traces_or_logs(log: Path, tmp_path: Path) -> None:
    traces = [sampled_trace(tmp_path / name, [np.array([-1.0])]).path for name in ("mu", "pi")]
    report = tmp_path / "report.json"
    report.write_text("{}")
    assert kind_of([log]) == kind_of([log, log]) == "logs"
    assert kind_of(traces) == "traces"
    assert kind_of([tmp_path]) == kind_of([report]) == "report"
    for wrong, message in (
        (traces[:1], "two traces"),
        ([*traces, log], "two traces"),
        ([report, log], "of one report"),
        ([tmp_path / "none"], "does not exist"),
    ):
        with pytest.raises(UsageError, match=message):
            kind_of(wrong)


@pytest.mark.slow
def test_a_probe_has_conclusions_and_no_diagnosis(tmp_path: Path) -> None:
    small = ["--limit", "4", "--samples", "1", "--max-new-tokens", "8"]
    assert run("probe", "repeat", *SHIFTED_BY_SETTING, *small, "-o", tmp_path / "probe").returncode == 0
    done = run("diagnose", tmp_path / "probe")
    assert done.returncode == 2 and "it is of a probe, which has conclusions instead" in done.stderr


def test_a_report_whose_diagnosis_failed_says_so(tmp_path: Path) -> None:
    logp_ST = [np.log(np.random.default_rng(s).uniform(0.1, 0.8, 6)) for s in range(4)]
    mu = sampled_trace(tmp_path / "mu", logp_ST)
    pi = sampled_trace(tmp_path / "pi", [logp_T - 0.01 for logp_T in logp_ST], role="reference")
    alarm = Alarm(code=NO_DIAGNOSIS, message="The diagnosis failed: ValueError at stat.py:3.", remedy="report it")
    report = compare(mu, pi).model_copy(update={"diagnosis": [], "diagnosis_answer": None, "alarms": [alarm]})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text(report.model_dump_json(), encoding="utf-8")
    done = run("-q", "diagnose", tmp_path / "out")
    assert done.returncode == 3 and "The diagnosis failed: ValueError at stat.py:3." in done.stderr, done.stderr
