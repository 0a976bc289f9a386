"""The options that several verbs take, each once, and the settings they stand for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..reports.formats import FORMATS

Format = StrEnum("Format", {name: name for name in FORMATS})


class PolicyChoice(StrEnum):
    raw = "raw"
    processed = "processed"
    support = "support"


class RoleChoice(StrEnum):
    reference = "reference"
    target = "target"
    behavior = "behavior"


class PathChoice(StrEnum):
    prefill = "prefill"
    decode = "decode"


Model = Annotated[str | None, typer.Option(help="Local directory, hub id, demo:dense or demo:moe.  [demo:dense]")]
PromptsFile = Annotated[Path | None, typer.Option("--prompts", help=".jsonl, .txt or .parquet.  [embedded]")]
Limit = Annotated[int | None, typer.Option(help="Use the first N prompts.")]
Samples = Annotated[int | None, typer.Option(help="Responses a prompt.  [2]")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Tokens a response.  [96]")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.  [1.0]")]
TopP = Annotated[float | None, typer.Option("--top-p", help="Nucleus mass.  [1.0]")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Kept ids, 0 for all.  [0]")]
Seed = Annotated[int | None, typer.Option(help="Of the samples.  [0]")]
EvidenceOption = Annotated[
    str | None, typer.Option("--evidence", help="auto, full, full:FRACTION, topk:K or sampled.  [auto]")
]
Budget = Annotated[str | None, typer.Option(help="Bytes of distributions that may be stored.  [1GiB]")]
Confidence = Annotated[float | None, typer.Option(help="Of every interval.  [0.95]")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Directory to write.")]
RequiredOutput = Annotated[Path, typer.Option("--output", "-o", help="Directory to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file with the same settings.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="Override one setting: a.b=c.")]
FailOn = Annotated[list[str] | None, typer.Option("--fail-on", help="Gate, as in 'token.tv.p99 > 0.05'.")]
Tail = Annotated[bool, typer.Option("--tail", help="Add a model-based extrapolation of the TV tail.")]
TailSetting = Annotated[bool | None, typer.Option("--tail", help="Add a model-based extrapolation of the TV tail.")]
Policy = Annotated[PolicyChoice | None, typer.Option("--policy", help="Which μ to measure.  [processed]")]

_SAMPLING = ("samples", "max_new_tokens", "temperature", "top_p", "top_k", "seed")
_KEYS = {name: f"sampling.{name}" for name in _SAMPLING} | {"engine": "behavior", "fail_on": "gate.fail_on"}
_NOT_SETTINGS = ("config", "assignments", "output", "force", "resume")


def settings_of(given: dict[str, Any]) -> dict[str, Any]:
    """A verb's parameters by the dotted keys of the settings they override; None is "not given"."""
    plain = {name: str(value) if isinstance(value, Path | StrEnum) else value for name, value in given.items()}
    return {_KEYS.get(name, name): value for name, value in plain.items() if name not in _NOT_SETTINGS}
