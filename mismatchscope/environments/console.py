"""Environments on a terminal: how the making of one comes along, and the table of those that there are."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

from ..foreign_text import printable

PLAIN_INTERVAL_S = 10.0


class CreationProgress:
    """Shows the events of `create` on `console`: one moving line on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._status = Status("", console=console) if console.is_terminal and not quiet else None
        self._step = ""
        self._began = self._printed_at = time.monotonic()

    def __enter__(self) -> CreationProgress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "step":
                self._step = event["name"]
                self._print(self._step)
                self._show(self._step)
            case "alive":
                note = f"{self._step}, {event['seconds']:.0f} s, {event['lines']} lines"
                self._show(f"{note}: {event['line']}", note)
            case "locked":
                note = f"{event['holder']} is making it; waiting for {event['seconds']:.0f} s"
                self._show(note, note)

    def _show(self, line: str, note: str | None = None) -> None:
        """Replace the moving line; where there is none, print `note` now and then."""
        if self._status is not None:
            self._status.update(Text(printable(line), no_wrap=True, overflow="ellipsis"))
        elif note is not None and time.monotonic() - self._printed_at >= PLAIN_INTERVAL_S:
            self._print(note)

    def _print(self, line: str) -> None:
        if not self._quiet:
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            self._console.print(Text(f"{minutes}:{seconds:02} {printable(line)}"), soft_wrap=True)
        self._printed_at = time.monotonic()


def show_environments(rows: list[dict[str, Any]], console: Console) -> None:
    """Print what `describe` found: an environment and what it consists of, or what to do about a broken one."""
    if not rows:
        console.print(Text("  none: mismatchscope env create vllm (or sglang) makes one"), soft_wrap=True)
    width = max((len(printable(f"{row['name']}=={row['version']}")) for row in rows), default=0)
    for row in rows:
        title = Text(printable(f"  {row['name']}=={row['version']}").ljust(width + 4))
        if row["broken"]:
            lines = [
                title.append("broken", "red"),
                Text(printable(row["broken"])),
                Text(printable(f"next: {row['hint']}")),
            ]
        else:
            versions = ", ".join(f"{name} {row[name] or '–'}" for name in ("torch", "transformers", "device"))
            variables = " ".join(f"{name}={value}" for name, value in row["variables"].items())
            lines = [
                title.append("ready", "green").append(f"  {printable(versions)}"),
                Text(printable(row["interpreter"]), "dim"),
            ]
            lines += [Text(printable(f"variables {variables}"), "dim")] if variables else []
        for line in [lines[0], *(Text("    ").append_text(line) for line in lines[1:])]:
            console.print(line, soft_wrap=True)  # paths and commands stay whole, to be copied
