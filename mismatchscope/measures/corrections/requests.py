"""What a person asks for as `--correction`: `icepop:low=0.5,high=2`, `verl`, `verl.decoupled_geo_rs`."""

from __future__ import annotations

import difflib
import math

from ...errors import UsageError
from .catalogue import RULES
from .presets import BY_KEY, PRESETS, TRAINERS
from .second_moment import M2PO, THRESHOLD
from .setting import Setting


def settings_asked(text: str) -> tuple[Setting, ...]:
    """The settings that a request names: a rule at thresholds, one preset, or all those of a trainer.

    A rule's thresholds that are not given are the usual ones. Raises `UsageError` for a name that is none, and for
    thresholds that the rule does not have or that it cannot use.
    """
    name, _, rest = text.strip().partition(":")
    name = name.strip().replace("-", "_")
    if name in RULES or name == M2PO:
        return (Setting(name, _parameters(name, rest)),)
    presets = [preset for preset in PRESETS if name in (preset.key, preset.trainer)]
    if not presets:
        raise UsageError(f"There is no correction '{name}'.", hint=_nearest(name))
    if rest:
        raise UsageError(
            f"The preset '{name}' has the thresholds of its trainer and takes no others.",
            hint="give them to a rule, as in icepop:low=0.5,high=2",
        )
    return tuple(Setting(preset.key) for preset in presets)


def _nearest(name: str) -> str:
    known = [*RULES, M2PO, *TRAINERS, *BY_KEY]
    found = difflib.get_close_matches(name, known, n=3)
    return (
        f"did you mean {' or '.join(found)}?"
        if found
        else f"rules: {', '.join([*RULES, M2PO])}; presets: {', '.join(TRAINERS)}"
    )


def _parameters(rule_name: str, text: str) -> dict[str, float]:
    usual, known, of_ratio = _thresholds(rule_name)
    given: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or key not in known:
            raise UsageError(
                f"The correction {rule_name} has no threshold '{key}'.",
                hint=f"it has {', '.join(known)}, as in {_example(rule_name)}",
            )
        if key in given:
            raise UsageError(f"The correction {rule_name} has the threshold {key} twice.", hint="give it once")
        given[key] = _number(rule_name, key, value)
    found = {**usual, **given}
    if found.get("low", 0.0) > found.get("high", found.get("cap", math.inf)) and of_ratio:
        raise UsageError(
            f"The band of {rule_name} is empty: low {found['low']:g} is above its upper bound.",
            hint="bounds are on the ratio π_old/μ itself, not on its negative logarithm, which swaps them",
        )
    return found


def _thresholds(rule_name: str) -> tuple[dict[str, float], tuple[str, ...], bool]:
    """(the usual thresholds of a rule, the names of all that it takes, whether they are of ρ itself)."""
    if rule_name == M2PO:
        return {"threshold": THRESHOLD}, ("threshold",), False
    rule = RULES[rule_name]
    return rule.usual[0], rule.parameters, not rule.needs


def _number(rule_name: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and (value > 0 or (value == 0 and key == "low")):
        return value
    raise UsageError(
        f"The threshold {key} of {rule_name} is a positive number, not '{text.strip()}'.",
        hint=f"as in {_example(rule_name)}",
    )


def _example(rule_name: str) -> str:
    return f"{rule_name}:{','.join(f'{key}={value:g}' for key, value in _thresholds(rule_name)[0].items())}"
