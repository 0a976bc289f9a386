"""Engine SPECs: `NAME[==VERSION][@URL][:key=value,…]`, as a person types them.

    transformers:dtype=float32,attn=eager      vllm==0.32.0:enforce_eager=true
    vllm@http://127.0.0.1:8000                 vllm:python=/path/to/venv/bin/python

The options begin at the first colon that a `key=` follows, so a URL keeps its port. A value may hold any character;
a comma inside brackets belongs to the value (`buckets=[1,2,4]`), any other comma begins the next option. `python`
is no option of an engine: it names the interpreter that the engine runs in.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from dataclasses import dataclass, field, replace
from typing import Any

from ..credentials import find_credential
from ..errors import SpecError
from .base import Options
from .registry import engine_class

EXAMPLE = "a SPEC looks like transformers:dtype=float32,attn=eager"

_HEAD = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z0-9_.-]*)(?:==(?P<version>[A-Za-z0-9_.+!-]+))?(?:@(?P<url>.+))?", re.DOTALL
)
_KEY = r"[A-Za-z_][A-Za-z0-9_]*"
_OPTIONS_BEGIN = re.compile(rf":(?={_KEY}\s*=)")
_OPTION = re.compile(rf"\s*(?P<key>{_KEY})\s*=(?P<value>.*)", re.DOTALL)
_CLOSING = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True)
class EngineSpec:
    """Which engine, and how. `options` are the texts as typed; `resolve_options` gives them their types."""

    name: str
    version: str | None = None
    url: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    python: str | None = None

    @property
    def served(self) -> bool:
        """Whether it is a server that is already running."""
        return self.url is not None

    def __str__(self) -> str:
        head = self.name + (f"=={self.version}" if self.version else "") + (f"@{self.url}" if self.url else "")
        python = {"python": self.python} if self.python is not None else {}
        pairs = [f"{key}={value}" for key, value in (self.options | python).items()]
        return f"{head}:{','.join(pairs)}" if pairs else head


def parse_spec(text: str) -> EngineSpec:
    """Read a SPEC. Raises `SpecError`; that the name and the keys exist is for `resolve_options` to say."""
    begin = _OPTIONS_BEGIN.search(text)
    head, tail = (text[: begin.start()], text[begin.end() :]) if begin else (text, None)
    match = _HEAD.fullmatch(head.strip())
    if match is None:
        colon = head.partition(":")[2]
        hint = f"options are key=value, '{colon}' is not" if colon else EXAMPLE
        raise SpecError(f"'{text}' is not an engine SPEC.", hint=hint)
    url = match["url"]
    if url is not None and not re.match(r"https?://[^/\s]", url):
        raise SpecError(f"'{url}' is not the URL of a server.", hint=f"{match['name']}@http://127.0.0.1:8000")
    options: dict[str, str] = {}
    for part in split_outside_brackets(tail) if tail is not None else ():
        option = _OPTION.fullmatch(part)
        if option is None:
            raise SpecError(
                f"'{part}' in the SPEC '{text}' is not key=value.", hint="put a list in brackets: key=[a,b]"
            )
        key = option["key"]
        if key in options:
            raise SpecError(f"The SPEC '{text}' sets {key} twice.", hint=f"keep one {key}=")
        options[key] = option["value"]
    python = options.pop("python", None)
    if python == "":
        raise SpecError(f"The SPEC '{text}' names no interpreter.", hint="python=/path/to/venv/bin/python")
    return EngineSpec(match["name"], match["version"], url, options, python)


def resolve_options(spec: EngineSpec) -> Options:
    """The engine's options with their types and defaults, `spec.url` among them where the engine has one.

    Where the engine takes keys that are no field, they go into `Options.others`: as the number, boolean, list or
    table that JSON reads, else as text. Raises `SpecError` for an unknown engine, an unknown key, a value of the
    wrong kind and, without repeating it, for a credential.
    """
    from pydantic import TypeAdapter, ValidationError

    options_type = engine_class(spec.name, served=spec.served).options_type
    for key, text in spec.options.items():
        if (where := find_credential(_infer_value(text), key)) is not None:
            raise SpecError(
                f"{spec.name}: {where} is a secret, which would be written into traces and reports.",
                hint="give it to the engine as an environment variable, as in export HF_TOKEN=…",
            )
    keys, hints = options_type.keys(), typing.get_type_hints(options_type)
    others = {key: _infer_value(text) for key, text in spec.options.items() if key not in keys}
    for key in others:
        if options_type.others is None:
            close = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {close[0]}?" if close else f"its keys are {', '.join(keys) or 'none'}"
            raise SpecError(f"The engine {spec.name} has no option '{key}'.", hint=hint)
    values: dict[str, Any] = {
        key: _parse_value(text, hints[key]) for key, text in spec.options.items() if key in keys
    }
    if spec.served:
        if "url" not in keys:
            raise SpecError(
                f"The engine {spec.name} runs in a process of its own and has no URL.", hint=f"write {spec.name}"
            )
        values["url"] = spec.url
    try:
        options = TypeAdapter(options_type).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        message = f"{spec.name}: {key}={first['input']} is not valid: {first['msg']}."
        raise SpecError(message, hint=_did_you_mean(str(first["input"]), hints.get(key))) from None
    if options_type.others is None:
        return options
    others = (getattr(options, options_type.others) or {}) | others
    return replace(options, **{options_type.others: others or None})


def with_adapter(spec: EngineSpec, adapter: str | None) -> EngineSpec:
    """The SPEC with a run's adapter in it, unless it has one. Raises `SpecError` for an engine that takes none."""
    if adapter is None or "adapter" in spec.options:
        return spec
    if "adapter" not in engine_class(spec.name, served=spec.served).options_type.keys():  # noqa: SIM118 - not a mapping
        if spec.served:
            message = f"The server {spec.url} is running already, so --adapter cannot give it an adapter."
            hint = "name the adapter that it serves with model=, and put adapter=PATH into the other side's SPEC"
            raise SpecError(message, hint=hint)
        raise SpecError(
            f"The engine {spec.name} runs no adapters.", hint="adapter=PATH in the SPEC of the side that does"
        )
    return replace(spec, options=spec.options | {"adapter": adapter})


def check_spec(text: str) -> None:
    """Raise `SpecError` for a SPEC that stands for no engine or has options that it does not know."""
    resolve_options(parse_spec(text))


def split_outside_brackets(text: str, separator: str = ",") -> list[str]:
    """Split at the separators outside brackets. Raises `SpecError` for a bracket that nothing closes."""
    parts, start, expected = [], 0, []
    for index, character in enumerate(text):
        if character in _CLOSING:
            expected.append(_CLOSING[character])
        elif expected and character == expected[-1]:
            expected.pop()
        elif character == separator and not expected:
            parts.append(text[start:index])
            start = index + 1
    if expected:
        raise SpecError(f"'{text}' lacks a closing '{expected[-1]}'.", hint="put a list in brackets: key=[a,b]")
    return [*parts, text[start:]]


def _parse_value(text: str, hint: Any) -> Any:
    """What pydantic does not read from a text by itself: `none`, and lists or tables in brackets."""
    if text.lower() in ("none", "null") and type(None) in typing.get_args(hint):
        return None
    alternatives = [hint] if not isinstance(hint, types.UnionType) else list(typing.get_args(hint))
    if text[:1] in ("[", "{") and str not in alternatives:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return [word.strip() for word in text.strip("[]").split(",") if word.strip()]
    return text


def _infer_value(text: str) -> Any:
    """The value that a text without a declared type stands for: JSON, `none`, or the text itself."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false", "null") else text)
    except json.JSONDecodeError:
        return None if text.lower() == "none" else text


def _did_you_mean(text: str, hint: Any) -> str | None:
    choices = [str(choice) for choice in typing.get_args(hint) if isinstance(choice, (str, int))]
    close = difflib.get_close_matches(text, choices, n=1)
    return f"did you mean {close[0]}?" if close else None
