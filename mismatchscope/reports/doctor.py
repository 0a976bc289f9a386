"""What `doctor` found, on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..environments.console import show_environments


def show_facts(facts: dict[str, Any], console: Console) -> None:
    """Print the facts of `doctor.examine`: machine, packages, engines with what they lack, environments."""
    machine = facts["machine"]
    memory = machine["memory_bytes"]
    rows = {
        "mismatchscope": facts["mismatchscope"],
        "python": f"{machine['python']}  {machine['executable']}",
        "platform": machine["platform"],
        "cpu": f"{machine['cpu'] or 'unknown'}, {machine['cores']} cores",
        "memory": f"{memory / 2**30:.1f} GiB" if memory else "unknown",
        "gpu": "; ".join(f"{gpu['name']}, {gpu['memory']}, driver {gpu['driver']}" for gpu in machine["gpus"])
        or "none",
    }
    _section(console, "machine", rows)
    _section(console, "packages", {name: version or "–" for name, version in facts["packages"].items()})
    _section(console, "variables that change the numbers", facts["variables"] or {"none": "set"})
    console.print()
    console.print(Text("engines", "bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    for engine in facts["engines"]:
        mark = Text("ready", "green") if engine["ready"] else Text("not ready", "yellow")
        about = (
            f"evidence {', '.join(engine['evidence'])}; scores {', '.join(engine['paths'])}"
            if engine["ready"]
            else engine["why"]
        )
        table.add_row(Text(f"  {engine['engine']}"), engine.get("version") or "–", mark, Text(about))
    console.print(table)
    console.print()
    console.print(Text("engine environments", "bold"))
    show_environments(facts["environments"], console)


def _section(console: Console, title: str, rows: dict[str, str]) -> None:
    console.print()
    console.print(Text(title, "bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(f"  {name}", "dim"), Text(value))
    console.print(table)
