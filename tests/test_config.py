"""Settings: precedence, units, evidence under a budget, and messages that name the key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from mismatchscope.config import AuditSettings, Settings, load_settings, parse_evidence, parse_size
from mismatchscope.defaults import SETTINGS
from mismatchscope.errors import ConfigError


def test_later_sources_win(tmp_path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text('model = "from-file"\n[sampling]\ntemperature = 0.7\nseed = 1\ntop_k = 5\n')
    settings = load_settings(toml, {"sampling.seed": 2, "sampling.top_p": None}, ["sampling.top_k=7", "model=last"])
    assert (settings.model, settings.sampling.temperature) == ("last", 0.7)
    assert (settings.sampling.seed, settings.sampling.top_k, settings.sampling.top_p) == (2, 7, 1.0)


def fields(model: type[Settings], prefix: str = "") -> dict[str, FieldInfo]:
    """The fields of all settings by their dotted keys."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
        found |= fields(field.annotation, f"{name}.") if nested else {f"{prefix}{name}": field}
    return found


def test_what_is_checked_is_what_help_shows() -> None:
    checked = fields(AuditSettings)
    assert checked.keys() == SETTINGS.keys()
    for key, field in checked.items():
        setting = SETTINGS[key]
        assert field.annotation == (setting.kind | None if setting.default is None else setting.kind), key
        assert (field.default, field.description) == (setting.default, setting.meaning), key


def test_defaults_are_valid_settings() -> None:
    given = {key: setting.default for key, setting in SETTINGS.items()}
    assert load_settings(None, given, []) == load_settings(None, {}, []) == AuditSettings()


def test_engine_table_becomes_a_spec(tmp_path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text('[behavior]\nengine = "vllm==0.32.0"\ndtype = "bfloat16"\nenforce_eager = true\n')
    assert load_settings(toml, {}, []).behavior == "vllm==0.32.0:dtype=bfloat16,enforce_eager=true"


@pytest.mark.parametrize(
    ("assignment", "message", "hint"),
    [
        ("sampling.temprature=1", "sampling.temprature", "sampling.temperature"),
        ("modle=x", "modle", "model"),
        ("sampling.temperature=-1", "sampling.temperature", "--help"),
        ("sampling.samples=many", "sampling.samples", "--help"),
        ("evidence=topk:0", "topk:0", "topk:64"),
        ("budget=lots", "lots", "1GiB"),
        ("model.name=x", "model", "--set"),
        ("noequals", "no '='", "--set"),
        (r'prompts="a\u0000b"', "'prompts' has a NUL character", "remove it"),
        (r'gate.fail_on=["a\u0000b"]', r"'gate\.fail_on\.0' has a NUL character", "remove it"),
    ],
)
def test_bad_setting_is_named(assignment: str, message: str, hint: str) -> None:
    overrides = {"model": "a"} if assignment.startswith("model.") else {}
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(None, overrides, [assignment])
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", ["not toml", "[behavior]\ndtype = 'x'\n", b"\xff\xfe"])
def test_bad_file_is_named(tmp_path, content) -> None:
    toml = tmp_path / "run.toml"
    toml.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"run\.toml"):
        load_settings(toml, {}, [])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "absent.toml", {}, [])


@pytest.mark.parametrize(("text", "size"), [("1GiB", 2**30), ("500MB", 5 * 10**8), ("1.5 KiB", 1536), ("12", 12)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(text=st.text(max_size=8))
def test_any_evidence_text_is_understood_or_refused(text: str) -> None:
    try:
        level, _ = parse_evidence(text)
    except ConfigError:
        return
    assert level in ("auto", "full", "topk", "sampled")
