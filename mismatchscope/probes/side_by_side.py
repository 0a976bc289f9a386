"""Which comparisons are of two settings that one process can score side by side, batch by batch.

Where whole distributions are too large to be stored, those comparisons see them all the same: they are compared
where they are computed. Each takes a start of its own, with both models in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..engines.spec import EngineSpec, resolve_options
from ..errors import SpecError
from .plan import Comparison, Plan, Setting

_ENGINE = "transformers"

_SHARED = (
    *("batch_size", "order", "logprob_chunk", "device", "device_map"),
    *("threads", "deterministic", "matmul_precision", "reduced_precision_reduction"),
)
"""Options that both models must have alike: what is computed together, and what holds for a whole process."""


@dataclass(frozen=True)
class DividedPlan:
    """The comparisons that are made `side_by_side`, and `rest`, the plan without them."""

    side_by_side: Sequence[Comparison]
    rest: Plan


def divided(plan: Plan, *, side_by_side: bool) -> DividedPlan:
    """A plan divided into the two; without `side_by_side` nothing is."""
    able = [comparison for comparison in plan.comparisons if side_by_side and fits_one_process(comparison)]
    if not able:
        return DividedPlan((), plan)
    rest = [comparison for comparison in plan.comparisons if comparison not in able]
    return DividedPlan(able, replace(plan, comparisons=rest))


def fits_one_process(comparison: Comparison) -> bool:
    """Whether both sides are of transformers and score the same sequences, in the same batches, along one path.

    A repeat is not: what is asked of it is another time, or another process.
    """
    settings = comparison.policies
    one, other = (_batches(setting) for setting in settings)
    if one != other or any(setting.drawn or setting.path == "rollout" for setting in settings):
        return False
    if any(setting.again or setting.start or setting.policy != "processed" for setting in settings):
        return False
    if any(setting.replay is not None or setting.longer_than for setting in settings):
        return False
    if any(setting.spec.name != _ENGINE for setting in settings):
        return False
    try:
        shared = [_shared(setting.spec) for setting in settings]
        return shared[0] == shared[1] and not any(_in_parts(setting.spec) for setting in settings)
    except SpecError:  # which is for the run of the setting to say
        return False


def _batches(setting: Setting) -> tuple[Any, ...]:
    return setting.path, setting.composition, setting.tokens


def _in_parts(spec: EngineSpec) -> bool:
    """Whether the model is spread over several processes."""
    options: Any = resolve_options(spec)
    return bool(options.fsdp)


def _shared(spec: EngineSpec) -> tuple[Any, ...]:
    options = resolve_options(spec)
    return spec.version, spec.python, spec.url, *(getattr(options, key) for key in _SHARED)
