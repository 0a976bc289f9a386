"""Two traces of the same tokens -> the report: how far is the policy that sampled from the policy that trains?"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .. import __version__
from ..alignment.matching import Alignment, align
from ..errors import NotComparableError
from ..machine import machine_facts
from ..records import Policy
from ..reports.document import Alpha, BaselineComparison, Counts, Floors, Provenance, Report
from ..traces.store import Trace
from .alarms import alarms
from .baseline import compare_versions
from .bounds import bounds
from .chart_data import figures
from .corrections import correction_rows
from .finding import finding
from .provenance import differences
from .rounding import rounding_floor
from .sequences import sequence_measures
from .states import StateMeasures, measure_states
from .statistics import alpha, excess_over_floor, floor, token_measures
from .worst_tokens import worst_tokens

Composition = Literal["same", "reshuffled"]


@dataclass(frozen=True)
class Repeats:
    """The same tokens through the same side once more, where that was measured."""

    behavior: Trace | None = None
    reference: Trace | None = None
    composition: Composition = "reshuffled"


def compare(
    behavior: Trace,
    reference: Trace,
    *,
    target: Trace | None = None,
    baseline: Trace | None = None,
    repeats: Repeats = Repeats(),
    policy: Policy | None = None,
    confidence: float = 0.95,
    tail: bool = False,
    command: str = "",
    started: float | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Report:
    """Measure μ (`behavior`) against π_old (`reference`), and against π_θ where a `target` is given.

    A `baseline` is another engine's trace of the same tokens: is the behaviour closer to the trainer than that one?

    `policy` is that of the behaviour trace unless it is "support", which renormalises π on μ's kept ids. `started`
    is the `time.monotonic` at which the whole run began, for its duration; `on_rows` is told of measured states.

    Raises `NotComparableError` and its kin when the traces are of different tokens or answer different questions.
    """
    started = time.monotonic() if started is None else started
    policy = _checked_policy(policy, behavior)
    alignment = align(behavior, reference)
    measures = measure_states(alignment, policy, on_rows, behavior_topk=_scored_from(reference, behavior))
    on_policy = policy != "raw" or not _transforms(behavior)

    noise = {
        "behavior": _repeat(behavior, repeats.behavior, on_rows),
        "reference": _repeat(reference, repeats.reference, on_rows),
    }
    measured_noise = [repeat for repeat in noise.values() if repeat is not None]
    excess, largest = excess_over_floor(measures, measured_noise, on_policy=on_policy, confidence=confidence)
    floors = Floors(
        **{
            side: floor(repeat, composition=repeats.composition, on_policy=on_policy, confidence=confidence)
            for side, repeat in noise.items()
            if repeat is not None
        },
        excess=excess,
    )

    alpha1 = alpha(measures, on_policy=on_policy, confidence=confidence, tail=tail)
    tokens = token_measures(measures, on_policy=on_policy, confidence=confidence)
    sequences = sequence_measures(measures, on_policy=on_policy, confidence=confidence)
    limits = bounds(measures, alpha1, sequences, on_policy=on_policy, confidence=confidence)
    others = {}
    if target is not None:
        others, slack = _three_policies(behavior, reference, target, policy, alpha1, confidence)
        limits = limits.model_copy(update=slack)
    counts = _counts(alignment, measures)
    sides = {side: _provenance(trace) for side, trace in (("behavior", behavior), ("reference", reference))}
    return Report(
        finding=finding(alpha1, floors, counts, identical=measures.identical),
        evidence=measures.evidence,
        policy=policy,
        counts=counts,
        alpha1=alpha1,
        **others,
        token=tokens,
        sequence=sequences,
        floor=floors,
        truncation_floor=tokens.leak.mean if tokens.leak is not None and _transforms(behavior) else None,
        corrections=correction_rows(measures) if on_policy else [],
        bounds=limits,
        baseline=None
        if baseline is None
        else _versions(behavior, reference, baseline, measures, floors, policy, on_policy, confidence, on_rows),
        rounding_floor=rounding_floor(behavior, reference),
        alarms=alarms(
            measures,
            on_policy=on_policy,
            **sides,
            pareto_k=sequences.pareto_k,
            unmatched=(counts.unmatched_behavior, counts.unmatched_reference),
            rejected=counts.rejected,
            floors=floors,
            notes=list(alignment.notes),
        ),
        worst=worst_tokens(measures, behavior),
        figures=figures(measures, largest, confidence=confidence),
        provenance=Provenance(
            **sides,
            target=_provenance(target) if target is not None else None,
            difference=differences(**sides),
            machine=machine_facts(),
            command=command,
            duration_s=round(time.monotonic() - started, 3),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            tool_version=__version__,
        ),
    )


def _checked_policy(policy: Policy | None, behavior: Trace) -> Policy:
    recorded = behavior.manifest.policy
    if policy is None or policy == recorded:
        return recorded
    if policy == "support" and recorded == "processed":
        return policy
    if {policy, recorded} == {"raw", "processed"} and not _transforms(behavior):
        return policy  # with temperature 1 and nothing cut off they are the same distribution
    raise NotComparableError(
        f"The behaviour trace holds the {recorded} policy, so the {policy} one cannot be compared.",
        hint="compare the trace named …-raw beside it"
        if policy == "raw"
        else "compare the trace it was split from",
    )


def _transforms(trace: Trace) -> bool:
    """Whether the sampler changed the distribution: temperature, top-k or top-p."""
    sampling = trace.manifest.sampling or {}
    temperature, top_p, top_k = (sampling.get(key) for key in ("temperature", "top_p", "top_k"))
    return (temperature or 1.0) != 1.0 or (top_p or 1.0) < 1.0 or (top_k or 0) > 0 or temperature == 0.0


def _repeat(first: Trace, second: Trace | None, on_rows: Callable[[int], None] | None) -> StateMeasures | None:
    if second is None:
        return None
    return measure_states(align(first, second), first.manifest.policy, on_rows)


def _three_policies(
    behavior: Trace, reference: Trace, target: Trace, policy: Policy, alpha1: Alpha, confidence: float
) -> tuple[dict[str, Alpha], dict[str, float | None]]:
    """α₀ = TV(π_old, π_θ) and β = TV(μ, π_θ), measured directly; and the slack of β ≤ α₀ + α₁."""
    old_new = measure_states(align(reference, target), reference.manifest.policy)
    alpha0 = alpha(old_new, on_policy=False, confidence=confidence)
    behavior_new = measure_states(align(behavior, target), policy)
    beta = alpha(behavior_new, on_policy=policy != "raw" or not _transforms(behavior), confidence=confidence)
    slack = {"slack_observed_max": alpha0.observed_max + alpha1.observed_max - beta.observed_max}
    means = [block.mean.value for block in (alpha0, alpha1, beta)]
    slack["slack_mean"] = None if None in means else means[0] + means[1] - means[2]
    return {"alpha0": alpha0, "beta": beta}, slack


def _versions(
    new: Trace,
    reference: Trace,
    old: Trace,
    measures: StateMeasures,
    floors: Floors,
    policy: Policy,
    on_policy: bool,
    confidence: float,
    on_rows: Callable[[int], None] | None,
) -> BaselineComparison:
    return compare_versions(
        measures,
        measure_states(align(old, reference), policy, on_rows, behavior_topk=False),
        measure_states(align(new, old), policy, on_rows),
        noise=floors.behavior.mean.value if floors.behavior is not None else None,
        provenance=_provenance(old),
        # The old engine decodes the tokens that the new one drew: the same path, one token at a time.
        difference=differences(_provenance(new) | {"path": "decode"}, _provenance(old)),
        on_policy=on_policy,
        confidence=confidence,
    )


def _scored_from(scored: Trace, source: Trace) -> bool:
    """Whether the ids observed in `scored` are the top-k of `source`; a repeat of the same run does not say."""
    return scored.manifest.parent in (None, source.sha256)


def _counts(alignment: Alignment, measures: StateMeasures) -> Counts:
    return Counts(
        prompts=alignment.counts.prompts,
        sequences=alignment.counts.sequences,
        tokens=measures.token_id_N.size,
        full_states=int(measures.exact_N.sum()),
        unmatched_behavior=alignment.counts.unmatched_behavior,
        unmatched_reference=alignment.counts.unmatched_reference,
        rejected=alignment.counts.rejected,
    )


def _provenance(trace: Trace) -> dict[str, Any]:
    """What the manifest says of how the trace was made; its counts and checksums say nothing of that."""
    return trace.manifest.model_dump(
        mode="json",
        exclude={"counts", "files", "complete", "schema_version", "notes", "parent", "evidence", "seeds"},
    )
