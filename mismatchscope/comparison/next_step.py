"""The run that would say more than this one: the same command with one thing changed."""

from __future__ import annotations

import shlex
from dataclasses import replace

from ..defaults import SETTINGS
from ..engines.spec import parse_spec
from ..reports.document import Finding
from ..reports.reading_fields import NextStep

# A new run has a directory of its own, and nothing to go on from.
_OF_ONE_RUN = {"-o": 1, "--output": 1, "--force": 0, "--resume": 0}
_AUDIT = ["mismatchscope", "audit"]
_CHECKPOINT = "CHECKPOINT"
_PAGE = "mismatchscope report DIR --format html"
_FLOAT32 = "in float32 rounding is some 10,000 times smaller: a gap that does not shrink is not rounding"


def next_step_of(
    finding: Finding,
    command: str,
    *,
    prompts: int,
    dtypes: tuple[str | None, str | None],
    evidence: str = "sampled",
    beyond_rounding: bool = False,
) -> NextStep:
    """What to run after this finding.

    `command` is what made the report: that of an audit is repeated with a change, of anything else the audit that
    would show it is named. `dtypes` are what the two sides compute in; `beyond_rounding` says that the gap is
    larger than rounding makes it.
    """
    if beyond_rounding and finding.code in ("no_floor", "unresolved", "above_floor"):
        return NextStep(
            command=_PAGE,
            why="rounding is no explanation of this size: the page lists all that is known to differ",
        )
    if finding.code == "no_floor":
        return NextStep(
            command=_audit(command, {"--repeats": None}),
            why="without a repeat of both sides nobody knows how much of this is noise",
        )
    if finding.code == "unresolved" and finding.margin is None and evidence == "full":
        return NextStep(
            command=_audit(command, {"--repeats": None}),
            why="a repeat can be held against this only where both have the same tokens, whole and none rejected",
        )
    if finding.code == "unresolved" and finding.margin is None:
        return NextStep(
            command=_audit(command, {"--evidence": "full"}),
            why="whole distributions at every state can be held against a repeat, whoever drew the tokens",
        )
    if finding.code == "unresolved":
        return NextStep(
            command=_audit(command, {"--limit": str(_more(finding, prompts))}),
            why="so many prompts would likely show the gap to be above the floor, or within a margin of it"
            if finding.prompts_needed is not None
            else "more prompts make the interval shorter; how many would decide cannot be told",
        )
    if finding.code == "above_floor" and dtypes == ("float32", "float32"):
        return NextStep(
            command=_PAGE,
            why="both sides compute in float32 already: the page lists all that is known to differ",
        )
    if finding.code == "above_floor":
        changes = _in_float32(command)
        if not changes:
            return NextStep(command=_audit(command, {}), why=f"start both servers in float32 first: {_FLOAT32}")
        served = "start the server in float32 too: " if len(changes) == 1 else ""
        return NextStep(command=_audit(command, changes), why=f"{served}{_FLOAT32}")
    return NextStep(
        command=_audit(command, {"--model": _CHECKPOINT}),
        why="before the first update a fault of synchronisation cannot be seen: repeat this on later checkpoints",
    )


def _more(finding: Finding, prompts: int) -> int:
    """As many prompts as would likely decide, where the finding knows; else four times as many."""
    return finding.prompts_needed or 4 * prompts


def _audit(command: str, changes: dict[str, str | None]) -> str:
    """The audit with these options in place of its own; those of another verb are left open."""
    words = shlex.split(command)
    if words[:2] != _AUDIT:
        words = [*_AUDIT, "…"]
    kept, skip = [], 0
    for word in words:
        name, equals, _ = word.partition("=")
        if skip:
            skip -= 1
        elif name in _OF_ONE_RUN or name in changes:
            takes = 1 if name in changes and changes[name] is not None else _OF_ONE_RUN.get(name, 0)
            skip = 0 if equals else takes
        elif name not in ("--no-repeats", *(f"--no-{option.removeprefix('--')}" for option in changes)):
            kept.append(word)
    changed = [part for name, value in changes.items() for part in (name, value) if part is not None]
    return shlex.join(kept + changed).replace("'…'", "…")


def _in_float32(command: str) -> dict[str, str | None]:
    """Both sides of an audit in float32; a server computes in what it was started with."""
    words = shlex.split(command)
    changes: dict[str, str | None] = {}
    for side in ("behavior", "reference"):
        if words[:2] != _AUDIT or any(_option(words, name) is not None for name in ("--config", "--set")):
            changes[f"--{side}"] = "SPEC:dtype=float32"  # what it is, the command does not say
            continue
        spec = parse_spec(_option(words, f"--{side}") or str(SETTINGS[side].default))
        if not spec.served:
            changes[f"--{side}"] = str(replace(spec, options=spec.options | {"dtype": "float32"}))
    return changes


def _option(words: list[str], name: str) -> str | None:
    for at, word in enumerate(words):
        if word == name:
            return words[at + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None
