"""Facts about this machine and about every engine on it: for programs as a dictionary, for people as text."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .engines.registry import engine_class, engine_names
from .environments import describe
from .environments.console import show_environments
from .environments.recipes import RECIPES
from .environments.resolve import at_hand, import_failure, metadata_version
from .errors import SpecError, install_command
from .foreign_text import printable
from .machine import machine_facts, package_version

_PACKAGES = {"transformers": ("torch", "transformers")}
_INTERPRETERS = {"own": "in this interpreter", "environment": "in its newest environment"}


class _Choice(NamedTuple):
    """What a SPEC without a version runs: the kind of interpreter (`_INTERPRETERS`), its path, and why that one."""

    version: str | None = None
    interpreter: str | None = None
    executable: str | None = None
    reason: str | None = None
    why: str | None = None
    """Why it cannot run."""


def examine() -> dict[str, Any]:
    """Machine, packages, variables, engines and their environments, JSON-serialisable; None is unknown."""
    environments = describe()
    engines = [_engine_facts(name, environments) for name in engine_names()]
    return machine_facts() | {"engines": engines, "environments": environments}


def _engine_facts(name: str, environments: list[dict[str, Any]]) -> dict[str, Any]:
    """What an engine can see, whether it can run here and in which interpreter, and what to type if it cannot."""
    try:
        capabilities = engine_class(name).capabilities
    except (SpecError, ImportError) as error:
        return {"engine": name, "ready": False, "why": str(error)}
    choice = _choice(name, environments)
    return {
        "engine": name,
        "ready": choice.why is None,
        **choice._asdict(),
        "evidence": list(capabilities.evidence),
        "paths": list(capabilities.paths),
    }


def _choice(name: str, environments: list[dict[str, Any]]) -> _Choice:
    """As `environments.interpreter` chooses for a SPEC without a version, and whether that works."""
    if name not in RECIPES:
        missing = [package for package in _PACKAGES.get(name, ()) if package_version(package) is None]
        if missing:
            return _Choice(package_version(name), why=f"missing {', '.join(missing)}: {install_command('torch')}")
        return _Choice(package_version(name), "own", sys.executable, "it has no other")
    recipe = RECIPES[name]
    if installed := at_hand(recipe):
        chosen = _Choice(installed.version, "own", sys.executable, "it is installed in this interpreter")
        if failure := import_failure(recipe):
            return chosen._replace(why=f"it is in this interpreter, but {failure}; {name}:python=PATH runs another")
        return chosen
    beside = f"{name} is not installed in this interpreter"
    if version := metadata_version(recipe):
        beside = f"of {name} {version} this interpreter has the metadata alone, no module"
    newest = next((row for row in environments if row["name"] == name), None)
    if newest is None:
        return _Choice(why=f"{beside}, and there is no environment: mismatchscope env create {name}")
    why = newest["broken"] and f"{newest['broken']} next: {newest['hint']}"
    return _Choice(newest["version"], "environment", newest["interpreter"], beside, why)


def show_facts(facts: dict[str, Any], console: Console) -> None:
    """Print the facts of `examine`: machine, packages, engines with what they lack, environments."""
    machine = facts["machine"]
    memory = machine["memory_bytes"]
    gpus = [f"{gpu['name']}, {gpu['memory']}, driver {gpu['driver']}" for gpu in machine["gpus"]]
    rows = {
        "mismatchscope": facts["mismatchscope"],
        "python": f"{machine['python']}  {machine['executable']}",
        "platform": machine["platform"],
        "cpu": f"{machine['cpu'] or 'unknown'}, {machine['cores']} cores",
        "memory": f"{memory / 2**30:.1f} GiB" if memory else "unknown",
        "gpu": "; ".join(gpus) or "none",
    }
    _show_section(console, "machine", rows)
    _show_section(console, "packages", {name: version or "–" for name, version in facts["packages"].items()})
    _show_section(console, "variables that change the numbers", facts["variables"] or {"none": "set"})
    console.print()
    console.print(Text("engines", "bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    for engine in facts["engines"]:
        state = Text("ready", "green") if engine["ready"] else Text("not ready", "yellow")
        note = engine["why"]
        if engine["ready"]:
            seen = f"evidence {', '.join(engine['evidence'])}; scores {', '.join(engine['paths'])}"
            because = f" ({engine['reason']})" if engine["engine"] in RECIPES else ""
            note = f"{_INTERPRETERS[engine['interpreter']]}{because}; {seen}"
        cells = (printable(text) for text in (f"  {engine['engine']}", engine.get("version") or "–", note))
        name, version, note = map(Text, cells)
        table.add_row(name, version, state, note)
    console.print(table)
    console.print()
    console.print(Text("engine environments", "bold"))
    show_environments(facts["environments"], console)


def _show_section(console: Console, title: str, rows: dict[str, str]) -> None:
    console.print()
    console.print(Text(title, "bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(printable(f"  {name}"), "dim"), Text(printable(value)))
    console.print(table)
