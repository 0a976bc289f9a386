"""The engines by name, imported when one is used.

To add an engine, write one file with a subclass of `base.Engine` and add one line here. It must import without
torch and without the engine's own package: those belong into its methods, which run in the worker alone. A package
of yours adds one without touching this file, through the entry-point group `mismatchscope.engines`.

A name with a URL stands for a server that is already running, which is another class: `SERVERS` has those.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points

from ..errors import SpecError
from .base import Engine

ENTRY_POINT_GROUP = "mismatchscope.engines"

ENGINES: dict[str, str] = {
    "transformers": "mismatchscope.engines.transformers.engine:TransformersEngine",
    "vllm": "mismatchscope.engines.vllm.engine:VllmEngine",
    "sglang": "mismatchscope.engines.sglang.engine:SglangEngine",
    "synthetic": "mismatchscope.engines.synthetic.engine:SyntheticEngine",
}

SERVERS: dict[str, str] = {
    "vllm": "mismatchscope.engines.server.vllm:VllmServer",
    "sglang": "mismatchscope.engines.server.sglang:SglangServer",
    "openai": "mismatchscope.engines.server.openai:OpenAIServer",
}


def engine_names() -> list[str]:
    """Every name that a SPEC may begin with, ours first."""
    return list(ENGINES | _installed())


def engine_path(name: str, *, served: bool = False) -> str:
    """`module:Class` of an engine, or of its server (`served`); `SpecError` for a name nobody registered."""
    path = (SERVERS.get(name) if served else None) or ENGINES.get(name) or _installed().get(name)
    if path is None and name in SERVERS:
        raise SpecError(f"The engine {name} needs the URL of a server.", hint=f"{name}@http://127.0.0.1:8000")
    if path is None:
        names = list(dict.fromkeys([*engine_names(), *SERVERS]))
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the engines are {', '.join(names)}"
        raise SpecError(f"There is no engine '{name}'.", hint=hint)
    return path


def engine_class(name: str, *, served: bool = False) -> type[Engine]:
    """The class of an engine, or of its server (`served`); `SpecError` for a name nobody registered."""
    return load_class(engine_path(name, served=served))


def load_class(path: str) -> type[Engine]:
    """Import `module:Class`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _installed() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
