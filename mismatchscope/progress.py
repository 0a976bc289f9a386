"""What the workers are doing, for a person who waits: bars on a terminal, one plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from .foreign_text import printable

PLAIN_INTERVAL_S = 5.0


class ProgressReporter:
    """Shows the events of an audit on `console` (stderr). Use it as a context manager and pass it as `on_event`.

    Steps that end within the interval leave one line in plain mode, longer ones a line every interval.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._view: _Bars | _Lines | None = None
        if not quiet:
            self._view = _Bars(console) if console.is_terminal else _Lines(console)

    def __enter__(self) -> ProgressReporter:
        if self._view is not None:
            self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        if self._view is not None:
            self._view.show(event)


class _Step:
    """One task as far as it has come."""

    def __init__(self, name: str, done: int, total: int) -> None:
        self.name, self.total = name, total
        self.done = self.resumed = done
        self.tokens = 0
        self.began = time.monotonic()

    def advance(self, event: dict[str, Any]) -> None:
        self.done = event["done"]
        self.tokens += event["tokens"]

    @property
    def rate(self) -> str:
        elapsed = time.monotonic() - self.began
        return f"{self.tokens / elapsed:,.0f} tokens/s" if self.tokens and elapsed > 0 else ""

    @property
    def left(self) -> str:
        made = self.done - self.resumed
        if not made or self.done >= self.total:
            return ""
        seconds = (time.monotonic() - self.began) / made * (self.total - self.done)
        return f"{seconds:,.0f} s left" if seconds < 120 else f"{seconds / 60:,.0f} min left"


class _Bars:
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
        )
        self._rows: dict[str, TaskID] = {}
        self._steps: dict[str, _Step] = {}

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, event: dict[str, Any]) -> None:
        side = printable(event.get("side", "engine"))
        match event["event"]:
            case "evidence" | "remade":
                self._progress.console.print(Text(printable(event["sentence"]), "dim"))
            case "loading":
                self._rows[side] = self._progress.add_task(f"{side}: loading the model", total=None, note="")
            case "waiting":
                self._set_note(side, f"nothing heard for {event['seconds']:.0f} s")
            case "ready":
                self._progress.remove_task(self._rows.pop(side))
            case "task":
                total, done = event["sequences_total"], event.get("done", 0)
                self._steps[event["name"]] = _Step(event["name"], done, total)
                name = printable(event["name"])
                row = self._progress.add_task(name, total=total, completed=done, note="")
                self._rows[event["name"]] = self._rows[side] = row
            case "sequence":
                step = self._steps[event["task"]]
                step.advance(event)
                note = "  ".join(filter(None, (step.rate, step.left)))
                self._progress.update(self._rows[event["task"]], completed=step.done, note=note)
            case "task_done":
                step = self._steps[event["task"]]
                self._progress.update(self._rows[event["task"]], completed=step.total, note=step.rate)
            case "measured":
                if "measured" not in self._rows:
                    self._rows["measured"] = self._progress.add_task("measuring", total=None, note="tokens")
                self._progress.advance(self._rows["measured"], event["rows"])

    def _set_note(self, side: str, note: str) -> None:
        if side in self._rows:
            self._progress.update(self._rows[side], note=note)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps: dict[str, _Step] = {}
        self._printed_at = time.monotonic()

    def start(self) -> None:
        self._printed_at = time.monotonic()

    def stop(self) -> None:
        return None

    def show(self, event: dict[str, Any]) -> None:
        side = event.get("side", "engine")
        match event["event"]:
            case "evidence" | "remade":
                self._print(event["sentence"])
            case "loading":
                self._print(f"{side}: loading the model")
            case "waiting":
                self._print(f"{side}: nothing heard for {event['seconds']:.0f} s, still running")
            case "ready":
                self._print(f"{side}: ready after {event['seconds']:.1f} s")
            case "task":
                step = _Step(event["name"], event.get("done", 0), event["sequences_total"])
                self._steps[step.name] = step
            case "sequence":
                step = self._steps[event["task"]]
                step.advance(event)
                if time.monotonic() - self._printed_at >= PLAIN_INTERVAL_S:
                    parts = (f"{step.name}: {step.done}/{step.total} sequences", step.rate, step.left)
                    self._print(", ".join(filter(None, parts)))
            case "task_done":
                step = self._steps[event["task"]]
                rate = f", {step.rate}" if step.rate else ""
                self._print(f"{step.name}: {step.total} sequences in {event['seconds']:.1f} s{rate}")

    def _print(self, line: str) -> None:
        self._console.print(Text(printable(line)), soft_wrap=True)
        self._printed_at = time.monotonic()
