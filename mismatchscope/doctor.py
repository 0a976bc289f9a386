"""Facts about this machine and about every engine on it: for programs as a dictionary, for people as text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .engines.registry import engine_class, engine_names
from .environments import describe
from .environments.console import show_environments
from .environments.recipes import RECIPES
from .environments.resolve import at_hand
from .errors import SpecError, install_command
from .machine import machine_facts, package_version

_PACKAGES = {"transformers": ("torch", "transformers")}
_INTERPRETERS = {"own": "in this interpreter", "environment": "in its newest environment"}


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
    version, interpreter, why = _installation(name, environments)
    return {
        "engine": name,
        "ready": why is None,
        "why": why,
        "version": version,
        "interpreter": interpreter,
        "evidence": list(capabilities.evidence),
        "paths": list(capabilities.paths),
    }


def _installation(name: str, environments: list[dict[str, Any]]) -> tuple[str | None, str | None, str | None]:
    """What a SPEC without a version runs, in which kind of interpreter (`_INTERPRETERS`), and why it cannot."""
    if name in RECIPES:
        if installed := at_hand(RECIPES[name]):
            return installed.version, "own", None
        if versions := [row["version"] for row in environments if row["name"] == name and row["broken"] is None]:
            return versions[0], "environment", None
        return None, None, f"not installed here, and no environment: mismatchscope env create {name}"
    if missing := [package for package in _PACKAGES.get(name, ()) if package_version(package) is None]:
        return package_version(name), None, f"missing {', '.join(missing)}: {install_command('torch')}"
    return package_version(name), "own", None


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
            note = f"{_INTERPRETERS[engine['interpreter']]}; {seen}"
        table.add_row(Text(f"  {engine['engine']}"), engine.get("version") or "–", state, Text(note))
    console.print(table)
    console.print()
    console.print(Text("engine environments", "bold"))
    show_environments(facts["environments"], console)


def _show_section(console: Console, title: str, rows: dict[str, str]) -> None:
    console.print()
    console.print(Text(title, "bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(f"  {name}", "dim"), Text(value))
    console.print(table)
