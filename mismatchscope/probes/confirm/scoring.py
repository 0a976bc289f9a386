"""The same tokens scored again on the reference's side under candidates: which of them closes the gap?

Shapes: N tokens.
"""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...collection.collector import Events, RunJob
from ...collection.single_trace import ScoreSettings, score_trace
from ...comparison.context import Context
from ...comparison.pair import measure_pair
from ...diagnosis.candidates import Candidate, Family, Tried, closing, tried
from ...diagnosis.evidence import Array, TokenEvidence
from ...diagnosis.fitting import fitted
from ...diagnosis.peeling import AT_FLOOR
from ...diagnosis.sample import Sample
from ...diagnosis.statistics.size import gap
from ...diagnosis.statistics.stat import Stat
from ...diagnosis.words import number
from ...errors import DiskFullError, MismatchScopeError
from ...records import Evidence, Observed, Sampling
from ...reports.confirmation_fields import Proof
from ...reports.text import count
from ...traces.reader import Trace
from ...traces.store import write_records
from .found import NONE, UNCLEAR
from .reference_changes import Change, Subject, Trial

if TYPE_CHECKING:
    from ...measures.results import Interval
    from ...records import SequenceRecord


@dataclass(eq=False)
class Scorer:
    """What scores the tokens of `drawn` as the subject's reference, under one change after another. `run` does the
    engine's jobs."""

    drawn: Trace
    subject: Subject
    directory: Path
    on_event: Events
    run: RunJob
    confidence: float = 0.95
    _tokens: dict[object, Trace] = field(default_factory=dict)

    def missing(self, change: Change) -> str | None:
        """Why the tokens that a change is of cannot be made of these; None where they can."""
        return None if change.tokens is None else change.tokens.missing(self.drawn)

    def logp_N(self, change: Change, key_N: Array) -> Array:
        """Log-probs of the tokens, each known by `keys_of` its place; NaN of what was not scored. Raises what
        `score_trace` does."""
        path = self.directory / "scored"
        shutil.rmtree(path, ignore_errors=True)
        try:
            scored = self._scored(change, self._sampled(change), path)
            columns = [
                np.concatenate([batch[name].to_numpy() for batch in scored.iter_tokens([name])])
                for name in ("sequence_id", "position", "logprob")
            ]
        finally:
            shutil.rmtree(path, ignore_errors=True)
        there_M = keys_of(*columns[:2])
        order_M = np.argsort(there_M)
        at_N = np.minimum(np.searchsorted(there_M, key_N, sorter=order_M), len(order_M) - 1)
        return np.where(there_M[order_M[at_N]] == key_N, columns[2][order_M[at_N]], np.nan)

    def mean_tv(self, change: Change) -> Interval:
        """Between what drew the tokens and the reference under a change, with all that was seen of the tokens."""
        scored = self._scored(change, self._in_contexts(change), self.directory / "closing")
        context = Context.of(self.drawn, scored, None, confidence=self.confidence)
        if change.tokens is not None:
            context = context.of_other_contexts(self.drawn, self.drawn, prompts=self.drawn)
        return measure_pair(self.drawn, scored, context).alpha.mean

    def command(self, change: Change) -> str:
        """What a person types to score the same tokens under a change."""
        settings, sampler = self._settings(change), self.drawn.manifest.sampling or Sampling()
        words = ["mismatchscope", "score", str(self._in_contexts(change).path)]
        words += ["--engine", settings.engine, "--model", settings.model]
        if settings.temperature not in (None, sampler.temperature or 1.0):
            words += ["--temperature", f"{settings.temperature:g}"]
        if change.as_sampler:
            words += ["--role", settings.role]
        return shlex.join([*words, "-o", "scored"])

    def _settings(self, change: Change) -> ScoreSettings:
        return ScoreSettings(
            str(change.applied(self.subject.spec)),
            self.subject.model,
            role="behavior" if change.as_sampler else "reference",
            temperature=change.temperature or self.subject.temperature,
        )

    def _scored(self, change: Change, tokens: Trace, path: Path) -> Trace:
        settings = self._settings(change)
        score_trace(tokens.path, path, settings, on_event=self.on_event, run=self.run)
        return Trace.open(path, verify=False)

    def _in_contexts(self, change: Change) -> Trace:
        """The tokens in the contexts of a change, with all that was seen of them where those are their own."""
        return self.drawn if change.tokens is None else self._sampled(change)

    def _sampled(self, change: Change) -> Trace:
        """The tokens with nothing but their log-probs, in the contexts of a change."""
        if change.tokens not in self._tokens:
            path = self.directory / f"tokens-{len(self._tokens)}"
            facts = {"evidence": Evidence("sampled"), "parent": self.drawn.sha256}
            write_records(path, self.drawn.manifest.model_copy(update=facts), self._records(change))
            self._tokens[change.tokens] = Trace.open(path, verify=False)
        return self._tokens[change.tokens]

    def _records(self, change: Change) -> Iterator[SequenceRecord]:
        records = self.drawn.records() if change.tokens is None else change.tokens.records(self.drawn)
        for record in records:
            yield replace(record, observed=Observed(record.observed.logprob_T), raw=None, beside=None, experts=None)


@dataclass(frozen=True)
class Rescored:
    """`before` is R as it is, `found` what is left under each candidate, `closing` those that close the gap, the
    best first, and `changes` what each is. `not_tried` of them are for want of time; `refused` says why others
    could not be computed."""

    before: Stat
    found: list[Tried] = field(default_factory=list)
    closing: list[Tried] = field(default_factory=list)
    changes: dict[Candidate, Change] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    not_tried: int = 0

    @property
    def causes(self) -> list[str]:
        """Of the candidates that close the gap, the best first."""
        return list(dict.fromkeys(each.candidate.cause for each in self.closing))

    @property
    def result(self) -> str:
        """One that `diagnosis.decisions` knows, or `UNCLEAR` where more could have been scored."""
        told = bool(self.found) and not self.not_tried
        return " or ".join(self.causes) or (NONE if told else UNCLEAR)

    @property
    def best(self) -> Change:
        """Of the candidate that closes the gap best."""
        return self.changes[self.closing[0].candidate]

    def proof(self, scorer: Scorer, before: Interval, floor: float | None = None) -> Proof:
        """That the best candidate closes a gap of so much mean TV. Raises what `score_trace` does.

        Mean TV is of all tokens under the change, the first ones too: the proof names it so.
        """
        scored = replace(self.best, after_first=False)
        named = next((each for each, change in self.changes.items() if change == scored), self.closing[0].candidate)
        return Proof(f"{named} on the reference's side", before, scorer.mean_tv(scored), floor=floor)

    @property
    def sentence(self) -> str:
        """`With rope_theta = 13,100 on the reference's side R falls from 41 to 1.1 floors; …`"""
        if self.before.value is None:
            return "There are too few tokens for a gap that could be closed."
        before = number(self.before.value)
        others = [each for each in self.found if each not in self.closing]
        if self.closing:
            names = " or ".join(str(each.candidate) for each in self.closing)
            left = number(self.closing[0].left.value)
            told = f"With {names} on the reference's side R falls from {before} to {left} floors"
            parts = [told]
            if others:
                parts.append(f"{count(len(others), 'other candidate')} {_leave(len(others))} {_least(others)}")
        elif self.found:
            best = min(others, key=_left)
            whole = f"None of {len(others)} candidates" if len(others) > 1 else "The one candidate that was scored"
            told = f"{whole} on the reference's side {'closes' if len(others) > 1 else 'does not close'} the gap"
            parts = [f"{told}: R is {before} floors, and {best.candidate} leaves {number(best.left.value)}"]
        elif self.refused or self.not_tried:
            parts = [f"R is {before} floors, and no candidate was scored"]
        else:
            parts = [f"R is {before} floors, as rounding makes it: there is nothing to close"]
        more = " more" if self.found else ""
        if self.refused:
            do = "do" if len(self.refused) > 1 else "does"
            parts.append(f"{len(self.refused)}{more} {do} not apply or could not be computed")
        if self.not_tried:
            parts.append(f"there was no time for {self.not_tried}{more}")
        return "; ".join(parts) + "."


class _LateError(Exception):
    """There is no time for another score."""


def rescored(
    scorer: Scorer, evidence: TokenEvidence, trials: Sequence[Trial], late: Callable[[], bool]
) -> Rescored:
    """Score the tokens of the evidence under each candidate, as long as there is time. Raises `DiskFullError`."""
    sample = Sample.of(evidence)
    result = Rescored(gap(sample))
    if result.before.value is None or (sample.floor.measured and result.before.value < AT_FLOOR):
        return result
    for place, trial in enumerate(trials):
        if (why := scorer.missing(trial.change(0))) is not None:
            result.refused.append(f"{trial.of.name}: {why}")
            continue
        try:
            found = _tried(scorer, evidence, trial, late)
        except _LateError:
            result = replace(result, not_tried=len(trials) - place)
            break
        except DiskFullError:
            raise
        except MismatchScopeError as error:
            result.refused.append(f"{trial.of.name}: {error.message}")
            continue
        if found.left.value is None:
            result.refused.append(f"{trial.of.name}: too few tokens that were sampled are possible under it")
            continue
        result.found.append(found)
        result.changes[found.candidate] = trial.change(found.candidate.value or 0)
    closed = closing(result.before, result.found, measured=sample.floor.measured)
    return replace(result, closing=closed)


def _tried(scorer: Scorer, evidence: TokenEvidence, trial: Trial, late: Callable[[], bool]) -> Tried:
    """What a candidate leaves, or the best one of a family."""
    assert evidence.name_S is not None, "evidence of traces has their ids"
    key_N = keys_of(evidence.name_S.astype(np.int64)[evidence.sequence_N], evidence.position_N)

    def score(candidate: Candidate) -> Array:
        if isinstance(trial.of, Family) and candidate.value == trial.of.own:
            return evidence.logp_pi_N
        if late():
            raise _LateError
        change = trial.change(candidate.value or 0)
        logp_N = scorer.logp_N(change, key_N)
        if change.after_first:
            return np.where(evidence.position_N == 0, evidence.logp_pi_N, logp_N)
        return logp_N

    if isinstance(trial.of, Family):
        return fitted(evidence, trial.of, score)
    return tried(evidence, trial.of, score)


def longest_of(trace: Trace) -> int:
    """How many tokens the longest sequence has, its prompt among them."""
    return max(len(each.prompt_token_ids) + len(each.response_token_ids) for each in trace.records())


def keys_of(sequence_id_N: Array, position_N: Array) -> Array:
    """One number for each token of a trace."""
    return sequence_id_N.astype(np.int64) << 32 | position_N.astype(np.int64)


def _left(each: Tried) -> float:
    return math.inf if each.left.value is None else each.left.value


def _least(others: Sequence[Tried]) -> str:
    least = min(map(_left, others))
    return f"at least {number(least)}" if len(others) > 1 else number(least)


def _leave(amount: int) -> str:
    return "leave" if amount > 1 else "leaves"
