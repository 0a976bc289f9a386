"""Runs of the toy engine through a collector, and what they leave on the disk."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from trace_contents import files

from mismatchscope.collection.collector import Collector
from mismatchscope.collection.passes import Pass
from mismatchscope.composition import BatchComposition
from mismatchscope.engines.spec import parse_spec
from mismatchscope.prompts.rows import Prompt
from mismatchscope.records import Evidence, Sampling

PROMPTS = [Prompt(i, f"a secret prompt {i}") for i in range(4)]
SAMPLED = Evidence("sampled")
SPEC = "toy:size=4"


def passes(directory: Path) -> list[Pass]:
    """A rollout, and a score of its tokens in the same start of the engine."""
    rollout = Pass(directory / "first", "behavior", SAMPLED, "processed", Sampling(max_new_tokens=2))
    shuffled = BatchComposition(shuffle_seed=3)
    again = replace(rollout, trace=directory / "again", source=rollout.trace, composition=shuffled)
    return [rollout, again]


def collect(
    directory: Path,
    spec: str = SPEC,
    *,
    model: str = "m",
    prompts: list[Prompt] = PROMPTS,
    samples: int = 2,
    planned: list[Pass] | None = None,
    kill_in: str | None = None,
    sentences: list[str] | None = None,
) -> list[str]:
    """The kinds of the events of a run; `kill_in` names the trace whose third sequence ends the worker.

    `sentences` receives what is said to be made again.
    """
    kinds: list[str] = []
    pid = 0

    def on_event(event: dict[str, Any]) -> None:
        nonlocal pid
        kinds.append(event["event"])
        pid = event.get("pid", pid)
        if event["event"] == "remade" and sentences is not None:
            sentences.append(event["sentence"])
        if event["event"] == "sequence" and event["task"] == kill_in and event["done"] == 3:
            os.kill(pid, signal.SIGKILL)

    collector = Collector(model, prompts, samples)
    run = planned if planned is not None else passes(directory)
    collector.collect(parse_spec(spec), run, log_path=directory / "log", on_event=on_event)
    return kinds


def contents(directory: Path) -> dict[str, bytes]:
    """All bytes of the traces, less the time at which each was begun."""
    found = files(directory)
    found.pop("log")
    for name in [name for name in found if name.endswith("manifest.json")]:
        content = json.loads(found[name])
        found[name] = json.dumps(content | {"created": None}).encode()
    return found
