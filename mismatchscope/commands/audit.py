"""`audit`: the whole way, ending with a verdict."""

from __future__ import annotations

import time
from pathlib import Path

from ..errors import ConfigError
from .missing_environments import create_missing_environments
from .options import SAMPLING, Assignments, Config, Force, Output, Overrides, Resume, model_inputs, takes_settings
from .report_output import write_and_exit
from .terminal import command_line, progress

_UNNAMED = "mismatchscope-audit-"


@takes_settings(
    "model",
    "adapter",
    "behavior",
    "reference",
    "baseline",
    "prompts",
    "prompt_column",
    "limit",
    *SAMPLING,
    "policy",
    "reference_temperature",
    "evidence",
    "budget",
    "repeats",
    "confidence",
    "margin",
    "max_rejected",
    "tail",
    "gate.fail_on",
)
def command(
    overrides: Overrides,
    config: Config = None,
    assignments: Assignments = None,
    output: Output = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Sample, score, compare: the whole way, ending with a verdict. Needs no option at all."""
    from ..collection.output import prepare_output
    from ..config import load_settings
    from ..probes.audit import run_audit

    settings = load_settings(config, overrides, assignments or [])
    create_missing_environments([settings.behavior, settings.reference, settings.baseline])
    directory = output or _unnamed_directory(resume=resume)
    prepare_output(directory, force=force, resume=resume, inputs=[settings.prompts, *model_inputs(settings)])
    with progress() as on_event:
        report = run_audit(settings, directory, command=command_line(), on_event=on_event)
    write_and_exit(report, directory)


def _unnamed_directory(*, resume: bool) -> Path:
    """Where an audit without -o goes: a new directory, or with --resume the last one of those."""
    if not resume:
        return Path(time.strftime(f"{_UNNAMED}%Y%m%d-%H%M%S"))
    earlier = sorted(Path().glob(f"{_UNNAMED}*"))
    if not earlier:
        raise ConfigError("There is no audit here to go on with.", hint="add -o DIR, the directory of that run")
    return earlier[-1]
