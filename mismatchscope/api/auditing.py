"""`ms.audit`: sample, score and compare."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ..config import load_settings
from ..durable import write_atomic
from ..records import Policy
from ..reports.document import Report
from ..temporary import temporary_directory
from .calls import NOT_SETTINGS, call_text, setting_key
from .given_prompts import Prompt, listed_prompts


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
        overrides = {setting_key(name): value for name, value in given.items() if name not in NOT_SETTINGS}
        overrides |= {"model": None if model is None else str(model), "adapter": adapter and str(adapter)}
        listed = None
        if prompts is not None and not isinstance(prompts, str | Path):
            listed = listed_prompts(prompts, overrides.pop("prompt_column"))
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
