"""Two traces of the same tokens -> the report: how far is the policy that sampled from the policy that trains?"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import replace

from .. import __version__
from ..alignment.compatibility import check_roles
from ..credentials import masked
from ..machine import machine_facts
from ..measures.bounds import with_policies
from ..records import Policy
from ..reports.document import Counts, Provenance, Report
from ..traces.reader import Trace
from .alarms import find_alarms
from .baseline import compare_with_baseline
from .chart_data import chart_data_of
from .context import Context
from .finding import finding_of
from .floors import NO_REPEATS, Repeats, measure_floors
from .pair import Pair, measure_pair
from .provenance import differences, provenance_of
from .reading import reading_of
from .rounding import rounding_floor
from .rounding_size import rounding_size
from .sums_by_prompt import prompt_sums_of
from .three_policies import OtherPairs
from .worst_tokens import worst_tokens_of


def compare(
    behavior: Trace,
    reference: Trace,
    *,
    target: Trace | None = None,
    baseline: Trace | None = None,
    repeats: Repeats = NO_REPEATS,
    policy: Policy | None = None,
    confidence: float = 0.95,
    margin: float = 0.5,
    tail: bool = False,
    max_rejected: float = 0.01,
    command: str = "",
    started: float | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Report:
    """Measure μ (`behavior`) against π_old (`reference`), and against π_θ where a `target` is given.

    A `baseline` is another engine's trace of the same tokens: is the behaviour closer to the trainer than that one?

    With more than a share `max_rejected` of rows without a legal log-prob the verdict is "inconclusive".
    `margin` is the largest excess that counts as none, in repeat floors.

    `policy` is that of the behaviour trace unless it is "support", which renormalises π on μ's kept ids. `started`
    is the `time.monotonic` at which the whole run began, for its duration; `on_rows` is told of measured states.

    Raises `NotComparableError` and its kin when the traces are of different tokens or answer different questions.
    """
    started = time.monotonic() if started is None else started
    check_roles(behavior.manifest, reference.manifest)
    context = Context.of(behavior, reference, policy, confidence=confidence, tail=tail, on_rows=on_rows)
    pair = measure_pair(behavior, reference, context)
    noise = measure_floors(pair, repeats, margin=margin)
    others = _other_pairs(pair, target)
    counts, figures, size = _counts(pair, max_rejected), pair.figures, rounding_size(pair)
    sides = provenance_of(behavior), provenance_of(reference)
    finding = finding_of(
        figures.alpha,
        noise.floors,
        noise.excess,
        counts,
        identical=figures.identical,
        deterministic=noise.deterministic,
    )
    command = masked(command)
    report = Report(
        verdict="inconclusive" if counts.too_many_rejected else "none",
        finding=finding,
        reading=reading_of(pair, finding, *sides, command, size),
        evidence=figures.evidence,
        policy=context.policy,
        counts=counts,
        alpha1=figures.alpha,
        alpha0=others.alpha0,
        beta=others.beta,
        token=figures.token,
        sequence=figures.sequence,
        floor=noise.floors,
        baseline=None if baseline is None else compare_with_baseline(pair, baseline, noise.behavior),
        truncation_floor=_truncation_floor(pair),
        rounding_floor=rounding_floor(behavior, reference),
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
            target=None if target is None else provenance_of(target),
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


def _other_pairs(pair: Pair, target: Trace | None) -> OtherPairs:
    if target is None:
        return OtherPairs()
    alpha0 = measure_pair(pair.pi, target, pair.context.of_reference(pair.pi, pair.mu)).alpha
    beta = measure_pair(pair.mu, target, pair.context.of_behavior()).alpha
    return OtherPairs.of(alpha0, pair.alpha, beta)


def _truncation_floor(pair: Pair) -> float | None:
    """1 − kept mass of top-p and top-k, where the sampler changed the distribution and π was seen whole."""
    leak, sampling = pair.figures.token.leak, pair.mu.manifest.sampling
    return leak.mean if leak is not None and sampling is not None and sampling.transforms else None


def _counts(pair: Pair, max_rejected: float) -> Counts:
    return Counts(**vars(pair.counts), full_states=pair.statistics.exact_states, max_rejected=max_rejected)
