"""A measured pair -> the report, whatever question the pair answers."""

from __future__ import annotations

import datetime
import time
from dataclasses import replace

from .. import __version__
from ..credentials import masked
from ..machine import machine_facts
from ..measures.bounds import with_policies
from ..reports.document import Counts, Finding, Provenance, Report
from .alarms import find_alarms
from .chart_data import chart_data_of
from .floors import NO_NOISE, MeasuredFloors
from .pair import Pair
from .provenance import differences, provenance_of
from .reading import reading_of
from .rounding import rounding_floor
from .rounding_size import rounding_size
from .sums_by_prompt import prompt_sums_of
from .three_policies import OtherPairs
from .worst_tokens import worst_tokens_of


def report_of_pair(
    pair: Pair,
    finding: Finding,
    counts: Counts,
    *,
    noise: MeasuredFloors = NO_NOISE,
    others: OtherPairs | None = None,
    command: str,
    started: float,
) -> Report:
    """All that a report says of one pair, without gates. `noise` are its floors, `others` the pairs of a target;
    `started` is the `time.monotonic` at which the whole run began."""
    others = others or OtherPairs()
    figures, size, command = pair.figures, rounding_size(pair), masked(command)
    sides = provenance_of(pair.mu), provenance_of(pair.pi)
    report = Report(
        verdict="inconclusive" if counts.too_many_rejected else "none",
        finding=finding,
        reading=reading_of(pair, finding, *sides, command, size),
        evidence=figures.evidence,
        policy=pair.context.policy,
        counts=counts,
        alpha1=figures.alpha,
        alpha0=others.alpha0,
        beta=others.beta,
        token=figures.token,
        sequence=figures.sequence,
        floor=noise.floors,
        truncation_floor=_truncation_floor(pair),
        rounding_floor=rounding_floor(pair.mu, pair.pi),
        corrections=list(figures.corrections),
        bounds=with_policies(
            replace(figures.bounds, slack_observed_max=others.slack_observed_max, slack_mean=others.slack_mean),
            discount=None,
            advantage_max=None,
        ),
        alarms=find_alarms(pair, counts, noise.floors),
        worst=worst_tokens_of(pair),
        figures=chart_data_of(pair, noise.largest),
        provenance=Provenance(
            behavior=sides[0],
            reference=sides[1],
            difference=differences(*sides, size),
            size=size,
            machine=machine_facts(),
            command=command,
            duration_s=round(time.monotonic() - started, 3),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            tool_version=__version__,
        ),
    )
    return report.with_prompt_sums(prompt_sums_of(figures, pair.statistics))


def counts_of(pair: Pair, max_rejected: float) -> Counts:
    return Counts(**vars(pair.counts), full_states=pair.statistics.exact_states, max_rejected=max_rejected)


def _truncation_floor(pair: Pair) -> float | None:
    """1 − kept mass of top-p and top-k, where the sampler changed the distribution and π was seen whole."""
    leak, sampling = pair.figures.token.leak, pair.mu.manifest.sampling
    return leak.mean if leak is not None and sampling is not None and sampling.transforms else None
