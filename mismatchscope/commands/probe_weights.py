"""`probe weights`: no tokens, and so a report of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .missing_environments import create_missing_environments
from .options import Config, Force, Overrides, RequiredOutput, takes_settings
from .report_output import EXIT_CODES, write_file
from .terminal import command_line, progress, show_note, stderr, stdout

if TYPE_CHECKING:
    from ..reports.weights_report import WeightsReport

ReferenceModel = Annotated[
    str | None,
    typer.Option("--reference-model", help="Compare --model with this checkpoint, on disk: no engine starts."),
]
UpdatedModel = Annotated[
    str | None,
    typer.Option(
        "--updated-model", help="Then have the engines take this checkpoint's weights, and compare again."
    ),
]

FailOn = Annotated[
    list[str] | None,
    typer.Option("--fail-on", help="Gate, as in 'stages.behavior.kinds.stale > 0'; gates decide the exit code."),
]


@takes_settings("model", "adapter", "behavior", "reference")
def command(
    overrides: Overrides,
    output: RequiredOutput,
    reference_model: ReferenceModel = None,
    updated_model: UpdatedModel = None,
    fail_on: FailOn = None,
    config: Config = None,
    force: Force = False,
) -> None:
    """Are both sides' weights the same, tensor by tensor? Exit 0 the same, 1 different, 4 cannot tell.

    For example: mismatchscope probe weights --behavior vllm --reference transformers -o weights
    """
    from ..collection.output import output_directory
    from ..config import load_settings
    from ..probes import weights_gates
    from ..probes.weights import WeightsQuestion, probe_weights
    from ..reports.weights_text import show

    weights_gates.check(fail_on or [])
    settings = load_settings(config, overrides, [])
    question = WeightsQuestion.of(
        settings.model, settings.behavior, settings.reference, settings.adapter, reference_model, updated_model
    )
    create_missing_environments([str(spec) for _, spec in question.engines])
    named = (settings.model, settings.adapter, reference_model, updated_model)
    inputs = [config, *(Path(name) for name in named if name is not None)]
    with output_directory(output, force=force, inputs=inputs):
        with progress() as on_event:
            report = probe_weights(question, output, command=command_line(), on_event=on_event)
        report = weights_gates.decide(report, fail_on or [])
        written = _write(report, output)
    show(report, stdout())
    stderr().print(f"Written to {output}/: {', '.join(written)}", soft_wrap=True)
    raise typer.Exit(EXIT_CODES[report.outcome])


def _write(report: WeightsReport, directory: Path) -> list[str]:
    """Every form of the report; the names of the files. One whose packages are missing is left out, and named."""
    from ..errors import MissingDependencyError
    from ..reports import weights_html, weights_text
    from ..reports.weights_report import WEIGHTS_MARKDOWN, WEIGHTS_PAGE, WEIGHTS_REPORT

    texts = {WEIGHTS_REPORT: report.to_json(), WEIGHTS_MARKDOWN: weights_text.render(report)}
    try:
        texts[WEIGHTS_PAGE] = weights_html.render(report)
    except MissingDependencyError as error:
        show_note(f"{WEIGHTS_PAGE} is left out: {error.message} {error.hint}")
    for name, text in texts.items():
        write_file(directory / name, text)
    return list(texts)
