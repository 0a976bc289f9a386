"""What each prompt adds to the means of a report: a file beside `report.json`, by which two reports are paired.

`report.json` has its sums in `report.prompts.json`, and a copy under another name likewise. A prompt goes by a hash
of its token ids, so that no text is kept. A report without the file is compared as an independent sample.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ..errors import TraceError
from ..input_files import json_bytes

SCHEMA_VERSION = 1
SUMS_BYTES = 2**30  # of a million prompts


class FigureSums(BaseModel):
    """Of one figure: the sum and the number of its values by prompt, in the order of `PromptSums.prompts`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sums: list[float]
    counts: list[int]


class PromptSums(BaseModel):
    """`prompts` are hashes of the prompts' token ids, each once; `figures` go by their paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    prompts: list[str]
    figures: dict[str, FigureSums]

    def to_json(self) -> str:
        return self.model_dump_json() + "\n"


def report_file(path: Path) -> Path:
    """The report that is meant by itself or by its directory, whether or not it is there."""
    return path / "report.json" if os.path.isdir(path) else path  # of a name too long, pathlib's would raise


def sums_file(report_file: Path) -> Path:
    """Where the sums of a report are."""
    return report_file.with_suffix(".prompts.json")


def load_beside(report_file: Path) -> PromptSums | None:
    """The sums of a report; None where it has none. Raises `TraceError` for a file that is something else."""
    file = sums_file(report_file)
    try:
        return PromptSums.model_validate_json(json_bytes(file, SUMS_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TraceError(
            f"{file} does not hold the sums by prompt of a report.",
            hint="remove it: the report is then compared without pairing its prompts",
        ) from error
