"""Two traces of the same tokens -> the report: how far is the policy that sampled from the policy that trains?"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..alignment.compatibility import check_roles
from ..records import Policy
from ..reports.document import Report
from ..traces.reader import Trace
from .baseline import compare_with_baseline
from .context import Context
from .diagnosed import with_diagnosis
from .finding import finding_of
from .floors import NO_REPEATS, Repeats, measure_floors
from .pair import Pair, measure_pair
from .pair_report import counts_of, report_of_pair
from .provenance import provenance_of
from .three_policies import OtherPairs
from .token_evidence import evidence_of


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
    counts, figures = counts_of(pair, max_rejected), pair.figures
    finding = finding_of(
        figures.alpha,
        noise.floors,
        noise.excess,
        counts,
        identical=figures.identical,
        deterministic=noise.deterministic,
    )
    report = report_of_pair(
        pair, finding, counts, noise=noise, others=_other_pairs(pair, target), command=command, started=started
    )
    beside = {
        "baseline": None if baseline is None else compare_with_baseline(pair, baseline, noise.behavior),
        "provenance": report.provenance.model_copy(
            update={"target": None if target is None else provenance_of(target)}
        ),
    }
    report = report.model_copy(update=beside)
    return with_diagnosis(report, lambda: evidence_of(pair, noise, report.provenance.difference))


def _other_pairs(pair: Pair, target: Trace | None) -> OtherPairs:
    if target is None:
        return OtherPairs()
    alpha0 = measure_pair(pair.pi, target, pair.context.of_reference(pair.pi, pair.mu)).alpha
    beta = measure_pair(pair.mu, target, pair.context.of_behavior()).alpha
    return OtherPairs.of(alpha0, pair.alpha, beta)
