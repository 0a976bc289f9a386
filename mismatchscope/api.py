"""The public functions that measure and read; `import mismatchscope as ms` shows them.

Each raises the exceptions of `errors` and no other on purpose: `message` says what happened and why, `hint` what to
do next. Defaults are those of the command line; they stand in `defaults`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import SamplingSettings, load_settings
from .durable import write_atomic
from .errors import PromptsError, UsageError
from .prompts.rows import Prompt as CheckedPrompt
from .prompts.rows import check_columns, prompt_of_row
from .records import Policy
from .reports.document import Report
from .temporary import temporary_directory
from .traces.arrays import numbers, token_ids
from .traces.reader import Trace

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike

    from .measures.full import Divergences

Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int] | np.ndarray | Mapping[str, Any]
"""A text, a chat (messages with `role` and `content`), token ids, or a row as a prompts file has it."""

_NOT_SETTINGS = ("directory", "resume", "progress")


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

    from .collection.output import output_directory
    from .collection.run_files import PROMPTS
    from .probes.audit import run_audit
    from .progress import ProgressReporter

    with ExitStack() as stack:
        path = Path(directory or stack.enter_context(temporary_directory()))
        overrides = {_key(name): value for name, value in given.items() if name not in _NOT_SETTINGS}
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
            command=_call("audit", given),
            on_event=stack.enter_context(ProgressReporter(Console(stderr=True), quiet=not progress)),
        )
        for file, text in report.files(path / "report.json").items():
            write_atomic(file, text.encode())
    return report


def compare(
    behavior: str | Path | Trace,
    reference: str | Path | Trace,
    *,
    target: str | Path | Trace | None = None,
    baseline: str | Path | Trace | None = None,
    behavior_repeat: str | Path | Trace | None = None,
    reference_repeat: str | Path | Trace | None = None,
    policy: Policy | None = None,
    confidence: float | None = None,
    margin: float | None = None,
    max_rejected: float | None = None,
    tail: bool | None = None,
    fail_on: str | Sequence[str] = (),
) -> Report:
    """Measure two traces of the same tokens. This is `mismatchscope compare`; it needs no engine and no torch.

    Args:
        behavior: μ, the policy that sampled.
        reference: π_old, the policy that trains.
        target: π_θ, the policy being optimised; adds α₀ = TV(π_old, π_θ) and β = TV(μ, π_θ).
        baseline: another engine that scored μ's tokens: is μ closer to the trainer than that one?
        behavior_repeat, reference_repeat: the same side once more, which gives its repeat floor.
        policy: the behaviour trace's own by default; "support" renormalises π on the tokens that μ kept.
        confidence: of every interval.
        margin: an excess over the repeat floor below so many floors counts as none; 0.5 by default.
        max_rejected: the share of rows without a legal log-prob above which `verdict` is "inconclusive".
        fail_on: gates, as in "token.tv.p99 > 0.05"; the report's `verdict` is theirs.

    Raises:
        NotComparableError: other tokens on the two sides, log-probs shifted by one, nothing in common.
        TraceError: a trace that is missing, incomplete or altered.
        ConfigError: a gate or a setting that cannot be used.
    """
    fail_on = [fail_on] if isinstance(fail_on, str) else list(fail_on)
    given = dict(locals())
    from . import gate
    from .comparison.compare_traces import Repeats
    from .comparison.compare_traces import compare as compare_traces

    def optional(trace: str | Path | Trace | None) -> Trace | None:
        return None if trace is None else _opened(trace)

    overrides = {"confidence": confidence, "margin": margin, "max_rejected": max_rejected, "tail": tail}
    settings = load_settings(None, overrides | {"gate.fail_on": fail_on}, [])
    gate.check_without_baseline(fail_on)
    report = compare_traces(
        _opened(behavior),
        _opened(reference),
        target=optional(target),
        baseline=optional(baseline),
        repeats=Repeats(optional(behavior_repeat), optional(reference_repeat)),
        policy=policy,
        confidence=settings.confidence,
        margin=settings.margin,
        tail=settings.tail,
        max_rejected=settings.max_rejected,
        command=_call("compare", given),
    )
    return gate.apply(report, fail_on) if fail_on else report


def open_trace(path: str | Path, *, verify: bool = True) -> Trace:
    """Open a complete trace: `sequences()` and `tokens()` are its tables, `manifest` says how it was made.

    `verify` compares the checksum of every file.

    Raises `TraceError` for a trace that is missing, incomplete, altered or of another schema version.
    """
    return Trace.open(Path(path), verify=verify)


def load_report(path: str | Path) -> Report:
    """Read report.json, or the one in a directory. Raises `TraceError` when there is none that can be read."""
    return Report.load(Path(path))


def divergences(
    mu_NV: ArrayLike | torch.Tensor,
    pi_NV: ArrayLike | torch.Tensor,
    token_id_N: ArrayLike | torch.Tensor | None = None,
    *,
    normalised: bool = False,
    mass_floor: float = 1e-4,
    threads: int | None = None,
) -> Divergences:
    """TV, KL, χ², JS and more of behaviour μ and reference π at each of N states, float64 [N].

    Args:
        mu_NV, pi_NV: blocks of logits or natural log-probs, [N, V]: lists, numpy, or torch on a CPU or a GPU, both
            on the same device. float32 and bfloat16 are measured where they lie.
        token_id_N: the sampled tokens, whose `log_ratio` is asked for.
        normalised: the rows are log-probs that somebody stored: they are taken as they are and must sum to one.
        mass_floor: the probability from which on an id counts for `max_abs_dlogp`.
        threads: by default the cores that this process may use.

    Raises:
        UsageError: values that are no floats, shapes or devices that differ, a token id outside the vocabulary, a
            row that is no distribution. The row is named.
        EmptyComparisonError: no states, or no ids.
        MissingDependencyError: the blocks are on a GPU and Triton is not installed.
    """
    from .measures import full

    try:
        return full.divergences(
            mu_NV, pi_NV, token_id_N, normalised=normalised, mass_floor=mass_floor, threads=threads
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"The blocks cannot be measured: {error}.", hint="give logits or log-probs [states, vocabulary], floats"
        ) from error


def _opened(trace: str | Path | Trace) -> Trace:
    return trace if isinstance(trace, Trace) else Trace.open(Path(trace))


def _key(parameter: str) -> str:
    """The dotted key of the setting that a parameter of `audit` overrides."""
    if parameter in SamplingSettings.model_fields:
        return f"sampling.{parameter}"
    return "gate.fail_on" if parameter == "fail_on" else parameter


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    """What reproduces the report, for its provenance: the call, without what has its default."""
    shown = dict(arguments)
    for key, value in arguments.items():
        if value is None or value == [] or (key in _NOT_SETTINGS and value is False):
            del shown[key]
        elif isinstance(value, Trace | Path):
            shown[key] = str(value.path if isinstance(value, Trace) else value)
        elif key == "prompts" and not isinstance(value, str):  # their text is not for reports
            shown[key] = f"<{len(value)} given>"
    return f"mismatchscope.{name}({', '.join(f'{key}={value!r}' for key, value in shown.items())})"


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
