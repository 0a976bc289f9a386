"""The logs of a run -> the report: what they hold, how far apart the policies were, and how that went on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..credentials import masked
from ..logs.metrics_file import read_metrics
from ..logs.reading import open_logs
from ..reports.document import Report
from ..traces.identity import check_free
from .base_files import are_base_files, compare_base_files
from .convert import convert
from .distribution.repeated import repeated_ids
from .mapping import Mapper, numbered, statistics_of
from .processes import in_processes
from .ray_cluster import on_ray
from .report import report_of
from .settings import AnalysisSettings


def analyze(
    paths: Sequence[Path],
    settings: AnalysisSettings,
    *,
    format: str | None = None,
    column_map: Path | None = None,
    compare_with: Path | None = None,
    processes: int | None = None,
    ray: str | None = None,
    convert_to: Path | None = None,
    drop_duplicates: bool = False,
    command: str = "",
    on_tokens: Callable[[int], None] = lambda tokens: None,
) -> Report:
    """Read logs, files and directories of one trainer's, and measure what they hold.

    `format` is decided by the files' content unless it is given; `column_map` is a TOML file that says what the
    columns of any other format are. `compare_with` is what the run logged of its own metrics. `processes` share the
    work, by default one a core; or the Ray cluster at the address `ray` does. `on_tokens` is told of tokens.
    `convert_to` is a free directory for traces of the log's policies. `drop_duplicates` reads the log once more
    before, and leaves responses out that came before.

    Raises `UsageError` for paths without a log, `TraceError` for a broken one, and `EmptyComparisonError` where no
    token has the log-probs of both policies.
    """
    started = time.monotonic()
    logged = None if compare_with is None else read_metrics(compare_with)
    log = open_logs(paths, format=format, column_map=column_map)
    if convert_to is not None:
        check_free(convert_to, hint="choose another directory for the traces")
    if are_base_files(log):
        return compare_base_files(
            log,
            paths,
            settings,
            directory=convert_to,
            command=masked(command),
            started=started,
            on_tokens=on_tokens,
        )
    if drop_duplicates:
        dropped = repeated_ids((file, batch) for file, part in numbered(log.parts()) for batch in log.read(part))
        settings = replace(settings, repairs=replace(settings.repairs, dropped=dropped))
    statistics = statistics_of(log, settings, mapper_of(processes, ray), on_tokens)
    if convert_to is not None:
        convert(log, convert_to, settings.repairs)
    return report_of(log, statistics, settings, logged=logged, command=masked(command), started=started)


def mapper_of(processes: int | None, ray: str | None) -> Mapper:
    """Who reads the chunks of a log: so many processes, by default one a core, or the Ray cluster at an address."""
    return in_processes(processes or len(os.sched_getaffinity(0))) if ray is None else on_ray(ray)
