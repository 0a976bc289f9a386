"""`ms.audit`: sample, score and compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..config import SamplingSettings, load_settings
from ..durable import write_atomic
from ..errors import PromptsError
from ..prompts.rows import Prompt as CheckedPrompt
from ..prompts.rows import check_columns, prompt_of_row
from ..records import Policy
from ..reports.document import Report
from ..temporary import temporary_directory
from ..traces.arrays import numbers, token_ids
from .calls import NOT_SETTINGS, call_text

Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int] | np.ndarray | Mapping[str, Any]
"""A text, a chat (messages with `role` and `content`), token ids, or a row as a prompts file has it."""


def audit(
    *,
    model: str | Path | None = None,
    adapter: str | Path | None = None,
    behavior: str | None = None,
    reference: str | None = None,
    baseline: str | None = None,
    prompts: str | Path | Sequence[Prompt] | None = None,
    prompt_column: str | None = None,
    limit: int | None = None,
    samples: int | None = None,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    policy: Policy | None = None,
    reference_temperature: float | None = None,
    evidence: str | None = None,
    budget: str | None = None,
    repeats: bool | None = None,
    confidence: float | None = None,
    margin: float | None = None,
    max_rejected: float | None = None,
    tail: bool | None = None,
    fail_on: str | Sequence[str] = (),
    directory: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Report:
    """Sample from one engine, score the same tokens with another, and measure how far apart the two are.

    This is `mismatchscope audit`, and what is None has the default of its option. Without arguments it audits the
    embedded model: decoding in bfloat16 against the training forward.

    Args:
        model: a local directory, a hub id, "demo:dense" or "demo:moe".
        adapter: a PEFT adapter directory, of every side whose SPEC has no adapter=.
        behavior, reference, baseline: engine SPECs, as in "vllm==0.32.0:dtype=bfloat16".
        prompts: a .jsonl, .txt or .parquet file; or a list of texts, of chats, of token-id lists, or of rows as in
            {"messages": […], "tools": […]}.
        prompt_column: the key of a row that holds its prompt; other keys are then left unread.
        samples: responses a prompt.
        evidence: what is recorded of each state: "auto", "full", "full:0.1", "topk:64" or "sampled".
        fail_on: gates, as in "alpha1.mean.high > 0.02"; the report's `verdict` is theirs.
        directory: receives the traces, the engines' logs and report.json. It is new or empty, unless `resume` goes
            on with an interrupted audit. None stands for a temporary directory: only the report is kept.
        progress: show on stderr how far it has come.

    Raises:
        UsageError: a setting, SPEC, prompts file, model or directory that cannot be used.
        EngineError: an engine failed, or cannot see what was asked for.
        EnvironmentMissingError: an engine's version has not been installed.
    """
    fail_on = [fail_on] if isinstance(fail_on, str) else list(fail_on)
    given = dict(locals())
    from rich.console import Console

    from ..collection.output import output_directory
    from ..collection.run_files import PROMPTS
    from ..probes.audit import run_audit
    from ..progress import ProgressReporter

    with ExitStack() as stack:
        path = Path(directory or stack.enter_context(temporary_directory()))
        overrides = {_key(name): value for name, value in given.items() if name not in NOT_SETTINGS}
        overrides |= {"model": None if model is None else str(model), "adapter": adapter and str(adapter)}
        listed = None
        if prompts is not None and not isinstance(prompts, str | Path):
            listed = _listed_prompts(prompts, overrides.pop("prompt_column"))
            overrides["prompts"] = path / PROMPTS
        settings = load_settings(None, overrides, [])
        stack.enter_context(output_directory(path, resume=resume, hint="choose another directory"))
        report = run_audit(
            settings,
            path,
            prompts=listed,
            command=call_text("audit", given),
            on_event=stack.enter_context(ProgressReporter(Console(stderr=True), quiet=not progress)),
        )
        for file, text in report.files(path / "report.json").items():
            write_atomic(file, text.encode())
    return report


def _key(parameter: str) -> str:
    """The dotted key of the setting that a parameter of `audit` overrides."""
    if parameter in SamplingSettings.model_fields:
        return f"sampling.{parameter}"
    return "gate.fail_on" if parameter == "fail_on" else parameter


def _listed_prompts(prompts: Sequence[Prompt], column: str | None) -> list[CheckedPrompt]:
    """The prompts that a list stands for. Raises `PromptsError`, which names a prompt as `prompts[0]`."""
    if isinstance(prompts, Mapping) or not len(prompts):
        what = "one row, not a list of them" if isinstance(prompts, Mapping) else "empty"
        raise PromptsError(f"prompts is {what}.", hint="give a file, or a list of texts, chats or token-id lists")
    listed = []
    for index, prompt in enumerate(prompts):
        row, where = _row_of(prompt, f"prompts[{index}]"), f"prompts[{index}]"
        if isinstance(prompt, Mapping) and column is None:
            check_columns(row, where, "key")
        read = prompt_of_row(row, index, where, column if isinstance(prompt, Mapping) else None)
        listed.append(read)
    return listed


def _row_of(prompt: Prompt, where: str) -> dict[str, Any]:
    """A prompt as the row of a file."""
    if isinstance(prompt, str) or not hasattr(prompt, "__getitem__"):  # which is no prompt, and is refused as one
        return {"prompt": prompt}
    if isinstance(prompt, Mapping):
        return {str(key): _json_of(value) for key, value in prompt.items()}
    if len(prompt) and isinstance(prompt[0], Mapping):
        return {"messages": _json_of(prompt)}
    return {"prompt_token_ids": token_ids(numbers(prompt, where), where).tolist()}


def _json_of(value: Any) -> Any:
    """Mappings, sequences and arrays, such as a row of a pandas frame has them, as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _json_of(entry) for key, entry in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None  # what pandas has where a row has nothing
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        return [_json_of(entry) for entry in value]
    return value
