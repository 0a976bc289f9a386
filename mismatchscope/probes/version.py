"""Many engines against one trainer: other versions of the behaviour's engine, or any SPECs, on the same tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..collection.capabilities import capabilities_of
from ..engines.spec import EngineSpec, parse_spec, with_adapter
from ..errors import ConfigError
from ..reports.text import estimate
from .conclusions import gap, measured
from .plan import Comparison, Path, Plan, Probe, Question, Setting

if TYPE_CHECKING:
    from ..reports.pair_fields import Completions, ProbeCell, ProbeConclusion

_VERSION = re.compile(r"v?([0-9][A-Za-z0-9_.+!-]*)")
_EXAMPLE = "--values 0.27.1 --values vllm:enforce_eager=false"


def _plan(question: Question) -> Plan:
    behavior = question.behavior
    specs = list({_same(spec): spec for spec in (behavior, *_asked(question))}.values())
    if len(specs) == 1:
        raise ConfigError("There is nothing to hold the behaviour's engine against.", hint=_EXAMPLE)
    # One path for all of them: a difference between two is then none of decode and prefill.
    decode = all("decode" in capabilities_of(spec).paths for spec in specs)
    path: Path = "decode" if decode else "prefill"
    trainer = Setting("trainer", "reference", question.reference, "prefill")
    first, *others = (Setting(_label(spec, behavior), "behavior", spec, path) for spec in specs)
    usual = Comparison(trainer, first)
    return Plan(
        factor=f"the engine, from {behavior}",
        comparisons=[usual, *(Comparison(trainer, other, less=(usual,)) for other in others)],
        ranked=True,
    )


def _asked(question: Question) -> Iterator[EngineSpec]:
    """Each value is a SPEC, commas and all, or a version of the behaviour's engine."""
    for value in question.values:
        version = _VERSION.fullmatch(value.strip())
        if version is None:
            yield with_adapter(parse_spec(value.strip()), question.adapter)
        elif question.behavior.served:
            raise ConfigError(f"The server of the behaviour has one version, and not '{value}'.", hint=_EXAMPLE)
        else:
            yield replace(question.behavior, version=version[1], python=None)


def _same(spec: EngineSpec) -> str:
    """Whatever the order of its options is."""
    return str(replace(spec, options=dict(sorted(spec.options.items()))))


def _label(spec: EngineSpec, usual: EngineSpec) -> str:
    """What differs from the behaviour's SPEC: `vllm==0.27.1`, `dtype=float32`, `vllm==0.27.1:default dtype`."""
    options, usual_options = _pairs(spec), _pairs(usual)
    changed = [f"{key}={value}" for key, value in options.items() if usual_options.get(key) != value]
    if spec.name == usual.name:
        changed += [f"default {key}" for key in usual_options if key not in options]
    head, usual_head = (str(replace(each, options={}, python=None)) for each in (spec, usual))
    return ":".join(filter(None, [head if head != usual_head or not changed else "", ",".join(changed)]))


def _pairs(spec: EngineSpec) -> dict[str, str]:
    python = {"python": spec.python} if spec.python is not None else {}
    return spec.options | python


def _conclude(cells: Sequence[ProbeCell], completions: Sequence[Completions]) -> list[ProbeConclusion]:
    return list(_conclusions(cells))


def _conclusions(cells: Sequence[ProbeCell]) -> Iterator[ProbeConclusion]:
    """First how far the behaviour is, then who is told from it; the behaviour's cell alone has no difference."""
    from ..reports.pair_fields import ProbeConclusion

    usual = next(cell for cell in cells if not cell.differences)
    if usual.pair is None:
        yield ProbeConclusion(
            "no_behavior", f"{usual.setting} could not be measured, so that none is held against it."
        )
        return
    yield ProbeConclusion("behavior", f"{usual.engine} against the trainer: {gap(usual.pair)}.")
    same, open_ = [], []
    for cell, _ in measured(cells):
        for difference in cell.differences:
            value, low, high = difference.tv.value, difference.tv.low, difference.tv.high
            if low is not None and low > 0:
                more = f"than {usual.setting}: mean TV is higher by {estimate(value, low, high)}"
                yield ProbeConclusion("further", f"{cell.setting} is further from the trainer {more}.")
            elif high is not None and high < 0 and value is not None and low is not None:
                less = f"than {usual.setting}: mean TV is lower by {estimate(-value, -high, -low)}"
                yield ProbeConclusion("closer", f"{cell.setting} is closer to the trainer {less}.")
            elif value == 0 and low is None and difference.tv.clusters > 1:  # no prompt's mean differs
                same.append(cell.setting)
            else:
                open_.append(cell.setting)
    if same:
        yield ProbeConclusion(
            "same", f"As far from the trainer as {usual.setting} at every prompt: {'; '.join(same)}."
        )
    if open_:
        yield ProbeConclusion("not_told", f"Not told from {usual.setting}: {'; '.join(open_)}.")


PROBE = Probe(_plan, _conclude)
