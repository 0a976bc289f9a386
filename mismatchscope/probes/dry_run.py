"""What a probe would do, before it does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..config import AuditSettings
from ..reports.text import count
from .run_probe import PlannedProbe, estimate_time, evidence_sentences
from .shown_bytes import shown_bytes


def plan_text(planned: PlannedProbe, settings: AuditSettings, store: Path | None = None) -> str:
    """Engine starts and the runs in each, what is compared, how much is stored at most, and how long it takes, as
    far as runs in `store` tell. Raises `ConfigError` where that is more than the settings allow."""
    return "\n".join(_lines(planned, settings, store)) + "\n"


def _lines(planned: PlannedProbe, settings: AuditSettings, store: Path | None) -> Iterator[str]:
    plan = planned.plan
    parts = planned.divided(plan)
    starts = parts.rest.starts(planned.question.behavior)
    made = {key: {setting.asks: setting for setting in start.settings}.values() for key, start in starts.items()}
    first = next(iter(starts.values()))
    runs = 1 + sum(map(len, made.values()))  # the first start draws the tokens
    sequences = len(planned.prompts) * settings.sampling.samples
    yield f"probe {planned.name}: changed is {plan.factor}"
    yield (
        f"{count(len(planned.prompts), 'prompt')}, {count(sequences, 'sequence')} of at most "
        f"{count(settings.sampling.max_new_tokens, 'token')}"
    )
    yield from evidence_sentences(planned)
    if shown := shown_bytes(plan, planned.question.model, planned.prompts, settings):
        yield f"what is shown of the model's inside may take up to {shown / 2**30:.2g} GiB beside that"
    pairs = len(parts.side_by_side)
    yield f"{count(len(starts) + pairs, 'engine start')}, {count(runs + pairs, 'run')}; none that is there already"
    for (spec, number, then), start in starts.items():
        yield f"  {spec}{f', start {number + 1}' if number else ''}{', with tokens made of those' if then else ''}"
        if start is first:
            yield "    draws the tokens"
        for look in start.looks:
            yield f"    shows {', '.join(look.stages) or 'every stage'} of {look.label}"
        for setting in made[spec, number, then]:
            yield f"    {setting.described}"
    for comparison in parts.side_by_side:
        mu, pi = comparison.policies
        yield f"  {mu.spec} and {pi.spec}"
        yield f"    side by side: {mu.described}, and {pi.described}"
    yield f"{count(len(plan.comparisons), 'comparison')}"
    for comparison in plan.comparisons:
        setting = comparison.setting
        yield f"  {setting.spec.name} {setting.path}: {setting.label} against {comparison.against.label}"
    if plan.more:
        yield f"at most {count(plan.more, 'setting')} more, as far as what is found asks for them"
    if store is None or not store.is_dir():
        yield "how long it takes is not known: nothing has run here yet"
    else:
        yield estimate_time(planned, settings, store).sentence
