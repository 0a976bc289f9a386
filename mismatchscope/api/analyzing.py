"""`ms.analyze`: measure what the logs of a run hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import load_settings
from ..reports.document import Report
from .calls import call_text


def analyze(
    logs: str | Path | Sequence[str | Path],
    *,
    format: str | None = None,
    column_map: str | Path | None = None,
    compare_with: str | Path | None = None,
    trainer: str | None = None,
    tolerance: float | None = None,
    confidence: float | None = None,
    max_rejected: float | None = None,
    tail: bool | None = None,
    convert: str | Path | None = None,
    shift: int = 0,
    mask: str = "recorded",
    drop_duplicates: bool = False,
    corrections: str | Sequence[str] = (),
    discount: float | None = None,
    advantage_max: float | None = None,
    processes: int | None = None,
    ray: str | None = None,
    fail_on: str | Sequence[str] = (),
) -> Report:
    """Measure what the logs of a run hold. This is `mismatchscope analyze`.

    Args:
        logs: files and directories that one trainer wrote.
        format: of the logs; by their content where it is not given.
        column_map: a TOML file that says what the columns of any other format are.
        compare_with: what the run logged of its own metrics: JSONL of wandb, or TensorBoard's directory.
        trainer: whose metrics are recomputed; by default the one's that the format is of, or all.
        tolerance: of a mean TV: the step, and the lag, that pass it are reported.
        max_rejected: the share of rejected tokens, or of responses left out whole, above which `verdict` is
            "inconclusive".
        convert: a new directory for traces of the log's policies: `behavior`, `reference` and perhaps `target`.
        shift: a repair: the trainer's log-probs of token t are read at t + shift.
        mask: which tokens count: "recorded", "all" that have log-probs of both policies, "scored" without those
            that have a log-prob of 0, or the name of a column by token: those where it is not 0.
        drop_duplicates: leave responses out that came before with the same tokens and log-probs.
        corrections: asked for beyond the usual ones: "icepop:low=0.8,high=1.25", "verl", "verl.decoupled_geo_rs".
        discount, advantage_max: γ and ε, the largest |advantage| for rewards within ±1, of the discounted bounds.
        processes: how many share the reading; one a core by default.
        ray: the address of a Ray cluster that reads instead; "local" starts one.
        fail_on: gates, as in "trend.token.kl.slope.low > 0"; the report's `verdict` is theirs.

    Raises:
        UsageError: nothing among the paths is a log, or of several formats.
        TraceError: a log that cannot be read.
        EmptyComparisonError: no token has log-probs of both policies.
    """
    logs = [logs] if isinstance(logs, str | Path) else list(logs)
    fail_on = [fail_on] if isinstance(fail_on, str) else list(fail_on)
    corrections = [corrections] if isinstance(corrections, str) else list(corrections)
    given = dict(locals())
    from .. import gate
    from ..analysis.analyze import analyze as analyze_logs
    from ..analysis.repairs import Repairs
    from ..analysis.settings import AnalysisSettings

    overrides = {"confidence": confidence, "max_rejected": max_rejected, "tail": tail}
    settings = load_settings(None, overrides | {"gate.fail_on": fail_on}, [])
    gate.check_without_baseline(fail_on)
    report = analyze_logs(
        [Path(path) for path in logs],
        AnalysisSettings(
            confidence=settings.confidence,
            max_rejected=settings.max_rejected,
            tolerance=tolerance,
            trainer=trainer,
            tail=settings.tail,
            repairs=Repairs(shift=shift, mask=mask),
            corrections=tuple(corrections),
            discount=discount,
            advantage_max=advantage_max,
        ),
        format=format,
        column_map=None if column_map is None else Path(column_map),
        compare_with=None if compare_with is None else Path(compare_with),
        processes=processes,
        ray=ray,
        convert_to=None if convert is None else Path(convert),
        drop_duplicates=drop_duplicates,
        command=call_text("analyze", given),
    )
    return gate.apply(report, fail_on) if fail_on else report
