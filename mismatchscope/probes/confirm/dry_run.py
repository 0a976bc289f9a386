"""Which experiments would be run on a diagnosis, before any is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from ...collection.embedded import resolve_model
from ...config import AuditSettings
from ...diagnosis.catalogue import ROUNDING, causes, experiments
from ...diagnosis.decisions import RESCORE
from ...diagnosis.narrowing import ranked_experiments, weights_of
from ...engines.common.checkpoint import read_config
from ...engines.common.location import locate
from ...errors import CapabilityError, MismatchScopeError
from ...reports.text import count
from .case import Case
from .confirm import nothing_to_run, put_to_engines
from .experiments import EXPERIMENTS
from .reference_changes import Subject, check_reference, trials
from .rescore_audit import subject_of
from .rescore_log import subject_of_log


def experiments_text(suspected: Sequence[str], case: Case) -> str:
    """Of an audit: what is tried first, and what each experiment is about."""
    why = nothing_to_run(suspected)
    return "\n".join([why] if why is not None else _lines(put_to_engines(suspected, case), case)) + "\n"


def _lines(suspected: Sequence[str], case: Case) -> Iterator[str]:
    yield f"put to experiments: {count(len(suspected), 'cause')}, {', '.join(suspected)}"
    settings = case.settings
    yield f"{settings.model}: {settings.behavior} against {settings.reference}"
    yield f"first: {experiments()['settings'].question}"
    yield f"  {case.command('bisect')}"
    ranked = ranked_experiments(weights_of(suspected), list(EXPERIMENTS))
    if ranked:
        yield "then, as long as causes are left that it can rule out:"
    for name in ranked:
        yield f"  {experiments()[name].question}"
        yield f"    {experiments()[name].how}"
        if name == RESCORE:
            yield f"    {_candidates(settings.model, partial(subject_of, case.limited()), suspected)}"
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
    subject = partial(subject_of_log, settings.reference, settings.adapter, settings.model)
    return "\n".join([about, *scored, _candidates(settings.model, subject, suspected)]) + "\n"


def _candidates(
    model: str, subject: Callable[[Mapping[str, object], int], Subject], suspected: Sequence[str]
) -> str:
    """The candidates on the reference's side, in their order. `subject` takes the model's configuration and the
    length of the longest sequence, which no name depends on."""
    try:
        check_reference(subject({}, 0).spec)
        config = read_config(locate(resolve_model(model), weights=False, download=False))
    except CapabilityError as error:
        return f"no candidates: {error.message}"
    except MismatchScopeError as error:
        return f"candidates are not known before the model is: {error.message}"
    names = dict.fromkeys(trial.of.name for trial in trials(subject(config, 0), suspected))
    return f"candidates on the reference's side, those that apply, in this order: {', '.join(names)}"
