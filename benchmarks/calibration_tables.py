"""How the results of the calibrations are written: the machine they ran on, and tables of their rows."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from scipy import __version__ as scipy_version


def made_by(program: str, seed: int, seconds: float) -> str:
    """When, where and with what a result was made."""
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy_version}"
    return (
        f"Made by `python benchmarks/{program}` on {date.today()}: seed {seed},\n"
        f"{seconds:.0f} s of one core of {processor()}; {versions}."
    )


def table(rows: Sequence[Any], columns: dict[str, str]) -> str:
    """Fields of the rows as a markdown table: field -> heading."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        return "–" if value is None else str(value)

    lines = ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(getattr(row, name)) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def write(directory: Path, name: str, document: str, seed: int, rows: Sequence[Any]) -> None:
    """The document as NAME.md and the rows as NAME.json."""
    print(document)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.md").write_text(document)
    record = {"seed": seed, "rows": [asdict(row) for row in rows]}
    (directory / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
