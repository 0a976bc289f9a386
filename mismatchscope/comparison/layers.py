"""Two sides' insides held together, from the files that their engines have written of the same sequences.

Shapes: T tokens of a sequence, H width of a stage, E experts, k chosen ones of a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engines.common.stage_files import Internals as Shown
from ..engines.common.stage_files import finished_internals, read_internals
from ..engines.common.stages import (
    EMBEDDING,
    EXPERT_IDS,
    EXPERT_WEIGHTS,
    LAYER,
    LOGITS,
    NORM,
    ROUTER,
    in_order,
    kind_of,
    layer_of,
    read_by,
)
from ..errors import NotComparableError
from ..measures.layer_difference import ROUNDING, LayerSums, Output, Place
from ..measures.layer_results import Internals, UnmatchedStage
from ..records import Request

_STREAMS = (EMBEDDING, LAYER, NORM, LOGITS)


@dataclass(frozen=True)
class ShownBy:
    """Directories of files: of the behaviour, of the reference, and of the reference's stages on the behaviour's
    values, where it could take them."""

    behavior: Path
    reference: Path
    swapped: Path | None = None


def internals_of(shown: ShownBy, requests: Iterable[Request], *, confidence: float = 0.95) -> Internals:
    """Held together stage by stage.

    Raises `NotComparableError` where they have no sequence, or no stage of the same width, in common.
    """
    files = [finished_internals(place) for place in (shown.behavior, shown.reference, shown.swapped) if place]
    sums: LayerSums | None = None
    matched: _Matched | None = None
    prompts: dict[bytes, int] = {}
    for request in requests:
        if not all(request.sequence_id in each for each in files):
            continue
        behavior, reference, *swapped = (read_internals(each[request.sequence_id]) for each in files)
        if matched is None:
            matched = _match(behavior, reference)
            sums = LayerSums(
                {stage: Place(kind_of(stage), read_by(stage, matched.stages)) for stage in matched.stages}
            )
        assert sums is not None and request.prompt_token_ids is not None
        prompt = prompts.setdefault(request.prompt_token_ids.tobytes(), len(prompts))
        row = sums.begin(prompt, len(behavior.stages[matched.stages[0]].bits))
        for stage in matched.stages:
            outputs = _outputs(stage, matched, behavior, reference, *swapped)
            if outputs is not None:
                sums.add(row, stage, *outputs)
    if sums is None or matched is None:
        raise NotComparableError("No sequence was seen inside both sides.", hint="the logs say why")
    streams = [stage for stage in matched.stages if kind_of(stage) in _STREAMS]
    return sums.result(streams, matched.unmatched, confidence=confidence)


@dataclass(frozen=True)
class _Matched:
    """The stages that both sides have, in order, and why others cannot be compared."""

    stages: list[str]
    unmatched: list[UnmatchedStage]
    vocabulary: int | None


def _match(behavior: Shown, reference: Shown) -> _Matched:
    unmatched = dict(_not_shown(behavior, "the behaviour")) | dict(_not_shown(reference, "the reference"))
    here, there = behavior.stages.keys(), reference.stages.keys()
    for stage in here ^ there:
        side = "behaviour" if stage in here else "reference"
        unmatched.setdefault(stage, f"only the {side} has such a stage")
    common: list[str] = []
    vocabulary = None
    for stage in in_order(here & there):
        if kind_of(stage) == EXPERT_IDS:
            continue  # a choice, which has no relative error: the weights show it
        sides = behavior.stages[stage], reference.stages[stage]
        widths = [side.shape[-1] for side in sides]
        if stage == LOGITS and widths[0] != widths[1]:
            vocabulary = min(widths)
            unmatched[stage] = f"{max(widths):,} and {min(widths):,} ids: the first {min(widths):,} are compared"
        elif widths[0] != widths[1]:
            unmatched[stage] = f"the behaviour's has {widths[0]:,} values, the reference's {widths[1]:,}"
            continue
        if any(side.dtype not in ROUNDING for side in sides):
            unmatched[stage] = f"in {sides[0].dtype} and {sides[1].dtype}, which are not compared"
            continue
        common.append(stage)
    if not common:
        reasons = "; ".join(f"{stage}: {unmatched[stage]}" for stage in in_order(unmatched)[:3])
        raise NotComparableError(
            f"The two models have no stage in common that can be compared: {reasons}.",
            hint="both sides must run models of one architecture and size",
        )
    return _Matched(common, [UnmatchedStage(stage, unmatched[stage]) for stage in in_order(unmatched)], vocabulary)


def _not_shown(side: Shown, name: str) -> Iterator[tuple[str, str]]:
    for stage, reason in side.unmatched.items():
        if "*" not in stage:
            yield stage, f"{name}: {reason}"


def _outputs(stage: str, matched: _Matched, *sides: Shown) -> list[Output] | None:
    """The reference's, the behaviour's, and the reference's on the behaviour's values; None where none is left."""
    behavior, reference, *swapped = sides
    ordered = [reference, behavior, *(each for each in swapped if stage in each.stages)]
    if kind_of(stage) == EXPERT_WEIGHTS:
        return _weights_of_experts(stage, ordered)
    lengths = {len(side.stages[stage].bits) for side in ordered}
    if len(lengths) > 1:
        raise NotComparableError(f"The sides show {stage} of {' and '.join(map(str, sorted(lengths)))} tokens.")
    width = matched.vocabulary if stage == LOGITS else None
    return [Output(side.stages[stage].floats()[:, :width], side.stages[stage].dtype) for side in ordered]


def _weights_of_experts(stage: str, sides: list[Shown]) -> list[Output] | None:
    """As [T, E], so that slots may have any order, at the tokens whose experts are the same on all sides."""
    number = layer_of(stage)
    names = f"layers.{number}.{EXPERT_IDS}", f"layers.{number}.{ROUTER}"
    if any(name not in side.stages for side in sides for name in names):
        return None
    ids = [side.stages[names[0]].bits.astype(np.int64) for side in sides]
    same_T = np.all([np.sort(each, axis=1) == np.sort(ids[0], axis=1) for each in ids], axis=(0, 2))
    if not same_T.any():
        return None
    outputs = []
    for side, id_Tk in zip(sides, ids, strict=True):
        weight = side.stages[stage]
        dense_TE = np.zeros((len(id_Tk), side.stages[names[1]].shape[-1]), dtype=np.float32)
        np.put_along_axis(dense_TE, id_Tk, weight.floats(), axis=1)
        outputs.append(Output(dense_TE[same_T], weight.dtype))
    return outputs
