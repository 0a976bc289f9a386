"""Are the trainer's log-probs of the distribution that tokens were drawn from, and which settings part them?

The raw policies of both sides at the same states: the sampler's transforms are laid over its own one after another,
and each result is held against what the trainer scores. Samplers that were not run are tried on the same states.
What is computed so is held against the distribution that the engine recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..comparison.sampler_policy import RAW, Step, temperature_beside
from ..errors import ConfigError, UsageError
from ..records import Sampling
from .plan import Comparison, Findings, Plan, Probe, Question, Search, Setting

if TYPE_CHECKING:
    from .cells import MeasuredCell

_USUAL = ("temperature=0.7", "top_p=0.95", "top_k=50", "min_p=0.05", "presence_penalty=0.5")
"""What is tried on a run whose sampler has no transform of its own."""
_KEYS = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")
_REPETITION = "repetition_penalty"

_DRAWN, _TRAINER = "as drawn", "the trainer"
_ON_KEPT_IDS = f"{_TRAINER} on the kept ids"


def _plan(question: Question) -> Plan:
    _tried(question)  # values that no sampler has are refused here
    own, divisor = question.sampling, _divisor(question)
    drawn = Setting(_DRAWN, "behavior", question.behavior, "rollout", drawn=True)
    trainer = Setting(_TRAINER, "reference", question.reference, "prefill")
    cells = [Comparison(trainer, drawn)]
    if own.transforms or divisor != 1.0:
        raw = replace(drawn, label=RAW, policy="raw") if own.transforms else drawn
        raw_trainer = replace(trainer, label=f"{_TRAINER}, raw", policy="raw") if divisor != 1.0 else trainer
        cells.append(Comparison(raw_trainer, raw))
    if own.truncates or own.temperature == 0:
        cells.append(Comparison(replace(trainer, label=_ON_KEPT_IDS, policy="support"), drawn))
    return Plan("the sampler", cells, the_gap=True)


def _divisor(question: Question) -> float:
    return temperature_beside(question.sampling, question.reference_temperature)


def _tried(question: Question) -> list[Step]:
    """The samplers to try: the run's own with one change, or several joined by plus signs."""
    words = question.words or ([] if question.sampling.transforms else list(_USUAL))
    return [
        Step(word, sampling, temperature_beside(sampling, question.reference_temperature))
        for word in words
        for sampling in [_changed(question.sampling, word)]
    ]


def _changed(sampling: Sampling, word: str) -> Sampling:
    """Raises `ConfigError` for what is no setting of a sampler, and for a value that it cannot have."""
    from ..traces.stated_facts import transforms_of

    changes: dict[str, Any] = {}
    for part in word.split("+"):
        key, _, value = part.partition("=")
        key = key.strip()
        if key == _REPETITION:
            raise ConfigError(
                "A repetition penalty does one thing to positive logits and another to negative ones, and a trace "
                "has log-probs, which do not tell them apart.",
                hint="presence_penalty= and frequency_penalty= can be tried",
            )
        try:
            if key not in _KEYS:
                raise ValueError
            changes[key] = int(value) if key == "top_k" else float(value)
        except ValueError:
            raise ConfigError(
                f"'{part}' is no setting of a sampler.", hint=f"--values key=value, of {', '.join(_KEYS)}"
            ) from None
    try:
        transforms_of(**changes)
    except UsageError as error:
        raise ConfigError(error.message, hint=error.hint) from None
    return replace(sampling, **changes)


def _search(question: Question, cells: Sequence[MeasuredCell]) -> Search:
    from ..comparison.sampler_steps import sampler_steps
    from .sampling_sentences import Sampler, conclusions

    yield from ()  # nothing more is to be run
    pairs = {each.cell.setting: each.trusted for each in cells if each.cell.against != _ON_KEPT_IDS}
    drawn, raw = pairs.get(_DRAWN), pairs.get(RAW, pairs.get(_DRAWN))
    steps = None
    if drawn is not None and raw is not None:
        steps = sampler_steps(
            raw,
            drawn.mu,
            question.sampling,
            _tried(question),
            trainer_temperature=question.reference_temperature,
        )
    said = conclusions(Sampler(question.behavior, question.sampling, _divisor(question)), cells, steps)
    if steps is None:
        return Findings(said)
    return Findings(said, transforms=[*steps.own, *steps.tried], sampler_check=steps.check)


PROBE = Probe(_plan, search=_search)
