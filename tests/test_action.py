"""The GitHub action, run here: its own scripts in bash with the real command, and synthetic engines."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

from mismatchscope import cli

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])

SCRIPTS = {step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step}
ENGINES = {
    "behavior": "synthetic:noise=0.003,epsilon=0.05",
    "reference": "synthetic:noise=0.003",
    "arguments": "--limit=8\n--max-new-tokens=16\n",
    "output": "run",
}

_EXPRESSION = re.compile(r"\$\{\{ (?P<text>.*?) \}\}")


def filled_in(text: str, inputs: dict[str, str]) -> str:
    """The text as the runner hands it over: expressions replaced, an unknown one is an error."""
    known = {"github.action_path": str(ROOT)}
    known |= {f"inputs.{name}": value.get("default", "") for name, value in ACTION["inputs"].items()}
    known |= {f"inputs.{name}": value for name, value in inputs.items()}
    return _EXPRESSION.sub(lambda found: known[found["text"]], text)


class Runner:
    """Runs steps as GitHub does: bash with -eo pipefail, files for outputs and the summary."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output, self.summary = directory / "output", directory / "summary"
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.output.touch()
        self.summary.touch()

    def stub(self, command: str) -> Path:
        """Put a command on the path that does nothing but note down its arguments."""
        log = self.directory / f"{command}.log"
        (self.bin / command).write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {shlex.quote(str(log))}\n')
        (self.bin / command).chmod(0o755)
        return log

    def run(self, name: str, inputs: dict[str, str]) -> subprocess.CompletedProcess[str]:
        step = SCRIPTS[name]
        values = {key: filled_in(value, inputs) for key, value in step["env"].items()}
        path = os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"]])
        files = {"GITHUB_OUTPUT": str(self.output), "GITHUB_STEP_SUMMARY": str(self.summary)}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.directory,
            env=os.environ | values | files | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def texts(node: object) -> list[str]:
    """Every string in a YAML document."""
    if isinstance(node, dict):
        return [text for value in node.values() for text in texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in texts(value)]
    return [node] if isinstance(node, str) else []


def test_every_input_is_declared_used_and_described() -> None:
    used = {name for text in texts(ACTION) for name in re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", text)}
    assert used == set(ACTION["inputs"])
    table = PAGE.partition("| input |")[2].partition("\n\n")[0]
    described = {name for row in table.splitlines() for name in re.findall(r"`([\w-]+)`", row.split("|")[1:2][0])}
    assert described == set(ACTION["inputs"])
    for name, declared in ACTION["inputs"].items():
        assert declared["description"], name
        assert declared.get("required") or isinstance(declared["default"], str), name


def test_no_script_holds_an_expression() -> None:
    for name, step in SCRIPTS.items():
        assert "${{" not in step["run"], f"{name}: a value must come as an environment variable"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_bash(name: str) -> None:
    step = SCRIPTS[name]
    assert step["shell"] == "bash"
    subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


def test_the_command_line_has_every_option_that_the_audit_is_given() -> None:
    audit = typer.main.get_command(cli.app).commands["audit"]
    known = {flag for option in audit.params for flag in option.opts}
    assert set(re.findall(r"--[a-z][\w-]*", SCRIPTS["Audit"]["run"])) <= known


def test_what_is_installed_is_this_version_with_its_extras(runner: Runner) -> None:
    log = runner.stub("python")
    assert runner.run("Install mismatchscope", {"torch": "torch==2.11.0"}).returncode == 0
    assert log.read_text() == f"-m pip install --quiet torch==2.11.0 {ROOT}[torch,report]\n"


def test_environments_are_created_for_engines_that_need_one(runner: Runner) -> None:
    log = runner.stub("mismatchscope")
    inputs = {
        "behavior": "vllm==0.32.0:enforce_eager=true",
        "baseline": "vllm==0.27.1",
        "reference": "transformers",
    }
    assert runner.run("Create engine environments", inputs).returncode == 0
    assert log.read_text().splitlines() == ["env create vllm==0.32.0", "env create vllm==0.27.1"]


def test_a_server_or_an_interpreter_needs_no_environment(runner: Runner) -> None:
    log = runner.stub("mismatchscope")
    inputs = {"behavior": "vllm@http://127.0.0.1:8000", "reference": "sglang:python=/opt/venv/bin/python"}
    assert runner.run("Create engine environments", inputs).returncode == 0
    assert not log.exists()


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        ("token.tv.mean > 0.9\n\ncounts.rejected > 0\n", 0),
        ("token.tv.mean > 0.9\ntoken.tv.mean > 0.0001\n", 1),
        ("alpha1.tolerance.p999.value > 0.5\n", 4),
    ],
)
def test_the_exit_code_of_the_audit_is_that_of_the_step(runner: Runner, gates: str, code: int) -> None:
    done = runner.run("Audit", ENGINES | {"fail-on": gates})
    assert done.returncode == code, done.stderr
    assert runner.output.read_text() == f"exit-code={code}\n"
    assert runner.summary.read_text().count("<!-- mismatchscope report -->") == 1
    assert gates.split()[0] in runner.summary.read_text().replace("&#95;", "_")
    for name in ("report.json", "report.html", "report.md", "report.csv", "junit.xml", "logs"):
        assert (runner.directory / "run" / name).exists()


def test_an_inconclusive_gate_may_be_let_through(runner: Runner) -> None:
    undecided = {"fail-on": "alpha1.tolerance.p999.value > 0.5", "allow-inconclusive": "true"}
    done = runner.run("Audit", ENGINES | undecided)
    assert done.returncode == 0
    assert "::warning::" in done.stdout
    assert runner.output.read_text() == "exit-code=4\n"


def test_a_usage_error_is_2_and_leaves_no_report(runner: Runner) -> None:
    done = runner.run("Audit", ENGINES | {"fail-on": "token.tvv > 0.1", "allow-inconclusive": "true"})
    assert done.returncode == 2
    assert runner.summary.read_text() == ""


def test_an_engine_bump_from_gate_toml_and_a_baseline(runner: Runner) -> None:
    gates = (ROOT / "docs" / "gate.toml").read_text(encoding="utf-8")
    gates = gates.replace('# "baseline.tv_difference', '"baseline.tv_difference')
    (runner.directory / "gate.toml").write_text(gates, encoding="utf-8")
    bump = {"behavior": "synthetic:epsilon=0.05", "reference": "synthetic", "config": "gate.toml"}
    done = runner.run("Audit", ENGINES | bump | {"baseline": "synthetic:epsilon=0.001"})
    assert done.returncode == 1, done.stderr
    assert "WORSE" in done.stdout
    assert re.search(r"fail +baseline.tv_difference > 0.0005", done.stdout)
    assert "WORSE" in runner.summary.read_text()


def test_without_gates_the_summary_still_has_the_report(runner: Runner) -> None:
    assert runner.run("Audit", ENGINES).returncode == 0
    assert runner.summary.read_text().count("<!-- mismatchscope report -->") == 1


def test_values_are_never_run(runner: Runner) -> None:
    hostile = '$(touch owned) `touch owned` "; touch owned; "'
    done = runner.run("Audit", ENGINES | {"fail-on": hostile, "model": hostile, "output": "run"})
    assert done.returncode == 2
    assert not (runner.directory / "owned").exists()


def test_the_report_is_kept_whatever_happens() -> None:
    keep = ACTION["runs"]["steps"][-1]
    assert keep["if"] == "always()"
    kept = filled_in(keep["with"]["path"], {"output": "run"}).split()
    assert kept == ["run/report.*", "run/junit.xml", "run/logs/"]


def test_an_artifact_has_no_slash_in_its_name(runner: Runner) -> None:
    assert runner.run("Name the artifact", {"output": "build/audit"}).returncode == 0
    assert runner.output.read_text() == "name=build-audit\n"


def test_the_documented_workflow_reads_both_versions(tmp_path: Path) -> None:
    """Its script, on a merge commit as GitHub makes it for a pull request."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    pins = tmp_path / "requirements" / "rollout.txt"
    gates = tmp_path / "ci" / "gate.toml"
    for file in (pins, gates):
        file.parent.mkdir()
    git("init")
    for branch, version in (("main", "0.27.1"), ("bump", "0.32.0rc1")):
        git("checkout", "-b", branch)
        pins.write_text(f"torch\nvllm=={version} ; python_version > '3.9'  # $(reboot)\n")
        gates.write_text(f"# of {branch}\n")
        git("add", ".")
        git("commit", "-m", version)
    git("checkout", "main")
    git("merge", "--no-ff", "bump")

    _, read, audit = WORKFLOW["jobs"]["audit"]["steps"]
    output = tmp_path / "output"
    subprocess.run(
        ["bash", "-eo", "pipefail", "-c", read["run"]],
        cwd=tmp_path,
        env=os.environ | {"GITHUB_OUTPUT": str(output), "RUNNER_TEMP": str(tmp_path)},
        check=True,
    )
    assert output.read_text().split() == ["new=0.32.0rc1", "old=0.27.1"]
    assert (tmp_path / "gate.toml").read_text() == "# of main\n", "a pull request must not loosen its own gates"
    assert set(audit["with"]) <= set(ACTION["inputs"])
    assert audit["with"]["behavior"].startswith("vllm==${{ steps.vllm.outputs.new }}")
    assert audit["with"]["baseline"].startswith("vllm==${{ steps.vllm.outputs.old }}")


def test_the_step_in_the_guide_is_a_step() -> None:
    guide = (ROOT / "docs" / "guide" / "gate-ci.md").read_text(encoding="utf-8")
    [step] = yaml.safe_load(re.search(r"```yaml\n(.*?)```", guide, re.DOTALL)[1])
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert step["uses"] == WORKFLOW["jobs"]["audit"]["steps"][-1]["uses"]
