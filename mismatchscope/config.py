"""What a user can ask for, checked; the command line, `--config run.toml` and `--set` end here."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .defaults import SETTINGS
from .errors import ConfigError
from .input_files import check_depth, read_text, reason
from .records import Policy, Sampling

TOPK_DEFAULT = 64

_CONFIG_BYTES = 2**20  # typed by a person

_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": (1024 if suffix == "ib" else 1000) ** power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix in ("b", "ib")
}

_SECONDS = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600}


def _setting(key: str, **constraints: Any) -> Any:
    """The field of a setting, with its default and its meaning."""
    return Field(SETTINGS[key].default, description=SETTINGS[key].meaning, **constraints)


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingSettings(Settings):
    """Of the behaviour policy."""

    samples: int = _setting("sampling.samples", ge=1)
    max_new_tokens: int = _setting("sampling.max_new_tokens", ge=1)
    temperature: float = _setting("sampling.temperature", ge=0.0)
    top_p: float = _setting("sampling.top_p", gt=0.0, le=1.0)
    top_k: int = _setting("sampling.top_k", ge=0)
    seed: int = _setting("sampling.seed", ge=0)

    def sampling(self) -> Sampling:
        return Sampling(**self.model_dump(exclude={"samples"}))


class GateSettings(Settings):
    """Checked when they are read: a typing error must not wait for the end of a long run."""

    fail_on: list[str] = _setting("gate.fail_on")

    @field_validator("fail_on")
    @classmethod
    def _expressions_are_gates(cls, value: list[str]) -> list[str]:
        from . import gate

        for expression in value:
            gate.parse(expression)
        return value


class ProbeSettings(Settings):
    """What a probe tries. `changes` are for `attribute` and `bisect`: each name stands for one option's value, or
    for a table of options that are changed together."""

    values: list[str] = _setting("probe.values")
    changes: dict[str, Any] = _setting("probe.changes")
    time: str | None = _setting("probe.time")

    @field_validator("time")
    @classmethod
    def _time_is_a_duration(cls, value: str | None) -> str | None:
        if value is not None:
            parse_duration(value)
        return value

    @field_validator("changes")
    @classmethod
    def _changes_are_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, change in value.items():
            if change == {} or not name.strip():
                raise ConfigError(f"The change '{name}' changes nothing.", hint='[probe.changes] attn = "eager"')
        return value

    @property
    def changed_options(self) -> dict[str, dict[str, str]]:
        """The options of each change, as a SPEC has them."""
        tables = {name: each if isinstance(each, dict) else {name: each} for name, each in self.changes.items()}
        return {name: {key: spec_text(value) for key, value in table.items()} for name, table in tables.items()}


class AuditSettings(Settings):
    """The whole of one audit or probe; `[sampling]`, `[probe]` and `[gate]` are tables, `behavior` and `reference`
    engine SPECs."""

    model: str = _setting("model")
    adapter: str | None = _setting("adapter")
    behavior: str = _setting("behavior")
    reference: str = _setting("reference")
    baseline: str | None = _setting("baseline")
    prompts: Path | None = _setting("prompts")
    prompt_column: str | None = _setting("prompt_column", min_length=1)
    limit: int | None = _setting("limit", ge=1)
    sampling: SamplingSettings = SamplingSettings()
    policy: Policy = _setting("policy")
    reference_temperature: float | None = _setting("reference_temperature", gt=0.0)
    evidence: str = _setting("evidence")
    budget: str = _setting("budget")
    repeats: bool = _setting("repeats")
    confidence: float = _setting("confidence", gt=0.5, lt=1.0)
    margin: float = _setting("margin", gt=0.0, le=10.0)
    max_rejected: float = _setting("max_rejected", ge=0.0, lt=1.0)
    tail: bool = _setting("tail")
    probe: ProbeSettings = ProbeSettings()
    gate: GateSettings = GateSettings()

    @field_validator("evidence")
    @classmethod
    def _evidence_is_known(cls, value: str) -> str:
        parse_evidence(value)
        return value

    @field_validator("behavior", "reference", "baseline")
    @classmethod
    def _spec_is_known(cls, value: str | None) -> str | None:
        from .engines.spec import check_spec

        # Before anything is written: run.json repeats a SPEC word by word.
        if value is not None:
            check_spec(value)
        return value

    @field_validator("budget")
    @classmethod
    def _budget_is_a_size(cls, value: str) -> str:
        parse_size(value)
        return value


def parse_size(text: str) -> int:
    """'1GiB', '500 MB' or a plain number of bytes, as bytes. Raises `ConfigError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise ConfigError(f"'{text}' is not a size.", hint="write 500MB, 1GiB or a number of bytes")
    size = float(match[1]) * _UNITS[match[2]]
    if not math.isfinite(size):
        raise ConfigError(
            f"'{text[:40]}…' is no size that anything has.", hint="write 500MB, 1GiB or a number of bytes"
        )
    return int(size)


def parse_duration(text: str) -> float:
    """'90', '90s', '1.5 min' or '2h', as seconds. Raises `ConfigError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _SECONDS or float(match[1]) == 0:
        raise ConfigError(f"'{text}' is not a time.", hint="write 90s, 10min or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def parse_evidence(text: str) -> tuple[Literal["auto", "full", "topk", "sampled"], float]:
    """The level and its argument: K of `topk:K`, the fraction of states of `full:FRACTION`, else 0 and 1."""
    level, _, argument = text.partition(":")
    try:
        if level == "topk":
            k = int(argument or TOPK_DEFAULT)
            if k >= 1:
                return "topk", k
        elif level == "full":
            fraction = float(argument or 1.0)
            if 0.0 < fraction <= 1.0:
                return "full", fraction
        elif level == "auto" and not argument:
            return "auto", 0
        elif level == "sampled" and not argument:
            return "sampled", 0
    except ValueError:
        pass
    raise ConfigError(
        f"'{text}' is not a kind of evidence.",
        hint="--evidence auto, full, full:0.1 (a tenth of the states), topk:64 or sampled",
    )


def load_settings(config: Path | None, overrides: dict[str, Any], assignments: list[str]) -> AuditSettings:
    """Defaults, then the TOML file, then command-line options, then `--set a.b=c`; each wins over the one before.

    `overrides` maps dotted keys to values; None means "not given". Raises `ConfigError` naming the key.
    """
    data: dict[str, Any] = _read_toml(config) if config is not None else {}
    for key, value in overrides.items():
        if value is not None and value != []:
            _assign(data, key, value)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment} has no '='.", hint="--set sampling.temperature=0.7")
        _assign(data, key.strip(), _toml_value(value.strip()))
    _check_characters(data)
    try:
        return AuditSettings.model_validate(data)
    except ValidationError as error:
        raise _config_error(error) from None


def _check_characters(value: Any, key: str = "") -> None:
    """Raise `ConfigError` for a text with a NUL in it: no path has one, and no program takes one as an argument."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        _check_characters(entry, f"{key}.{name}" if key else str(name))
    if isinstance(value, str | Path) and "\0" in str(value):
        raise ConfigError(f"The setting '{key}' has a NUL character in it.", hint="remove it")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        data = _parse_toml(read_text(path, _CONFIG_BYTES))
    except OSError as error:
        raise ConfigError(
            f"The configuration {path} cannot be read: {reason(error)}.", hint="check --config"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {reason(error)}.", hint="check --config") from None
    for side in ("behavior", "reference", "baseline"):
        if isinstance(data.get(side), dict):
            data[side] = _spec_from_table(data[side], f"{path}: [{side}]")
    return data


def _parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML document. Raises `ValueError` for what is none, or is nested without end."""
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    check_depth(data)
    return data


def _spec_from_table(table: dict[str, Any], where: str) -> str:
    """A `[behavior]` table {engine = "vllm==0.32.0", dtype = "bfloat16"} as the SPEC it stands for."""
    options = dict(table)
    engine = options.pop("engine", None)
    if not isinstance(engine, str):
        raise ConfigError(f"{where} needs the key engine.", hint='engine = "transformers"')
    pairs = [f"{key}={spec_text(value)}" for key, value in options.items()]
    return f"{engine}:{','.join(pairs)}" if pairs else engine


def spec_text(value: Any) -> str:
    """A value of TOML as a SPEC has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"'{key}' cannot be set: '{parent}' is a value, not a table.", hint="check --set")
    data[last] = value


def _toml_value(text: str) -> Any:
    try:
        return _parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text  # an unquoted word is a text


def _config_error(error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return ConfigError(
            f"{key} = {first['input']!r} is not valid: {first['msg']}.", hint="--help says what each option takes"
        )
    tables: dict[str, type[Settings]] = {
        "sampling": SamplingSettings,
        "probe": ProbeSettings,
        "gate": GateSettings,
    }
    parent, _, last = key.rpartition(".")
    known = tables.get(parent, AuditSettings).model_fields
    close = difflib.get_close_matches(last, known, n=1)
    prefix = f"{parent}." if parent else ""
    hint = f"did you mean {prefix}{close[0]}?" if close else f"the keys are {', '.join(known)}"
    return ConfigError(f"There is no setting '{key}'.", hint=hint)
