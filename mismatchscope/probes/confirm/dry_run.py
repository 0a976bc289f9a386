"""Which experiments would be run on a diagnosis, before any is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...diagnosis.catalogue import ROUNDING, causes, experiments
from ...diagnosis.narrowing import every_cause, ranked_experiments
from ...reports.text import count
from .case import Case
from .experiments import EXPERIMENTS


def experiments_text(suspected: Sequence[str], case: Case) -> str:
    """Of an audit: what is tried first, and what each experiment is about."""
    return "\n".join(_lines(list(suspected) or every_cause(), case)) + "\n"


def _lines(suspected: Sequence[str], case: Case) -> Iterator[str]:
    yield f"put to experiments: {count(len(suspected), 'cause')}, {', '.join(suspected)}"
    settings = case.settings
    yield f"{settings.model}: {settings.behavior} against {settings.reference}"
    yield f"first: {experiments()['settings'].question}"
    yield f"  {case.command('bisect')}"
    ranked = ranked_experiments(suspected, list(EXPERIMENTS))
    if ranked:
        yield "then, as long as causes are left that it can rule out:"
    for name in ranked:
        yield f"  {experiments()[name].question}"
        yield f"    {experiments()[name].how}"
    alone = [
        code for code in suspected if code != ROUNDING and causes()[code].experiment not in (*ranked, "settings")
    ]
    if alone:
        yield f"no experiment here singles out {', '.join(alone)}"


def rescoring_text(suspected: Sequence[str], model: str, candidates: Mapping[str, str]) -> str:
    """Of a log: which checkpoints score its responses again."""
    about = f"put to experiments: {', '.join(suspected) or 'whatever the cause is'}"
    scored = [f"score the affected responses and as many others with {model}"]
    scored += [f"score the affected ones with {name}, {path}" for name, path in candidates.items()]
    if not candidates:
        scored.append("no --candidate is given: nothing can close the gap")
    return "\n".join([about, *scored]) + "\n"
