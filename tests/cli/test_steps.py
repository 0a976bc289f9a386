"""rollout, score, compare, report, gate and doctor, one after the other, through the installed command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import SMALL, audit, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("steps")
    steps = [
        ("rollout", "--engine", "synthetic", *SMALL, "-o", directory / "mu"),
        ("score", directory / "mu", "--engine", "synthetic:tv=0.05", "-o", directory / "pi"),
        ("score", directory / "mu", "--engine", "synthetic:tv=0.1", "--role", "target", "-o", directory / "theta"),
    ]
    for step in steps:
        done = run(*step)
        assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def report(traces: Path) -> Path:
    done = run("compare", traces / "mu", traces / "pi", "--target", traces / "theta", "-o", traces / "report")
    assert done.returncode == 0, done.stderr
    return traces / "report"


@pytest.mark.slow
def test_three_policies(report: Path) -> None:
    document = json.loads((report / "report.json").read_text())
    alpha0, alpha1, beta = (document[key]["mean"]["value"] for key in ("alpha0", "alpha1", "beta"))
    assert beta <= alpha0 + alpha1 + 1e-6  # the distributions are stored in float32
    assert document["bounds"]["slack_mean"] == pytest.approx(alpha0 + alpha1 - beta)


def test_steps_by_hand_equal_the_audit(report: Path, tmp_path: Path) -> None:
    sides = ["--behavior", "synthetic", "--reference", "synthetic:tv=0.05", "--no-repeats"]
    done = run("audit", *sides, *SMALL, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    by_hand, at_once = (json.loads((path / "report.json").read_text()) for path in (report, tmp_path / "run"))
    for block in ("alpha1", "token", "sequence", "counts", "worst"):
        assert by_hand[block] == at_once[block]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["html", "markdown", "json", "junit", "csv"])
def test_report_in_every_form(report: Path, tmp_path: Path, format: str) -> None:
    done = run("report", report, "--format", format)
    assert done.returncode == 0, done.stderr
    to_file = run("report", report / "report.json", "-f", format, "-o", tmp_path / "out")
    assert to_file.returncode == 0
    assert (tmp_path / "out").read_text() == done.stdout
    assert run("report", report, "-f", format, "-o", tmp_path / "out").returncode == 2  # it exists


def test_an_unknown_form_is_refused_with_those_that_there_are(report: Path) -> None:
    done = run("report", report, "--format", "xml")
    assert done.returncode == 2 and "html" in done.stderr


def test_report_on_the_terminal(report: Path) -> None:
    done = run("report", report)
    assert "α₁" in done.stdout
    assert run("report", report, "-v").stdout.count("\n") > done.stdout.count("\n")


def test_gate_verdicts_and_summary(report: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    done = run("gate", report, "--fail-on", "token.tv.mean > 0.5", GITHUB_STEP_SUMMARY=str(summary))
    assert (done.returncode, "pass" in done.stdout.lower()) == (0, True)
    assert "token.tv.mean &gt; 0.5" in summary.read_text()
    assert run("gate", report, "--fail-on", "token.tv.mean > 0.001").returncode == 1
    config = tmp_path / "gate.toml"
    config.write_text('[gate]\nfail_on = ["sequence.pareto_k > 99"]\n')
    assert run("gate", report, "--config", config).returncode in (0, 4)
    assert run("gate", report, "--baseline", report, "--fail-on", "token.tv.mean > +900%").returncode == 0
    assert run("gate", report, "--baseline", report, "--fail-on", "token.tv.max > +10%").returncode == 4
    assert run("gate", report).returncode == 2


def test_gate_names_the_path_that_an_index_stood_for(report: Path) -> None:
    done = run("gate", report, "--fail-on", "alpha1.tolerance.2.value > 0.1")
    assert done.returncode == 2
    assert "alpha1.tolerance.p95.value" in done.stderr
    for path, code in (
        ("alpha1.tolerance.p50.value", 0),
        ("sequence.by_length.longest.kl", 0),
        ("corrections.icepop.kept_tokens", 4),  # found, and without an interval
    ):
        assert run("gate", report, "--fail-on", f"{path} > 99").returncode == code, path


def test_compare_checks_its_settings_before_it_reads_a_trace(tmp_path: Path) -> None:
    for option, value, said in (("--confidence", "2", "confidence"), ("--fail-on", "token.tvv > 1", "token.tv")):
        done = run("compare", "absent", "absent", option, value, "-o", tmp_path / "out")
        assert done.returncode == 2 and said in done.stderr


@pytest.mark.slow
def test_gate_refuses_a_baseline_of_something_else(report: Path, tmp_path: Path) -> None:
    assert audit(tmp_path / "other", "--temperature", "0.7", "--no-repeats").returncode == 0
    done = run("gate", report, "--baseline", tmp_path / "other", "--fail-on", "token.tv.mean > +10%")
    assert done.returncode == 4
    assert "temperature" in done.stderr


@pytest.mark.slow
def test_altered_truncated_and_missing_traces(traces: Path, tmp_path: Path) -> None:
    for name, damage in (("altered", b"x"), ("truncated", None)):
        copy = tmp_path / name
        shutil.copytree(traces / "mu", copy)
        file = copy / "tokens.parquet"
        file.write_bytes(file.read_bytes() + damage if damage else file.read_bytes()[:-100])
        done = run("compare", copy, traces / "pi", "-o", tmp_path / f"{name}-report")
        assert done.returncode == 3
        assert "tokens.parquet" in done.stderr
    done = run("compare", tmp_path / "absent", traces / "pi", "-o", tmp_path / "out")
    assert done.returncode == 3
    assert "absent" in done.stderr
    assert not (tmp_path / "out").exists()  # nothing is left behind


@pytest.mark.slow
def test_other_tokens_and_other_vocabularies_are_refused(traces: Path, tmp_path: Path) -> None:
    for name, options in (("seed", ["--seed", "5"]), ("vocabulary", [])):
        engine = "synthetic:vocabulary=96" if name == "vocabulary" else "synthetic"
        assert run("rollout", "--engine", engine, *SMALL, *options, "-o", tmp_path / name).returncode == 0
        done = run("compare", tmp_path / name, traces / "pi", "-o", tmp_path / f"{name}-report")
        assert done.returncode == 4, done.stderr


def test_not_a_report(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"schema_version": 1}')
    done = run("report", tmp_path)
    assert done.returncode == 3
    assert "report.json" in done.stderr
    assert run("report", tmp_path / "absent.json").returncode == 3


@pytest.mark.slow
def test_doctor_speaks_to_people_and_to_programs() -> None:
    facts = json.loads(run("doctor", "--json").stdout)
    assert {engine["engine"] for engine in facts["engines"]} >= {"transformers", "synthetic"}
    assert facts["machine"]["cores"] >= 1
    assert "synthetic" in run("doctor").stdout
