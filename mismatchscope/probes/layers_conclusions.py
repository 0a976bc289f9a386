"""What the stages of two models say together: where they come apart, and what makes it more than rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..engines.common.stages import (
    ATTENTION,
    ATTENTION_NORM,
    EXPERT_WEIGHTS,
    LAYER,
    LOGITS,
    MLP,
    MLP_NORM,
    NORM,
    ROUTER,
    kind_of,
    layer_of,
)
from ..reports.text import count, estimate

if TYPE_CHECKING:
    from ..measures.layer_results import Internals, StageDifference
    from ..reports.pair_fields import ProbeConclusion

_MOST_LISTED = 4

_KINDS = {
    ATTENTION_NORM: "the norm before attention",
    ATTENTION: "attention",
    MLP_NORM: "the norm before the MLP",
    MLP: "the MLP",
    ROUTER: "the router",
    EXPERT_WEIGHTS: "the experts' weights",
    NORM: "the final norm",
    LOGITS: "the head",
    LAYER: "the residual sum",
}

_LOOK_AT = {
    ATTENTION_NORM: "the norms' epsilon and weights",
    MLP_NORM: "the norms' epsilon and weights",
    NORM: "the norm's epsilon and weight",
    MLP: "its weights, and their order where there are experts",
    ROUTER: "the router's weights and precision",
    EXPERT_WEIGHTS: "how the experts' weights are normalised and scaled",
    LOGITS: "the head's weights, precision, scale and soft cap",
}


def conclusions(found: Internals, why_not_swapped: str | None) -> list[ProbeConclusion]:
    """`why_not_swapped`: why no stage of one side was run on the other's values."""
    return [
        *_standing_out(found),
        *_first(found),
        *_ordinary(found, why_not_swapped),
        *_course(found),
        *_not_compared(found),
    ]


def _first(found: Internals) -> Iterator[ProbeConclusion]:
    seen = f"{count(found.tokens, 'token')} of {count(found.sequences, 'sequence')}"
    if found.first_difference is None:
        yield _conclusion(
            "identical", f"All {len(found.stages)} stages have the same values on both sides, at {seen}."
        )
        return
    stage = found.stage(found.first_difference)
    error = f"by {_interval(stage)} of its size"
    if found.same_prefix == 0:
        sentence = f"The two sides differ from the first stage on, {stage.stage}, {error}, at {seen}."
    else:
        before = found.stages[found.same_prefix - 1].stage
        same = "The first stage has" if found.same_prefix == 1 else f"The first {found.same_prefix} stages have"
        sentence = f"{same} the same values on both sides, up to {before}; the first to differ is {stage.stage}, "
        sentence += f"{error}."
    yield _conclusion("first_difference", sentence)


def _standing_out(found: Internals) -> Iterator[ProbeConclusion]:
    """What creates more than rounding, in the order in which a forward comes to it, a kind of stage at a time."""
    for why in _SENTENCES:
        odd = [stage for stage in found.stages if stage.stands_out == why]
        for kind in dict.fromkeys(kind_of(stage.stage) for stage in odd):
            own = [stage for stage in odd if kind_of(stage.stage) == kind]
            alike = [stage for stage in found.stages if kind_of(stage.stage) == kind]
            yield _conclusion(why, _SENTENCES[why](own, alike))


def _beyond(own: Sequence[StageDifference], alike: Sequence[StageDifference]) -> str:
    most = max(own, key=lambda stage: stage.times_rounding or 0)
    kind = kind_of(most.stage)
    created = f"{_created(most)} on the same input, {_times(most.times_rounding)} roundings of {most.rounded_to}"
    where = _where(own, alike)
    if len(own) == 1 and len(alike) > 1:
        others = "; in no other layer does it create any"
        if most.times_others is not None:
            others = f", and {_times(most.times_others)} times as much as in any other layer"
        sentence = f"{where} creates {created}{others}"
    elif len(own) > 1:
        sentence = f"{where} creates more than rounding: {most.stage} {created}"
    else:
        sentence = f"{where} creates {created}"
    return f"{sentence}. {_advice(kind, own)}"


def _advice(kind: str, own: Sequence[StageDifference]) -> str:
    if kind != ATTENTION:
        return f"Look at {_LOOK_AT.get(kind, 'its weights')}."
    at_first = [stage for stage in own if beyond_at_first(stage)]
    if not at_first:
        return (
            "Not so at the first token of a sequence, where attention has one key: look at its pattern (rotary "
            "embedding, scale, window, mask), not at its weights."
        )
    return (
        "It does at the first token of a sequence too, where attention has one key: look at its projections, at "
        "what it keeps in its cache, and whether it sees other sequences."
    )


def beyond_at_first(stage: StageDifference) -> bool:
    """Whether a stage that stands out does so at the first token of a sequence, too."""
    assert stage.created is not None and stage.times_rounding is not None
    if stage.created_first is None or not stage.created.value:
        return True
    return stage.times_rounding * stage.created_first / stage.created.value > (stage.limit or 0)


def _other_dtype(own: Sequence[StageDifference], alike: Sequence[StageDifference]) -> str:
    stage = own[0]
    return (
        f"{_where(own, alike)} computes in {stage.dtype} on the behaviour's side and in {stage.reference_dtype} on "
        f"the reference's, from inputs of one precision, and so creates {_created(max(own, key=_size))}."
    )


def _among(own: Sequence[StageDifference], alike: Sequence[StageDifference]) -> str:
    most = max(own, key=_size)
    return (
        f"{_where(own, alike)} creates {_created(most)}, {_times(most.times_others)} times as much as in any other "
        f"layer, yet no more than {_times(most.times_rounding)} roundings of {most.rounded_to}: a small fault or "
        "another kernel, which cannot be told."
    )


_SENTENCES = {"beyond_rounding": _beyond, "other_dtype": _other_dtype, "among_its_kind": _among}


def _ordinary(found: Internals, why_not_swapped: str | None) -> Iterator[ProbeConclusion]:
    if found.first_difference is None:
        return
    if why_not_swapped is not None:
        reason = why_not_swapped[:1].lower() + why_not_swapped[1:].rstrip(".")
        yield _conclusion(
            "cannot_tell", f"Which stage creates the difference and which is given it cannot be told: {reason}."
        )
        return
    known = [stage for stage in found.stages if stage.times_rounding is not None]
    if not known or any(stage.stands_out for stage in known):
        return
    most = max(known, key=lambda stage: stage.times_rounding or 0)
    yield _conclusion(
        "rounding",
        f"No stage stands out: on the same input none creates more than {_times(most.times_rounding)} roundings of "
        f"{most.rounded_to} ({most.stage}; {most.limit:g} would). That is how kernels of this precision "
        "differ, and a fault that does less than that would not show.",
    )


def _course(found: Internals) -> Iterator[ProbeConclusion]:
    """How the difference goes from layer to layer, to the head."""
    layers = [stage for stage in found.stages if kind_of(stage.stage) == LAYER and stage.error.value]
    if len(layers) < 2:
        return
    first, last = layers[0], layers[-1]
    sentence = f"The residual stream differs by {_interval(first)} after {first.stage}"
    sentence += f", by {_interval(last)} after {last.stage}"
    if (head := next((stage for stage in found.stages if stage.stage == LOGITS), None)) is not None:
        sentence += f", and the logits by {_interval(head)}"
    yield _conclusion("course", f"{sentence}.{_amplified(found)}")


def _amplified(found: Internals) -> str:
    known = [stage for stage in found.stages if stage.amplification is not None and kind_of(stage.stage) != LAYER]
    if not known:
        return ""
    most = max(known, key=lambda stage: stage.amplification or 0)
    if (most.amplification or 0) < 1.5:
        return ""
    return f" {most.stage} amplifies most: {_times(most.amplification)} times what it is given."


def _not_compared(found: Internals) -> Iterator[ProbeConclusion]:
    if broken := [stage for stage in found.stages if stage.not_finite]:
        tokens = max(stage.not_finite for stage in broken)
        yield _conclusion(
            "not_finite",
            f"{broken[0].stage} and {len(broken) - 1} stages after it have infinities or no number at up to "
            f"{count(tokens, 'token')}, which are left out.",
        )
    if found.unmatched:
        listed = "; ".join(f"{each.stage} ({each.reason})" for each in found.unmatched[:_MOST_LISTED])
        more = f"; and {len(found.unmatched) - _MOST_LISTED} more" if len(found.unmatched) > _MOST_LISTED else ""
        yield _conclusion("not_compared", f"Not compared: {listed}{more}.")


def _where(own: Sequence[StageDifference], alike: Sequence[StageDifference]) -> str:
    """`layers.2.mlp`, `Attention of every layer`, `Attention of layers 0, 2 and 3`: the beginning of a sentence."""
    kind = kind_of(own[0].stage)
    if len(own) == 1:
        return own[0].stage
    name = _KINDS.get(kind, kind.replace("_", " "))
    name = name[:1].upper() + name[1:]
    if len(own) == len(alike):
        return f"{name} of every layer"
    layers = [str(layer_of(stage.stage)) for stage in own]
    if len(layers) > _MOST_LISTED:
        return f"{name} of {len(layers)} of {len(alike)} layers, the first of them {layers[0]},"
    return f"{name} of layers {', '.join(layers[:-1])} and {layers[-1]}"


def _times(value: float | None) -> str:
    """A multiple, to two decimals or three digits."""
    assert value is not None, "a stage that is spoken of has it"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _size(stage: StageDifference) -> float:
    return 0.0 if stage.created is None else stage.created.value or 0.0


def _created(stage: StageDifference) -> str:
    created = stage.created
    return "" if created is None else estimate(created.value, created.low, created.high)


def _interval(stage: StageDifference) -> str:
    return estimate(stage.error.value, stage.error.low, stage.error.high)


def _conclusion(code: str, sentence: str) -> ProbeConclusion:
    from ..reports.pair_fields import ProbeConclusion

    return ProbeConclusion(code, sentence)
