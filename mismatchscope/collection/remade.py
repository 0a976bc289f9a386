"""What an interrupted run left behind that cannot be used is made again, and a person is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def note_remade(why: str, log_path: Path, on_event: Callable[[dict[str, Any]], None]) -> None:
    """Say in the log and as an event {"event": "remade", "sentence"} what is made again; `why` names the file."""
    sentence = f"{why}: it is made again."
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, "a", encoding="utf-8") as log:
        log.write(f"mismatchscope: {sentence}\n")
    on_event({"event": "remade", "sentence": sentence})
