"""`probe weights`: no tokens, and so a report of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .missing_environments import create_missing_environments
from .options import Config, Force, Overrides, RequiredOutput, takes_settings
from .report_output import EXIT_CODES, write_file
from .terminal import command_line, progress, stderr, stdout

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


@takes_settings("model", "adapter", "behavior", "reference")
def command(
    overrides: Overrides,
    output: RequiredOutput,
    reference_model: ReferenceModel = None,
    updated_model: UpdatedModel = None,
    config: Config = None,
    force: Force = False,
) -> None:
    """Are both sides' weights the same, tensor by tensor? Exit 0 the same, 1 different, 4 cannot tell.

    For example: mismatchscope probe weights --behavior vllm --reference transformers -o weights
    """
    from ..collection.output import output_directory
    from ..config import load_settings
    from ..probes.weights import WeightsQuestion, probe_weights
    from ..reports.weights_report import WEIGHTS_MARKDOWN, WEIGHTS_REPORT
    from ..reports.weights_text import render, show

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
        write_file(output / WEIGHTS_REPORT, report.to_json())
        write_file(output / WEIGHTS_MARKDOWN, render(report))
    show(report, stdout())
    stderr().print(f"Written to {output}/: {WEIGHTS_REPORT}, {WEIGHTS_MARKDOWN}", soft_wrap=True)
    raise typer.Exit(EXIT_CODES[report.verdict])
