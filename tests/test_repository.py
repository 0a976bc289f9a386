"""What a repository promises beside its package, each held to its word: workflow, hooks, version, licence."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import mismatchscope

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

STEPS = [(job, step) for job, description in WORKFLOW["jobs"].items() for step in description["steps"]]


def recipe(target: str) -> str:
    """The commands of a target of the Makefile."""
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]


def test_the_workflow_runs_on_push_and_pull_request_with_least_rights() -> None:
    assert set(WORKFLOW[True]) == {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())
    for _, step in STEPS:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_every_supported_python_is_tested() -> None:
    tested = WORKFLOW["jobs"]["check"]["strategy"]["matrix"]["python"]
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    assert all(supported.contains(version) for version in tested)
    assert not supported.contains("3.10"), "the oldest one that is tested is the oldest one supported"
    named = {f"Programming Language :: Python :: {version}" for version in tested}
    assert named <= set(PROJECT["project"]["classifiers"])


def test_the_workflow_runs_commands_that_exist() -> None:
    run = {job: step["run"] for job, step in STEPS if "run" in step}
    assert run == {"check": "make check", "engines": ".ci/run"}
    assert recipe("check")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


@pytest.mark.parametrize("job", WORKFLOW["jobs"])
def test_a_job_keeps_pips_downloads_and_cannot_run_for_ever(job: str) -> None:
    assert WORKFLOW["jobs"][job]["timeout-minutes"] <= 120
    (setup,) = [step for name, step in STEPS if name == job and "setup-python" in step.get("uses", "")]
    assert setup["with"]["cache"] == "pip"
    assert (ROOT / setup["with"]["cache-dependency-path"]).is_file()


def test_the_hooks_are_checks_of_make_check_and_download_nothing() -> None:
    (local,) = HOOKS["repos"]
    assert local["repo"] == "local"
    programs = set()
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        program = hook["entry"].split(" --")[0]
        assert program.replace(".venv/bin", "$(BIN)") in recipe("check")
        programs.add(program.rpartition("/")[2])
    assert programs == {"ruff check", "ruff format", "mypy"}


def test_the_type_checker_ignores_nothing_wholesale() -> None:
    settings = PROJECT["tool"]["mypy"]
    assert settings["disallow_untyped_defs"] and settings["check_untyped_defs"] and settings["warn_unused_ignores"]
    for section in (settings, *settings["overrides"]):
        assert "ignore_errors" not in section
        assert not section.get("disable_error_code")
    for override in settings["overrides"]:
        assert not any(module.startswith(("mismatchscope", "*")) for module in override["module"])
    for path in (ROOT / "mismatchscope").rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            assert not re.search(r"#\s*(type:\s*ignore(?!\[)|mypy:)", line), f"{path.name}:{number}"


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "mismatchscope.__version__"}
    body = ast.parse((ROOT / "mismatchscope" / "__init__.py").read_text(encoding="utf-8")).body
    (value,) = [n.value for n in body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__version__"]
    assert ast.literal_eval(value) == mismatchscope.__version__, "a build reads it without running the package"


def test_the_changelog_has_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert mismatchscope.__version__ in versions


def test_every_requirement_has_both_bounds() -> None:
    project = PROJECT["project"]
    for text in [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]:
        requirement = Requirement(text)
        if requirement.name != project["name"]:
            assert {">=", "<"} <= {bound.operator for bound in requirement.specifier}, text


def test_the_licence_is_the_one_that_is_named() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    (file,) = PROJECT["project"]["license-files"]
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_nothing_large_and_nothing_built_is_tracked() -> None:
    """The largest files are the embedded models; a wheel or a cache in the history stays with every clone."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a clone")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert {path.name for path in paths if path.exists() and path.stat().st_size > 10 * 2**20} == set()
    assert not [path for path in paths if path.suffix in {".whl", ".pyc", ".so"} or ".mypy_cache" in path.parts]
