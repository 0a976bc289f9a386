"""What a probe would do, before it does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..config import AuditSettings
from ..reports.text import count
from .run_probe import PlannedProbe


def plan_text(planned: PlannedProbe, settings: AuditSettings) -> str:
    """Engine starts and the runs in each, what is compared, and how much is stored at most."""
    return "\n".join(_lines(planned, settings)) + "\n"


def _lines(planned: PlannedProbe, settings: AuditSettings) -> Iterator[str]:
    plan = planned.plan
    behavior, runs = planned.question.behavior, {setting.asks: setting for setting in plan.settings}
    starts = Counter({(str(behavior), 0, False): 1})  # which draws the tokens
    starts.update((str(look.spec), 0, False) for look in plan.looks)
    starts.update(setting.started_with(behavior) for setting in runs.values())
    sequences = len(planned.prompts) * settings.sampling.samples
    yield f"probe {planned.name}: changed is {plan.factor}"
    yield (
        f"{count(len(planned.prompts), 'prompt')}, {count(sequences, 'sequence')} of at most "
        f"{count(settings.sampling.max_new_tokens, 'token')}"
    )
    yield planned.evidence.sentence
    yield f"{count(len(starts), 'engine start')}, {count(starts.total(), 'run')}; none that is there already"
    for spec, number, then in starts:
        yield f"  {spec}{f', start {number + 1}' if number else ''}{', with tokens made of those' if then else ''}"
        if (spec, number, then) == (str(behavior), 0, False):
            yield "    draws the tokens"
        for look in plan.looks:
            if (str(look.spec), 0, False) == (spec, number, then):
                yield f"    shows {', '.join(look.stages)} of {look.label}"
        for setting in runs.values():
            if setting.started_with(behavior) == (spec, number, then):
                yield f"    {setting.described}"
    yield f"{count(len(plan.comparisons), 'comparison')}"
    for comparison in plan.comparisons:
        setting = comparison.setting
        yield f"  {setting.spec.name} {setting.path}: {setting.label} against {comparison.against.label}"
    if plan.more:
        yield f"at most {count(plan.more, 'setting')} more, as far as what is found asks for them"
    yield "how long it takes is not known before the engines have run"
