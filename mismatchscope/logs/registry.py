"""The log formats by name, imported when logs are looked for.

To add a format, write one file with a `FORMAT`, a `source.LogFormat`, and add one line here: name and module. A
package of yours adds one without touching this file, through the entry-point group `mismatchscope.log_formats`,
whose values are modules too. Detection asks them in this order.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points

from ..errors import UsageError
from .source import LogFormat

ENTRY_POINT_GROUP = "mismatchscope.log_formats"

FORMATS: dict[str, str] = {
    "recorder": "mismatchscope.logs.formats.recorder",
    "nemo-rl": "mismatchscope.logs.formats.nemo_rl",
    "prime-rl": "mismatchscope.logs.formats.prime_rl",
    "miles": "mismatchscope.logs.formats.miles",
    "slime": "mismatchscope.logs.formats.slime",
    "skyrl": "mismatchscope.logs.formats.skyrl",
    "llama-cpp": "mismatchscope.logs.formats.llama_cpp",
    "generic": "mismatchscope.logs.formats.generic",
}


def format_names() -> list[str]:
    """Every format's name, ours first."""
    return list(_modules())


def log_formats() -> list[LogFormat]:
    """Every format, in the order in which detection asks them."""
    return [_load(module) for module in _modules().values()]


def log_format(name: str) -> LogFormat:
    """The format of a name; `UsageError` for a name that nobody registered."""
    module = _modules().get(name)
    if module is None:
        names = format_names()
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the formats are {', '.join(names)}"
        raise UsageError(f"There is no log format '{name}'.", hint=hint)
    return _load(module)


def _load(module: str) -> LogFormat:
    found: LogFormat = importlib.import_module(module).FORMAT
    return found


def _modules() -> dict[str, str]:
    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return FORMATS | {name: module for name, module in installed.items() if name not in FORMATS}
