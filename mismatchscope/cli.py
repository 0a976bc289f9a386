"""The command line: parse, call, render, exit code. What the verbs do lives in the rooms they call.

stdout is data and the answer, stderr progress and errors. Exit codes: 0 pass, 1 a gate failed, 2 usage,
3 failure, 4 inconclusive or not comparable, 130 interrupted.
"""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import ConfigError, MismatchScopeError, MissingDependencyError, SpecError
from .reports.formats import FORMATS

if TYPE_CHECKING:
    from rich.console import Console

    from .report import Report

app = typer.Typer(
    name="mismatchscope",
    help="Is the policy that samples still the policy that trains?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

env = typer.Typer(help="Engine environments: vLLM and SGLang in one each.", no_args_is_help=True)
app.add_typer(env, name="env")

EXIT_CODES = {"pass": 0, "none": 0, "fail": 1, "inconclusive": 4}


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


@dataclass
class _Output:
    """How this process talks; set by the options that every verb takes, before or after its name."""

    quiet: bool = False
    verbose: bool = False
    no_color: bool = False
    debug: bool = False


_output = _Output()


def main() -> None:
    """The installed command."""
    app()


def _switch(name: str, help: str, *flags: str) -> inspect.Parameter:
    def note(value: bool) -> bool:
        if value:
            setattr(_output, name, True)
        return value

    option = typer.Option(f"--{name.replace('_', '-')}", *flags, help=help, callback=note)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=False, annotation=Annotated[bool, option])


_SWITCHES = [
    _switch("quiet", "No progress.", "-q"),
    _switch("verbose", "Every measure.", "-v"),
    _switch("no_color", "Plain text, as NO_COLOR does."),
    _switch("debug", "Show the traceback of an error."),
]

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
Policy = Annotated[PolicyChoice | None, typer.Option("--policy", help="Which μ to measure.  [processed]")]


def _with_switches(function: Callable[..., None]) -> Callable[..., None]:
    """The function with the switches of `_Output` among its options; their callbacks have done their work."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        for switch in _SWITCHES:
            kwargs.pop(switch.name)
        function(*args, **kwargs)

    signature = inspect.signature(function, eval_str=True)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *_SWITCHES])
    return run


def verb(function: Callable[..., None], group: typer.Typer = app, name: str | None = None) -> Callable[..., None]:
    """Register a verb whose errors become one clear message and the right exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except MismatchScopeError as error:
            _show_error(error.message, error.hint, getattr(error, "log_tail", ""))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            resumable = "resume" in kwargs
            message = "Interrupted. What was finished is kept." if resumable else "Interrupted."
            _show_error(message, "the same command with --resume goes on" if resumable else None)
            raise typer.Exit(130) from None
        except (typer.Exit, BrokenPipeError):
            raise
        except Exception as error:
            # Never the message: it may quote a prompt or a key.
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            _show_error(f"Unexpected {type(error).__name__} at {place}.", "add --debug to see all of it")
            raise typer.Exit(3) from None

    return group.command(name)(_with_switches(run))


def _version(value: bool) -> None:
    if value:
        from . import __version__

        sys.stdout.write(f"mismatchscope {__version__}\n")
        raise typer.Exit


@app.callback()
@_with_switches
def common(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version)] = False,
) -> None:
    """Is the policy that samples still the policy that trains?"""


@verb
def audit(
    model: Model = None,
    behavior: Annotated[str | None, typer.Option(help="Engine SPEC of the policy that samples.")] = None,
    reference: Annotated[str | None, typer.Option(help="Engine SPEC of the policy that trains.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Engine SPEC to compare the behaviour with.")] = None,
    prompts: PromptsFile = None,
    limit: Limit = None,
    samples: Samples = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    policy: Policy = None,
    reference_temperature: Annotated[
        float | None, typer.Option(help="What the trainer divides its logits by.  [the temperature]")
    ] = None,
    evidence: EvidenceOption = None,
    budget: Budget = None,
    repeats: Annotated[bool | None, typer.Option(help="Measure the repeat floors.  [repeats]")] = None,
    confidence: Confidence = None,
    tail: Tail = False,
    fail_on: FailOn = None,
    config: Config = None,
    assignments: Assignments = None,
    output: Output = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Sample, score, compare: the whole way, ending with a verdict. Needs no option at all."""
    from .config import load_settings
    from .probes.audit import audit as run_audit
    from .probes.collect import prepare_output

    settings = load_settings(
        config,
        {
            "model": model,
            "behavior": behavior,
            "reference": reference,
            "baseline": baseline,
            "prompts": None if prompts is None else str(prompts),
            "limit": limit,
            "sampling.samples": samples,
            "sampling.max_new_tokens": max_new_tokens,
            "sampling.temperature": temperature,
            "sampling.top_p": top_p,
            "sampling.top_k": top_k,
            "sampling.seed": seed,
            "policy": policy and policy.value,
            "reference_temperature": reference_temperature,
            "evidence": evidence,
            "budget": budget,
            "repeats": repeats,
            "confidence": confidence,
            "tail": tail or None,
            "gate.fail_on": fail_on,
        },
        assignments or [],
    )
    if resume and output is None:
        raise ConfigError("--resume needs to know which run.", hint="add -o DIR, the directory of that run")
    directory = output or Path(time.strftime("mismatchscope-audit-%Y%m%d-%H%M%S"))
    prepare_output(directory, force=force, resume=resume)
    with _progress() as progress:
        report = run_audit(settings, directory, command=_command(), on_event=progress, resume=resume)
    _finish(report, directory)


@verb
def rollout(
    engine: Annotated[str, typer.Option(help="Engine SPEC.")],
    output: RequiredOutput,
    model: Annotated[str, typer.Option(help="Local directory, hub id, demo:dense or demo:moe.")] = "demo:dense",
    prompts: PromptsFile = None,
    limit: Limit = None,
    samples: Samples = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    evidence: EvidenceOption = None,
    budget: Budget = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Sample from an engine and write its trace (and TRACE-raw where the sampler changed the distribution)."""
    from .config import load_settings
    from .probes.collect import prepare_output
    from .probes.single import rollout as run_rollout

    settings = load_settings(
        None,
        {
            "model": model,
            "behavior": engine,
            "prompts": None if prompts is None else str(prompts),
            "limit": limit,
            "sampling.samples": samples,
            "sampling.max_new_tokens": max_new_tokens,
            "sampling.temperature": temperature,
            "sampling.top_p": top_p,
            "sampling.top_k": top_k,
            "sampling.seed": seed,
            "evidence": evidence,
            "budget": budget,
        },
        [],
    )
    prepare_output(output, force=force, resume=resume)
    with _progress() as progress:
        manifest = run_rollout(settings, output, on_event=progress)
    _stdout().print(f"{output}: {manifest.counts.sequences} sequences, {manifest.counts.tokens} tokens")


@verb
def score(
    trace: Annotated[Path, typer.Argument(help="The trace whose tokens are forced.")],
    engine: Annotated[str, typer.Option(help="Engine SPEC.")],
    output: RequiredOutput,
    model: Annotated[str, typer.Option(help="Local directory, hub id, demo:dense or demo:moe.")] = "demo:dense",
    role: Annotated[RoleChoice, typer.Option(help="What the trace will stand for.")] = RoleChoice.reference,
    path: Annotated[PathChoice, typer.Option(help="Whole sequences, or token by token.")] = PathChoice.prefill,
    temperature: Annotated[
        float | None, typer.Option(help="What the logits are divided by.  [the trace's temperature]")
    ] = None,
    shuffle_seed: Annotated[int | None, typer.Option(help="Reorder the sequences, and so every batch.")] = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Teacher-force the tokens of a trace through an engine, with the evidence that the trace has."""
    from .probes.collect import prepare_output
    from .probes.single import score as run_score

    prepare_output(output, force=force, resume=resume)
    with _progress() as progress:
        manifest = run_score(
            trace,
            output,
            engine=engine,
            model=model,
            role=role.value,
            path=path.value,
            temperature=temperature,
            shuffle_seed=shuffle_seed,
            on_event=progress,
        )
    _stdout().print(f"{output}: {manifest.counts.sequences} sequences, {manifest.counts.tokens} tokens")


@verb
def compare(
    behavior: Annotated[Path, typer.Argument(help="Trace of μ, the policy that sampled.")],
    reference: Annotated[Path, typer.Argument(help="Trace of π_old, the policy that trains.")],
    output: RequiredOutput,
    target: Annotated[Path | None, typer.Option(help="Trace of π_θ, the policy being optimised.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Trace of another engine to compare μ with.")] = None,
    behavior_repeat: Annotated[Path | None, typer.Option(help="μ once more, for its repeat floor.")] = None,
    reference_repeat: Annotated[Path | None, typer.Option(help="π_old once more, likewise.")] = None,
    policy: Policy = None,
    confidence: Confidence = None,
    tail: Tail = False,
    fail_on: FailOn = None,
    force: Force = False,
) -> None:
    """Measure two traces of the same tokens. Needs no engine, no torch and no network."""
    from . import gate as gates
    from .probes.collect import prepare_output
    from .probes.compare import Repeats
    from .probes.compare import compare as run_compare
    from .traces.store import Trace

    def opened(path: Path | None) -> Trace | None:
        return None if path is None else Trace.open(path)

    traces = [Trace.open(behavior), Trace.open(reference)]
    others = {
        "target": opened(target),
        "baseline": opened(baseline),
        "repeats": Repeats(opened(behavior_repeat), opened(reference_repeat)),
    }
    prepare_output(output, force=force, resume=False)
    with _progress() as progress:
        report = run_compare(
            *traces,
            **others,
            policy=policy and policy.value,
            confidence=0.95 if confidence is None else confidence,
            tail=tail,
            command=_command(),
            on_rows=lambda rows: progress({"event": "measured", "rows": rows}),
        )
    _finish(gates.apply(report, fail_on) if fail_on else report, output)


@verb
def report(
    path: Annotated[Path, typer.Argument(help="report.json, or the directory that holds it.")],
    format: Annotated[Format | None, typer.Option("--format", "-f", help="Default: as on the terminal.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.  [stdout]")] = None,
    force: Force = False,
) -> None:
    """Show a finished report in another form."""
    from .errors import OutputExistsError
    from .records import write_atomic
    from .report import Report
    from .reports.console import show
    from .reports.formats import render

    loaded = Report.load(path)
    if format is None:
        show(loaded, _stdout(), verbose=_output.verbose)
        return
    text = render(loaded, format.value)
    if output is None:
        sys.stdout.write(text)
        return
    if output.exists() and not force:
        raise OutputExistsError(f"{output} exists.", hint="choose another -o, or add --force")
    write_atomic(output, text.encode())


@verb
def gate(
    path: Annotated[Path, typer.Argument(help="report.json, or the directory that holds it.")],
    fail_on: FailOn = None,
    baseline: Annotated[Path | None, typer.Option(help="Report that '+10%' and '+0.002' refer to.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with [gate] fail_on.")] = None,
) -> None:
    """Hold a report against thresholds: exit 0 pass, 1 fail, 4 inconclusive or not comparable."""
    from . import gate as gates
    from .config import load_settings
    from .report import Report
    from .reports.console import show_gates

    expressions = [*load_settings(config, {}, []).gate.fail_on, *(fail_on or [])]
    loaded = Report.load(path)
    decided = gates.apply(loaded, expressions, None if baseline is None else Report.load(baseline))
    show_gates(decided, _stdout())
    _append_step_summary(decided)
    raise typer.Exit(EXIT_CODES[decided.verdict])


@verb
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The facts as JSON.")] = False,
) -> None:
    """Facts about this machine and every engine on it."""
    import json

    from .doctor import examine
    from .reports.facts import show_facts

    facts = examine()
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
    else:
        show_facts(facts, _stdout())


EngineVersion = Annotated[str, typer.Argument(metavar="SPEC", help="vllm, sglang; with ==VERSION for another.")]


@functools.partial(verb, group=env, name="list")
def env_list(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Engine environments, and whether they work."""
    import json

    from .environments import describe
    from .environments.console import show_environments

    rows = describe()
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    else:
        show_environments(rows, _stdout())


@functools.partial(verb, group=env, name="create")
def env_create(spec: EngineVersion) -> None:
    """Install an engine into an environment of its own; minutes and gigabytes. Prints its interpreter."""
    from .environments import create
    from .environments.console import CreationProgress

    with CreationProgress(_stderr(), quiet=_output.quiet) as progress:
        environment = create(*_engine_version(spec), on_event=progress)
    sys.stdout.write(f"{environment.python}\n")


@functools.partial(verb, group=env, name="remove")
def env_remove(spec: EngineVersion) -> None:
    """Remove an engine's environment. Prints the directory that is gone."""
    from .environments import remove

    sys.stdout.write(f"{remove(*_engine_version(spec))}\n")


def _engine_version(text: str) -> tuple[str, str | None]:
    from .engines.spec import parse_spec

    spec = parse_spec(text)
    if spec.url or spec.python or spec.options:
        wanted = f"{spec.name}=={spec.version}" if spec.version else spec.name
        raise SpecError(f"An environment has no URL and no options: '{text}'.", hint=f"write {wanted}")
    return spec.name, spec.version


def _finish(report: Report, directory: Path) -> None:
    """Write every form of the report, show it, and leave with the verdict's exit code."""
    from .reports.console import show

    written = _write_reports(report, directory)
    show(report, _stdout(), verbose=_output.verbose)
    _stderr().print(f"Written to {directory}/: {', '.join(written)}", markup=False, highlight=False, soft_wrap=True)
    _append_step_summary(report)
    raise typer.Exit(EXIT_CODES[report.verdict])


def _write_reports(report: Report, directory: Path) -> list[str]:
    """Every format; one whose packages are missing is left out, and named."""
    from .records import write_atomic
    from .reports.formats import render

    written = []
    for name, format in FORMATS.items():
        try:
            text = render(report, name)
        except MissingDependencyError as error:
            _stderr().print(
                f"{format.file} is left out: {error.message} {error.hint}", markup=False, soft_wrap=True
            )
            continue
        write_atomic(directory / format.file, text.encode())
        written.append(format.file)
    return written


def _append_step_summary(report: Report) -> None:
    """On GitHub Actions the report is part of the job's summary."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and report.gates:
        from .reports.formats import render

        with open(summary, "a", encoding="utf-8") as file:
            file.write(render(report, "markdown") + "\n")


def _progress() -> Any:
    from .progress import ProgressReporter

    return ProgressReporter(_stderr(), quiet=_output.quiet)


def _stdout() -> Console:
    from rich.console import Console

    return Console(no_color=_output.no_color or None, highlight=False)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, no_color=_output.no_color or None, highlight=False)


def _show_error(message: str, hint: str | None, log_tail: str = "") -> None:
    console = _stderr()
    if _output.debug:
        console.print(traceback.format_exc(), markup=False, soft_wrap=True)
    if log_tail:
        console.print(log_tail, markup=False, soft_wrap=True, style="dim")
    console.print(f"[bold red]error:[/] {_escaped(message)}", soft_wrap=True)
    if hint:
        console.print(f" [bold]next:[/] {_escaped(hint)}", soft_wrap=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _command() -> str:
    """The command line that reproduces this run."""
    return shlex.join(["mismatchscope", *sys.argv[1:]])
