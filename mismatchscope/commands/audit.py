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
    from ..collection.output import output_directory
    from ..config import load_settings
    from ..probes.audit import run_audit

    settings = load_settings(config, overrides, assignments or [])
    create_missing_environments([settings.behavior, settings.reference, settings.baseline])
    directory = output or _unnamed_directory(resume=resume)
    inputs = [settings.prompts, config, *model_inputs(settings)]
    with output_directory(directory, force=force, resume=resume, inputs=inputs):
        with progress() as on_event:
            report = run_audit(settings, directory, command=command_line(), on_event=on_event)
        write_and_exit(report, directory)


def _unnamed_directory(*, resume: bool) -> Path:
    """Where an audit without -o goes: a new directory, or with --resume the last one of those."""
    if resume:
        earlier = sorted(path for path in Path().glob(f"{_UNNAMED}*") if path.is_dir())
        if not earlier:
            raise ConfigError("There is no audit here to go on with.", hint="add -o DIR, the directory of that run")
        return earlier[-1]
    now = time.strftime(f"{_UNNAMED}%Y%m%d-%H%M%S")
    # Made here, so that of two that begin in one second each has its own.
    for name in (now, *(f"{now}-{number}" for number in range(2, 1000))):
        try:
            Path(name).mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"{name} cannot be made: {error.strerror}.", hint="add -o DIR") from None
        return Path(name)
    raise ConfigError(f"There are a thousand audits of {now}.", hint="add -o DIR")
