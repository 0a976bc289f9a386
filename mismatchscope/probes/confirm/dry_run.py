"""Which experiments would be run on a diagnosis, before any is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...collection.embedded import resolve_model
from ...config import AuditSettings
from ...diagnosis.catalogue import ROUNDING, causes, experiments
from ...diagnosis.decisions import RESCORE
from ...diagnosis.narrowing import every_cause, ranked_experiments
from ...engines.common.checkpoint import read_config
from ...engines.common.location import locate
from ...engines.spec import parse_spec, with_adapter
from ...errors import MismatchScopeError
from ...records import Sampling
from ...reports.text import count
from .candidates import Subject, trials
from .case import Case
from .experiments import EXPERIMENTS
from .impossible import impossible


def experiments_text(suspected: Sequence[str], case: Case) -> str:
    """Of an audit: what is tried first, and what each experiment is about."""
    return "\n".join(_lines(list(suspected) or every_cause(impossible(case.settings)), case)) + "\n"


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
        if name == RESCORE:
            yield f"    {candidates_text(settings, suspected)}"
    alone = [
        code for code in suspected if code != ROUNDING and causes()[code].experiment not in (*ranked, "settings")
    ]
    if alone:
        yield f"no experiment here singles out {', '.join(alone)}"


def rescoring_text(suspected: Sequence[str], settings: AuditSettings, checkpoints: Mapping[str, str]) -> str:
    """Of a log: which checkpoints score its responses again, and what else is tried."""
    about = f"put to experiments: {', '.join(suspected) or 'whatever the cause is'}"
    scored = [f"score the affected responses and as many others with {settings.model}"]
    scored += [f"score the affected ones with {name}, {path}" for name, path in checkpoints.items()]
    return "\n".join([about, *scored, candidates_text(settings, suspected, of_log=True)]) + "\n"


def candidates_text(settings: AuditSettings, suspected: Sequence[str], *, of_log: bool = False) -> str:
    """The candidates on the reference's side, in their order."""
    spec = with_adapter(parse_spec(settings.reference), settings.adapter)
    model = resolve_model(settings.model)
    sampling = Sampling() if of_log else settings.sampling.sampling()
    try:
        config = read_config(locate(model, weights=False, download=False))
        found = trials(Subject(spec, model, config, sampling, 1.0, 0, settings.adapter), suspected)
    except MismatchScopeError as error:
        return f"no candidates are known before the run: {error.message}"
    names = dict.fromkeys(trial.of.name for trial in found)
    return f"candidates on the reference's side, those that apply, in this order: {', '.join(names)}"
