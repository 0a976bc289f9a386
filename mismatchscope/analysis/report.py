"""The statistics of a log -> the Report."""

from __future__ import annotations

import datetime
import time
from dataclasses import replace
from typing import Any

from .. import __version__
from ..comparison.alarms import heavy_weights_alarm, leak_alarm
from ..comparison.chart_data import chart_data_of
from ..comparison.context import Context
from ..comparison.diagnosed import with_diagnosis
from ..comparison.pair import PolicyPair
from ..comparison.reading import per_response_of
from ..comparison.reduction import reduce_alpha
from ..comparison.statistics import PairStatistics
from ..comparison.sums_by_prompt import prompt_sums_of
from ..comparison.three_policies import OtherPairs
from ..errors import EmptyComparisonError
from ..logs.columns import LOGPROBS, PolicyRole
from ..logs.metrics_file import LoggedMetrics
from ..logs.reading import Log
from ..machine import machine_facts
from ..measures.bounds import with_policies
from ..measures.log_results import DistributionCheck, LogFacts
from ..measures.results import Alpha
from ..measures.selected_states import State
from ..reports.document import Alarm, Counts, Provenance, Report
from ..reports.reading_fields import Reading
from ..reports.text import count
from ..reports.worst_fields import MovedToken, WorstToken
from .distribution.checks import alarms_of
from .distribution.column_policies import column_policies
from .finding import log_finding
from .group_rows import groups_of
from .groups import GroupSums
from .lacking import rules_left_out, without_target
from .native_metrics import at_steps_of_log, trainers_of, why_not_compared
from .prefix_cache import stale_cache_of
from .settings import AnalysisSettings
from .staleness import staleness_of
from .statistics import LogStatistics
from .trend import run_scalars, trends_of

_PROBABILITIES = 0.9
"""The share of values above 0 that are at most 1 where a column holds probabilities."""


def report_of(
    log: Log,
    statistics: LogStatistics,
    settings: AnalysisSettings,
    *,
    logged: LoggedMetrics | None = None,
    command: str = "",
    started: float,
) -> Report:
    """What a log says.

    `logged` is what the run logged of its own metrics; `started` is the `time.monotonic` at which the analysis
    began, for its duration. Raises `EmptyComparisonError` where no token counts.
    """
    context = Context(confidence=settings.confidence, tail=settings.tail)
    if not statistics.pair.tokens:
        raise _empty(statistics)
    pair = PolicyPair(context, statistics.pair)
    trainers = trainers_of(log.format.name) if settings.trainer is None else [settings.trainer]
    kept_support = statistics.distribution.kept_set.result(
        tokens=statistics.pair.tokens, confidence=settings.confidence
    )
    checks = statistics.distribution.results(
        pair, statistics.rejected, selects=_selects(log, statistics), moved=settings.repairs.shift
    )
    metrics, not_compared = statistics.native_metrics.results(trainers, logged), None
    if logged is not None:
        logged, not_compared = at_steps_of_log(logged, metrics), why_not_compared(logged, metrics)
    over_the_run = _over_the_run(statistics.groups, settings, logged)
    counts, figures, others = _counts(statistics, settings), pair.figures, _other_pairs(statistics, pair)
    report = Report(
        verdict="inconclusive" if counts.too_many_rejected else "none",
        finding=log_finding(figures.alpha, counts, checks, over_the_run["trend"], identical=figures.identical),
        reading=Reading(outside_band=figures.token.ratio_outside_band, per_response=per_response_of(pair)),
        evidence="sampled",
        policy=context.policy,
        counts=counts,
        alpha1=figures.alpha,
        alpha0=others.alpha0,
        beta=others.beta,
        token=figures.token,
        sequence=figures.sequence,
        corrections=list(statistics.corrections.corrections()),
        correction_sweeps=list(statistics.corrections.sweeps()),
        correction_series=list(statistics.corrections.series()),
        correction_audit=list(statistics.correction_audit.results()),
        bounds=with_policies(
            replace(figures.bounds, slack_observed_max=others.slack_observed_max, slack_mean=others.slack_mean),
            discount=settings.discount,
            advantage_max=settings.advantage_max,
            alpha0=None if others.alpha0 is None else others.alpha0.observed_max,
            alpha1=figures.alpha.observed_max,
            beta=None if others.beta is None else others.beta.observed_max,
        ),
        alarms=_alarms(pair, statistics, checks),
        worst=[_worst_token(state) for state in statistics.pair.largest.states()],
        figures=chart_data_of(pair, None),
        log=_facts(log, statistics, checks, settings, not_compared),
        distribution=checks,
        kept_support=kept_support,
        truncation_floor=None if kept_support is None else kept_support.truncation.value,
        native_metrics=metrics,
        sequences=statistics.sequences_shown.results(),
        **over_the_run,
        provenance=Provenance(
            behavior=_side(log, "behavior"),
            reference=_side(log, "reference"),
            machine=machine_facts(),
            command=command,
            duration_s=round(time.monotonic() - started, 3),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            tool_version=__version__,
        ),
    )
    tokens = statistics.token_sample
    report = with_diagnosis(report, tokens.evidence, tokens.contradictions)
    return report.with_prompt_sums(prompt_sums_of(figures, statistics.pair))


def _over_the_run(sums: GroupSums, settings: AnalysisSettings, logged: LoggedMetrics | None) -> dict[str, Any]:
    """The fields that say where in a run, and of whom, the mismatch is."""
    tolerance, confidence = settings.tolerance, settings.confidence
    return {
        "trend": trends_of(
            sums,
            tolerances={} if tolerance is None else {"token.tv": tolerance},
            scalars=run_scalars(logged),
            confidence=confidence,
        ),
        "groups": list(groups_of(sums, confidence=confidence)),
        "staleness": staleness_of(sums, tolerance=tolerance, confidence=confidence),
        "stale_cache": stale_cache_of(sums, confidence=confidence),
        "prompt_effect": sums.prompt_effect.result(confidence=confidence),
        "length_scaling": sums.length_scaling.result(confidence=confidence),
    }


def _empty(statistics: LogStatistics) -> EmptyComparisonError:
    rejected = statistics.rejected
    reasons = [*rejected.responses.most_common(), *rejected.tokens.most_common()]
    why = "; ".join(f"{reason}: {number:,}" for reason, number in reasons)
    read = f"{count(statistics.rows, 'row')} read, {rejected.masked:,} tokens masked"
    said = f"No token of this log has a legal log-prob of both policies ({read}{f'; {why}' if why else ''})."
    above = sum(tokens for reason, tokens in rejected.tokens.items() if reason.endswith("above 0"))
    if above and rejected.probabilities >= _PROBABILITIES * above:
        return EmptyComparisonError(
            f"{said} The values above 0 are at most 1: probabilities, not their logarithms.",
            hint="log natural logarithms of the sampled tokens' probabilities",
        )
    return EmptyComparisonError(
        said,
        hint="see docs/logs.md for what each format must hold; --format and a column map say what a column is",
    )


def _counts(statistics: LogStatistics, settings: AnalysisSettings) -> Counts:
    rejected = statistics.rejected
    return Counts(
        prompts=len(statistics.pair.prompts),
        sequences=statistics.sequences,
        matched_sequences=statistics.rows,
        partial_sequences=statistics.partial,
        tokens=statistics.pair.tokens,
        masked=rejected.masked,
        rejected=sum(rejected.tokens.values()),
        rejected_responses=rejected.lost_responses,
        max_rejected=settings.max_rejected,
    )


def _side(log: Log, role: PolicyRole) -> dict[str, Any]:
    columns = [origin for origin in log.columns if origin.column == LOGPROBS[role]]
    return {"log": log.format.name, "columns": [origin.source for origin in columns]}


def _other_pairs(statistics: LogStatistics, pair: PolicyPair) -> OtherPairs:
    """α₀ and β, where the log has π_θ; a slack only where all responses have it."""
    if not statistics.beta.tokens:
        return OtherPairs()

    def alpha(of: PairStatistics, *, weighted: bool) -> Alpha:
        return reduce_alpha(of, replace(pair.context, weighted=weighted, tail=False))

    found = OtherPairs.of(
        alpha(statistics.alpha0, weighted=True), pair.alpha, alpha(statistics.beta, weighted=False)
    )
    same = statistics.beta.tokens == statistics.pair.tokens
    return found if same else OtherPairs(found.alpha0, found.beta)


def _alarms(pair: PolicyPair, statistics: LogStatistics, checks: list[DistributionCheck]) -> list[Alarm]:
    found = [*alarms_of(checks), *leak_alarm(pair), *heavy_weights_alarm(pair)]
    rejected = statistics.rejected
    for what, reasons in (("responses", rejected.responses), ("tokens", rejected.tokens)):
        if reasons:
            listed = "; ".join(f"{reason} ({number:,})" for reason, number in sorted(reasons.items()))
            found.append(
                Alarm(
                    code=f"rejected_{what}",
                    message=f"{sum(reasons.values()):,} {what} of the log are in no figure: {listed}.",
                    evidence=dict(sorted(reasons.items())),
                    remedy="mend what writes them; what is left need not be like what is missing",
                    severity="error",
                )
            )
    if statistics.prompts_unknown:
        found.append(
            Alarm(
                code="unknown_prompts",
                message=f"Of {count(statistics.prompts_unknown, 'response')} the log does not say the prompt, so "
                "each counts as a prompt of its own: intervals are too narrow where responses share one.",
                evidence={"responses": statistics.prompts_unknown},
                remedy="log the prompt's tokens, or the group",
            )
        )
    return found


def _worst_token(state: State) -> WorstToken:
    return WorstToken(
        sequence_id=state.sequence_id,
        prompt_id=state.prompt_id,
        position=state.position,
        token_id=state.token_id,
        tv=state.tv,
        ratio=state.ratio,
        logprob_behavior=state.logp_mu,
        logprob_reference=state.logp_pi,
        moved=MovedToken(token_id=state.token_id, logprob_behavior=state.logp_mu, logprob_reference=state.logp_pi),
    )


def _facts(
    log: Log,
    statistics: LogStatistics,
    checks: list[DistributionCheck],
    settings: AnalysisSettings,
    not_compared: str | None,
) -> LogFacts:
    """`not_compared` says why nothing that the run logged could be held against the log."""
    target = LOGPROBS["target"]
    present = [origin for origin in log.columns if origin.column != target or statistics.beta.tokens]
    reduced = [check.sentence for check in checks if check.code == "selection" and check.status == "fail"]
    return LogFacts(
        format=log.format.name,
        files=len(log.files),
        rows=statistics.rows,
        columns=column_policies(present, statistics.distribution.sample.examined()),
        rejected=dict(statistics.rejected.responses + statistics.rejected.tokens),
        steps=statistics.native_metrics.steps,
        selection="; ".join(filter(None, [_selects(log, statistics), *reduced])) or None,
        repairs=settings.repairs.sentences,
        remarks=tuple(
            filter(
                None,
                [
                    *log.remarks,
                    *statistics.remarks,
                    without_target(statistics),
                    *rules_left_out(statistics, settings),
                    not_compared,
                ],
            )
        ),
    )


def _selects(log: Log, statistics: LogStatistics) -> str | None:
    """What the format's masks have left out; None where the log's mask nothing, so that nothing can be left out."""
    return log.format.selects if statistics.rejected.masked else None
