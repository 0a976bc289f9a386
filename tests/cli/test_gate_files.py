"""`gate` through the installed command: what it writes, and what it lets be different from a baseline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command import audit, run

pytestmark = pytest.mark.slow

MARGIN = ("--fail-on", "token.tv.mean > +300%")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gate") / "audit"
    done = audit(directory, "--no-repeats")
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture
def other_checkpoint(report: Path, tmp_path: Path) -> Path:
    """A baseline of other weights, and nothing else."""
    copy = tmp_path / "step-0"
    copy.mkdir()
    for name in ("report.json", "report.prompts.json"):
        shutil.copy(report / name, copy / name)
    document = json.loads((copy / "report.json").read_text())
    document["provenance"]["behavior"].setdefault("model", {})["weights_sha256"] = "ab" * 32
    (copy / "report.json").write_text(json.dumps(document))
    mine = json.loads((report / "report.json").read_text())
    mine["provenance"]["behavior"].setdefault("model", {})["weights_sha256"] = "cd" * 32
    (tmp_path / "step-200").mkdir()
    (tmp_path / "step-200" / "report.json").write_text(json.dumps(mine))
    shutil.copy(report / "report.prompts.json", tmp_path / "step-200")
    return copy


def test_every_form_of_the_decided_report_goes_into_a_directory(report: Path, tmp_path: Path) -> None:
    done = run("gate", report, "--baseline", report, *MARGIN, "-o", tmp_path / "gated")
    assert done.returncode == 0, done.stderr
    written = {file.name for file in (tmp_path / "gated").iterdir()}
    assert {"report.json", "report.prompts.json", "report.md", "junit.xml", "report.csv"} <= written
    (case,) = ElementTree.parse(tmp_path / "gated" / "junit.xml").iter("testcase")
    assert case.get("name") == MARGIN[1] and not len(case)
    decided = json.loads((tmp_path / "gated" / "report.json").read_text())
    assert (decided["verdict"], decided["gates"][0]["expression"]) == ("pass", MARGIN[1])
    assert "token.tv.mean" in (tmp_path / "gated" / "report.md").read_text()


@pytest.mark.parametrize(("name", "beginning"), [("junit.xml", "<?xml"), ("gates.md", ""), ("decided.json", "{")])
def test_a_file_gets_the_form_of_its_suffix(report: Path, tmp_path: Path, name: str, beginning: str) -> None:
    file = tmp_path / "made" / name
    done = run("gate", report, "--fail-on", "token.tv.mean > 0.0001", "-o", file)
    assert done.returncode == 1, "a failed gate is still a failed gate"
    assert file.read_text().startswith(beginning)
    assert "token.tv.mean" in file.read_text().replace("&#95;", "_")


def test_figures_in_doubt_are_said_beside_the_verdict(report: Path, tmp_path: Path) -> None:
    document = json.loads((report / "report.json").read_text())
    document["finding"] = {"code": "log_in_doubt", "sentence": "The figures are in doubt: 9 of 64 are shifted."}
    (tmp_path / "report.json").write_text(json.dumps(document))
    done = run("gate", tmp_path, "--fail-on", "token.tv.mean > 0.9")
    assert done.returncode == 0 and "The figures are in doubt: 9 of 64" in done.stderr


def test_nothing_is_replaced_without_force(report: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(report, tmp_path / "audit")
    command = ("gate", copy, "--fail-on", "token.tv.mean > 0.9", "-o", copy)
    done = run(*command)
    assert done.returncode == 2 and "--force" in done.stderr
    assert json.loads((copy / "report.json").read_text())["gates"] == []
    assert run(*command, "--force").returncode == 0
    assert json.loads((copy / "report.json").read_text())["verdict"] == "pass"
    assert (copy / "behavior").exists(), "what else is there stays"


def test_checkpoints_of_one_run_are_compared_when_that_is_meant(other_checkpoint: Path) -> None:
    command = ("gate", other_checkpoint.parent / "step-200", "--baseline", other_checkpoint, *MARGIN)
    refused = run(*command)
    assert refused.returncode == 4
    assert "--allow other-weights" in refused.stderr
    assert "cdcdcdcdcdcd here, abababababab in the baseline" in " ".join(refused.stderr.split())
    assert "cd" * 7 not in refused.stderr, "a hash is shown by its first 12 digits"
    allowed = run(*command, "--allow", "other-weights")
    assert allowed.returncode == 0, allowed.stderr


def test_an_allowance_that_there_is_not_is_a_usage_error(report: Path) -> None:
    done = run("gate", report, "--baseline", report, *MARGIN, "--allow", "anything")
    assert done.returncode == 2 and "other-weights" in done.stderr
