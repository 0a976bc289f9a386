"""`ms.probe`: change one thing at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..config import load_settings
from ..durable import write_atomic
from ..reports.document import Report
from ..temporary import temporary_directory
from .calls import NOT_SETTINGS, call_text, setting_key
from .given_prompts import Prompt, listed_prompts


def probe(
    name: str,
    *,
    values: str | Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    time: str | None = None,
    model: str | Path | None = None,
    adapter: str | Path | None = None,
    behavior: str | None = None,
    reference: str | None = None,
    prompts: str | Path | Sequence[Prompt] | None = None,
    prompt_column: str | None = None,
    limit: int | None = None,
    samples: int | None = None,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    reference_temperature: float | None = None,
    evidence: str | None = None,
    budget: str | None = None,
    confidence: float | None = None,
    max_rejected: float | None = None,
    tail: bool | None = None,
    fail_on: str | Sequence[str] = (),
    runs: str | Path | None = None,
    directory: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Report:
    """Compute the same tokens under one setting after another, and hold the results together.

    This is `mismatchscope probe`, and what is None has the default of its option. The report's `probe` has every
    cell, the effects and the conclusions; all else in it is of the pair that `probe.pair_shown` names.

    Args:
        name: "repeat", "batch", "path", "version", "dtype", "kernel", "length", "attribute", "bisect", "context" or
            that of an installed probe. `weights` has a report of its own, and the command line alone.
        values: what to try, by default the probe's own: "2,8,32", or ["attn=eager", "compile=true"].
        changes: for "attribute" and "bisect", settings by name: {"precision": {"dtype": "float32"}}.
        time: what is estimated to take longer is refused: "20min".
        model, adapter, behavior, reference, prompts, samples, evidence, fail_on: as of `audit`.
        runs: a directory of traces that probes share, so that none is made twice.
        directory: receives the traces, the engines' logs and report.json. It is new or empty, unless `resume` goes
            on with an interrupted probe. None stands for a temporary directory: only the report is kept.
        progress: show on stderr how far it has come.

    Raises:
        UsageError: a probe, value, setting, SPEC, prompts file, model or directory that cannot be used.
        EngineError: an engine failed before any two settings could be compared.
        EnvironmentMissingError: the version of the behaviour's engine has not been installed.
    """
    values = [values] if isinstance(values, str) else list(values)
    fail_on = [fail_on] if isinstance(fail_on, str) else list(fail_on)
    changes = None if changes is None else dict(changes)
    given = dict(locals())
    from rich.console import Console

    from ..collection.output import output_directory
    from ..collection.run_files import PROMPTS
    from ..probes.run_probe import plan_probe, run_probe
    from ..progress import ProgressReporter
    from ..prompts.files import write_prompts

    with ExitStack() as stack:
        path = Path(directory or stack.enter_context(temporary_directory()))
        overrides = {setting_key(key): value for key, value in given.items() if key not in NOT_SETTINGS}
        overrides |= {"model": None if model is None else str(model), "adapter": adapter and str(adapter)}
        listed = None
        if prompts is not None and not isinstance(prompts, str | Path):
            listed = listed_prompts(prompts, overrides.pop("prompt_column"))
            overrides["prompts"] = path / PROMPTS
        settings = load_settings(None, overrides, [])
        stack.enter_context(output_directory(path, resume=resume, hint="choose another directory"))
        if listed is not None:
            write_prompts(path / PROMPTS, listed)
        report = run_probe(
            plan_probe(name, settings),
            settings,
            path,
            store=None if runs is None else Path(runs),
            command=call_text("probe", given),
            on_event=stack.enter_context(ProgressReporter(Console(stderr=True), quiet=not progress)),
        )
        for file, text in report.files(path / "report.json").items():
            write_atomic(file, text.encode())
    return report
