"""Pitfalls the tool catches so that the user need not: each alarm says what is wrong, how it shows, what to do."""

from __future__ import annotations

from collections.abc import Iterator

from ..reports.document import Alarm, Counts, Floors
from ..reports.text import count, share
from .context import was_given
from .law_alarms import ratio_alarm, temperature_alarm
from .pair import Pair, PolicyPair


def find_alarms(pair: Pair, counts: Counts, floors: Floors) -> list[Alarm]:
    """Everything that makes the figures of this comparison mean less, or something else, than they seem to."""
    return [
        *_drawing_alarms(pair),
        *temperature_alarm(pair),
        *leak_alarm(pair),
        *_weights_alarm(pair),
        *_adapter_alarm(pair),
        *_row_alarms(counts),
        *_filler_alarms(pair),
        *(() if pair.statistics.identical else _floor_alarm(floors)),
        *(Alarm(code="alignment", message=note) for note in pair.notes),
        *heavy_weights_alarm(pair),
    ]


def heavy_weights_alarm(pair: PolicyPair) -> Iterator[Alarm]:
    """The sequence weights have so heavy a tail that their second moments say nothing."""
    pareto_k, limit = pair.figures.sequence.pareto_k, pair.figures.sequence.pareto_k_limit
    if pareto_k is not None and limit is not None and pareto_k > limit:
        yield Alarm(
            code="heavy_weights",
            message=f"The sequence weights have Pareto k {pareto_k:.2f} > {limit:.2f}: their ESS and χ² "
            "cannot be trusted.",
            evidence={"pareto_k": pareto_k, "limit": limit},
            remedy="read the token measures, or shorter responses in by_length",
        )


def _drawing_alarms(pair: Pair) -> Iterator[Alarm]:
    """Whether μ can have drawn the tokens; nobody says so of a third policy's."""
    if not pair.context.on_policy:
        yield from _off_policy_alarm(pair)
    elif not pair.context.weighted:
        yield from ratio_alarm(pair)


def _off_policy_alarm(pair: Pair) -> Iterator[Alarm]:
    if was_given(pair.mu):
        yield Alarm(
            code="given_tokens",
            message="Both policies were given the tokens, and neither drew them: every mean is over the states of "
            "that text, and sampled-token estimators of TV and KL do not apply.",
            remedy="read the exact figures; what sampling visits may differ",
        )
        return
    exact = "read the exact figures, or " if pair.statistics.all_exact else ""
    yield Alarm(
        code="off_policy_tokens",
        message="The sampler changed the distribution that it drew the tokens from, and the raw policies are "
        "compared: every mean is over the states the sampler visited, and sampled-token estimators of TV and KL do "
        "not apply.",
        remedy=f"{exact}compare --policy processed",
    )


def leak_alarm(pair: PolicyPair) -> Iterator[Alarm]:
    """π has mass where μ has none, or none where μ sampled."""
    statistics, raw = pair.statistics, pair.context.policy == "raw"
    if statistics.impossible:
        masked = "the reference masks or truncates tokens that the behaviour samples"
        yield Alarm(
            code="impossible_tokens",
            message=f"{count(statistics.impossible, 'sampled token')} with probability 0 under the reference: "
            "KL(μ‖π) is infinite.",
            evidence={"tokens": statistics.impossible},
            remedy=masked if raw or not isinstance(pair, Pair) else f"{masked}; compare --policy raw",
        )
    if not statistics.sums["leak"].n:
        return
    leak = statistics.sums["leak"].mean
    if leak > 1e-6:
        yield Alarm(
            code="support_leak",
            message=f"On average {leak:.3g} of π's mass lies on tokens that μ cannot sample: mean TV is at least "
            "that, whatever the numerics.",
            evidence={"leak": leak},
            remedy="look for ids that one side masks or lacks, such as a padded vocabulary"
            if raw
            else "an audit with --policy raw measures the numerics alone, one with --policy support renormalises π "
            "on μ's support; probe sampling tells how much each makes",
        )


def _weights_alarm(pair: Pair) -> Iterator[Alarm]:
    behavior, reference = (trace.manifest.model.weights_sha256 for trace in (pair.mu, pair.pi))
    if None not in (behavior, reference) and behavior != reference:
        yield Alarm(
            code="weights",
            message="The two sides ran different weights: this measures what those do and the numerics together.",
            evidence={"behavior": behavior, "reference": reference},
            remedy="give both sides the same --model",
        )


def _adapter_alarm(pair: Pair) -> Iterator[Alarm]:
    """Over the same base alone, else the weights differ. A side that states none may have an unknown one."""
    behavior, reference = (trace.manifest.model for trace in (pair.mu, pair.pi))
    if behavior.weights_sha256 is None or behavior.weights_sha256 != reference.weights_sha256:
        return
    adapters = [(side.adapter or {}) for side in (behavior, reference)]
    shas, configs = ([adapter.get(key) for adapter in adapters] for key in ("weights_sha256", "config"))
    if shas[0] == shas[1] and configs[0] == configs[1]:
        return
    if None in shas:
        message = "One side ran the model with an adapter, the other states none, so this measures the adapter too."
    elif shas[0] != shas[1]:
        message = "The two sides ran different adapters on the same base, so this measures that difference too."
    else:
        message = "The two sides ran the same adapter weights in another way, so this measures that difference too."
    yield Alarm(
        code="adapter",
        message=message,
        evidence={"behavior": shas[0], "reference": shas[1]},
        remedy="give both sides the same --adapter",
    )


def _floor_alarm(floors: Floors) -> Iterator[Alarm]:
    sides = {"behaviour": floors.behavior, "reference": floors.reference}
    missing = [name for name, floor in sides.items() if floor is None]
    if len(missing) == 1:
        yield Alarm(
            code="one_sided_floor",
            message=f"The {missing[0]} was not measured against itself, so its own noise counts as mismatch here.",
            remedy="an engine that can score through decoding, or compare --behavior-repeat / --reference-repeat",
        )


def _filler_alarms(pair: Pair) -> Iterator[Alarm]:
    """What stands where no log-prob was recorded, and what was stored in less precision than the other side."""
    fillers, sampling = pair.statistics.fillers, pair.mu.manifest.sampling
    may_be_sampled = sampling is None or sampling.truncates or sampling.temperature == 0
    for found in fillers.found(zeros_may_be_sampled=may_be_sampled):
        yield Alarm(
            code="filler",
            message=found.message,
            evidence={
                "kind": found.kind,
                "side": found.side,
                "rows": found.rows,
                "share": found.rows / found.of_rows,
                "sequence_id": found.place[0],
                "position": found.place[1],
            },
            remedy="leave rows that nobody sampled out with a loss mask; record the log-probs of the others",
            severity="error",
        )
    rounded = fillers.rounded()
    if rounded is not None:
        yield Alarm(
            code="rounded_logprobs",
            message=rounded.message,
            evidence={
                "side": rounded.side,
                "bits": rounded.bits,
                "share": rounded.share,
                "other": rounded.other_share,
            },
            remedy="a fact, it limits what can be resolved: store log-probs in float32",
        )


def _row_alarms(counts: Counts) -> Iterator[Alarm]:
    if counts.prompt_ids is not None and counts.prompts < counts.prompt_ids:
        yield Alarm(
            code="equal_prompts",
            message=f"{counts.prompt_ids:,} prompt ids hold {count(counts.prompts, 'distinct prompt')}: rows whose "
            "prompt tokens are equal count as one prompt in every interval.",
            evidence={"prompt_ids": counts.prompt_ids, "prompts": counts.prompts},
            remedy="more responses of a prompt are --samples; for narrower intervals add other prompts",
        )
    if counts.unmatched_behavior or counts.unmatched_reference:
        yield Alarm(
            code="unmatched",
            message="Sequences that exist on one side only are counted, not compared: "
            f"{counts.unmatched_behavior:,} on the behaviour's, {counts.unmatched_reference:,} on the reference's.",
            evidence={"behavior": counts.unmatched_behavior, "reference": counts.unmatched_reference},
            remedy="find out which are missing: a selective loss biases every figure",
        )
    if counts.rejected:
        rows = counts.tokens + counts.rejected
        lost = max(0, (counts.matched_sequences or 0) - counts.sequences)
        yield Alarm(
            code="rejected",
            message=f"In no figure, for a log-prob that is NaN or +inf: {counts.rejected:,} of {rows:,} rows "
            f"({share(counts.rejected / rows)}). In no figure of responses, for such a row: "
            f"{count(counts.partial_sequences, 'response')}, and {lost:,} without any row left.",
            evidence={"rows": counts.rejected, "partial_sequences": counts.partial_sequences, "lost": lost},
            remedy="mend what writes them; what is left need not be like what is missing",
            severity="error",
        )
