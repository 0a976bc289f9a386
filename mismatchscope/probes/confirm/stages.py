"""Which kind of stage inside the model creates more than rounding: what the experiment `layers` has found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engines.common.stages import (
    ATTENTION,
    ATTENTION_NORM,
    ATTENTION_POST_NORM,
    EXPERT_WEIGHTS,
    LOGITS,
    MLP,
    MLP_NORM,
    MLP_POST_NORM,
    NORM,
    ROUTER,
    kind_of,
)
from ..layers_conclusions import beyond_at_first
from .found import UNCLEAR

if TYPE_CHECKING:
    from ...measures.layer_results import Internals

_ATTENTION, _NORM, _ROUTER = "attention", "norm", "router"
_NAMES = {
    ATTENTION: _ATTENTION,
    **dict.fromkeys((ATTENTION_NORM, ATTENTION_POST_NORM, MLP_NORM, MLP_POST_NORM, NORM), _NORM),
    MLP: "mlp",
    **dict.fromkeys((ROUTER, EXPERT_WEIGHTS), _ROUTER),
    LOGITS: "head",
}


def result_of(found: Internals | None) -> str:
    """The one kind of stage that creates more than rounding on the same input; `UNCLEAR` of none or several.

    Attention has norms of its own in some models, and so is a norm's result where both do. Alone it is "pattern"
    where that is not so at the first token of a sequence, which has one key.
    """
    odd = [] if found is None else [stage for stage in found.stages if stage.stands_out == "beyond_rounding"]
    kinds = {_NAMES.get(kind_of(stage.stage), UNCLEAR) for stage in odd}
    if kinds == {_NORM, _ATTENTION}:
        return _NORM
    if len(kinds) != 1:
        return UNCLEAR
    (kind,) = kinds
    if kind == _ATTENTION and not any(map(beyond_at_first, odd)):
        return "pattern"
    return kind
