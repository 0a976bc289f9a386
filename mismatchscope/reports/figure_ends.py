"""Between which ends a figure is known to lie: the rule by which a gate may conclude anything from it.

A gate decides on the ends, never on the figure itself:

- Counts, truth values and what was set rather than sampled are exact: both ends are the number.
- A mean lies in its confidence interval, and so does what has limits beside it: `ess_fraction` between
  `ess_fraction_low` and `ess_fraction_high`, a quantile between its `quantile_limits`.
- A lower bound has a lower end alone: what stands under a key that ends in `_lower`, and every maximum over visited
  states, which more states can only raise. An upper limit has an upper end alone: a key that ends in `_upper`, a
  tolerance bound. Such a figure decides on its own side.
- An end that is named (`alpha1.mean.high`) is a number that the report states: compared with a threshold as it
  stands. Another run states another one, so against a baseline it decides nothing.
- Everything else is an estimate of unknown error and has no end.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .fields import field_types

CENTERS = ("mean", "value")
_QUANTILES = ("p50", "p90", "p99", "p999")
_OF_WEIGHTS = ("ess_fraction", "chi2")
_FOLLOWS = ("rounding_floor", "unseen_share", "pareto_k_limit")

LOWER_BOUND = "it is a lower bound: it can show that the figure is larger, never that it is smaller"
LARGEST_SEEN = "other states may have larger ones: the largest value seen can fail a gate on >, never pass it"
NOT_ALIKE = "a row that is not shown to differ is not shown to be like the others"
UPPER_LIMIT = "it is an upper limit: it can show that the figure is smaller, never that it is larger"
CERTIFIED_ENDS = "the threshold lies between the certified ends: fuller evidence decides, more prompts do not"
RUN_TO_RUN = "it differs from run to run by an unknown amount: gate on a mean or a quantile"
NO_INTERVAL = "an estimate without an interval decides nothing"
_METHODS = {
    "too-few-clusters": "one prompt gives no interval: measure more prompts",
    "no-between-cluster-variance": "prompts that do not differ at all give no interval",
    "noise-hides-the-ratio": "a few extreme steps make the means: more steps are needed",
    "few-prompts-make-it": "a few extreme responses make it: measure more prompts",
    "lower-ends-only": LOWER_BOUND,
}


@dataclass(frozen=True)
class Figure:
    """A number, known to lie from `low` to `high`; None is an end that nothing is known of.

    `value` None is unknown. `reason` says why something is unknown, or what the figure cannot show. `of_this_run`
    says that the ends hold for the run that was made, and say nothing of another like it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    of_this_run: bool = False


def known_ends(keys: Sequence[str], parent: Any, node: Any) -> Figure:
    """The figure `node`, which stands in the record `parent` at the end of the path `keys`; None: not measured."""
    key = keys[-1]
    if key in CENTERS and hasattr(parent, "low"):
        found = _between(node, parent.low, parent.high, why_open(parent, key))
    elif node is None:
        return Figure(None, reason=why_open(parent, key))
    else:
        found = _single(key, parent, node)
    if _is_exact(parent, key):
        return found
    if _in_group(keys, "_lower"):
        return replace(found, low=None if key == "high" else found.low, high=None, reason=LOWER_BOUND)
    if _in_group(keys, "_upper"):
        return replace(found, low=None, high=None if key == "low" else found.high, reason=UPPER_LIMIT)
    return found


def why_open(parent: Any, key: str) -> str | None:
    """Why a figure of this name in the record is unknown, or has no interval; None where nothing says so."""
    reason = getattr(parent, "reason", None)
    if key in _OF_WEIGHTS:
        reason = reason or getattr(parent, "weights_reason", None)
    if reason:
        return str(reason)
    if key in CENTERS:
        return _METHODS.get(getattr(parent, "method", None) or "")
    if getattr(parent, f"{key}_lower", None) is not None:
        return f"the evidence gives a lower bound alone, {key}_lower"
    return "this evidence bounds nothing from above" if key.endswith("_upper") else None


def _single(key: str, parent: Any, node: float | bool) -> Figure:
    """A number that is no mean."""
    value = _number(node)
    if hasattr(parent, "trainer"):  # a trainer's own metric is the number that it logs, whatever that estimates
        return Figure(value, value, value, of_this_run=True)
    if key == "differs" and not node:
        return Figure(value, low=value, reason=NOT_ALIKE)
    if _is_exact(parent, key):
        return Figure(value, value, value)
    if key == "observed_upper":
        # The maximum over the visited states lies between the two: seen to be so large, and bounded by this.
        low = _number(getattr(parent, "observed_max", None))
        return Figure(value, low, value, CERTIFIED_ENDS, of_this_run=True)
    if key in ("low", "high") or key.endswith(("_low", "_high")):
        return Figure(value, value, value, of_this_run=True)
    if key in ("max", "observed_max"):
        return Figure(value, low=value, reason=LARGEST_SEEN)
    if key.endswith("_upper") or (key == "value" and hasattr(parent, "quantile")):
        return Figure(value, high=value, reason=UPPER_LIMIT)
    if key in _QUANTILES:
        low, high = (getattr(parent, "quantile_limits", None) or {}).get(key, (None, None))
        return _between(node, low, high)
    if hasattr(parent, f"{key}_upper"):  # a share and its one-sided limit
        return Figure(value, high=_number(getattr(parent, f"{key}_upper")), reason=UPPER_LIMIT)
    low, high = (getattr(parent, f"{key}_{end}", None) for end in ("low", "high"))
    return _between(node, low, high, why_open(parent, key))


def _between(node: float | None, low: float | None, high: float | None, reason: str | None = None) -> Figure:
    """An estimate and its interval, as far as there is one; `reason` says why there is none."""
    open_ended = None in (low, high)
    return Figure(_number(node), _number(low), _number(high), (reason or NO_INTERVAL) if open_ended else None)


def _in_group(keys: Sequence[str], ending: str) -> bool:
    """Whether the figure belongs to a group of such a name, as `token.tv_lower.mean` does."""
    return any(key.endswith(ending) for key in keys[:-1])


def _is_exact(parent: Any, key: str) -> bool:
    """Whether the field holds a count or a truth value, or something that follows from those and from settings."""
    declared = field_types(parent.__class__).get(key)
    return key in _FOLLOWS or {int, bool}.issuperset(set(typing.get_args(declared) or (declared,)) - {type(None)})


def _number(node: Any) -> float | None:
    """None for what is no number at all."""
    return None if node is None or math.isnan(node) else float(node)
