"""What the package says of the cases, with the records of detectors that stand in for its own.

A record says how often a detector was right. Answers about a model of the development part are made with the
records of the other models, so that what they state of themselves was not fitted on them; those about the held-out
part with the records of all of development, which is what the package has.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import levels
import numpy as np
import store
from cases import ROUNDING, Key, Truth
from scoring import Said, Scored, score

from mismatchscope.diagnosis.answer import Answer, answer_of
from mismatchscope.diagnosis.evidence import FullRows, TokenEvidence, TopK
from mismatchscope.diagnosis.peeling import Peeled, peel
from mismatchscope.diagnosis.records import level_of
from mismatchscope.diagnosis.sample import Sample

Records = dict[str, dict[str, dict[str, Any]]]
RECORD_LEVELS = {level: level for level in levels.LEVELS} | {"top-64": "top-k"}


@dataclass(frozen=True)
class Looked:
    """What the detectors found in a case at a level of evidence, without the distributions."""

    key: Key
    truth: Truth
    level: str
    peeled: Peeled


def look(keys: Sequence[Key], cache: Path, jobs: int) -> list[Looked]:
    """Ask the detectors of every case at every level."""
    made = [key for key in keys if store.place(key, cache).exists()]
    if jobs == 1:
        return [found for key in made for found in _look_at(key, cache)]
    with ProcessPoolExecutor(jobs) as pool:
        found = pool.map(_look_at, made, [cache] * len(made), chunksize=8)
        return [each for many in found for each in many]


def _look_at(key: Key, cache: Path) -> list[Looked]:
    evidence, truth = store.read(key, cache, _head(key.model, cache))
    if not truth.counted:
        return []
    return [Looked(key, truth, level, _light(peel(levels.at(evidence, level)))) for level in levels.LEVELS]


_HEADS: dict[str, np.ndarray] = {}


def _head(model: str, cache: Path) -> np.ndarray:
    if model not in _HEADS:
        file = cache / "heads" / f"{model}.npy"
        if not file.exists():
            from architectures import load

            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, load(model, cache).network.get_output_embeddings().weight.float().numpy())
        _HEADS[model] = np.load(file)
    return _HEADS[model]


def _light(peeled: Peeled) -> Peeled:
    """The same without distributions, which no answer reads, so that thousands of them fit in memory."""
    evidence = _without_rows(peeled.sample.evidence)

    def light(sample: Sample | None) -> Sample | None:
        if sample is None:
            return None
        return Sample(_without_rows(sample.evidence), sample.out_N)

    findings = tuple(replace(each, rest=None, picture=None) for each in peeled.findings)
    facts = tuple(replace(each, rest=None, picture=None) for each in peeled.facts)
    sample = Sample(evidence, peeled.sample.out_N)
    return replace(
        peeled, sample=sample, findings=findings, facts=facts, left=light(peeled.left), unasked=(), short=()
    )


def _without_rows(evidence: TokenEvidence) -> TokenEvidence:
    no_ids, no_rows = np.zeros((evidence.tokens, 0), int), np.zeros((0, 0), np.float32)
    top = None if evidence.top is None else TopK(no_ids, no_ids * 1.0, no_ids, no_ids * 1.0)
    full = None if evidence.full is None else FullRows(np.zeros(0, int), no_rows, no_rows)
    return evidence.but(top=top, full=full, head_VH=None)


def tally(looked: Iterable[Looked]) -> Records:
    """Of each detector and level: in how many cases it spoke and was right, and what there was where it was not. A
    case of which no floor was measured counts at the levels without one alone."""
    spoke: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    confused: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for each in looked:
        if level_of(each.peeled.sample.evidence) != RECORD_LEVELS[each.level]:
            continue
        for finding in (*each.peeled.findings, *each.peeled.facts):
            place = finding.detector, RECORD_LEVELS[each.level]
            right = any(set(finding.causes) & set(codes) for codes in each.truth.causes)
            spoke[place].update(cases=1, right=int(right))
            if not right:
                there = [codes[0] for codes in each.truth.causes] if not each.truth.hidden else [ROUNDING]
                confused[place].update(there)
    table: Records = defaultdict(dict)
    for (detector, level), counts in sorted(spoke.items()):
        others = dict(confused[detector, level].most_common())
        table[detector][level] = {"right": counts["right"], "cases": counts["cases"], "confused": others}
    return dict(table)


def answer(looked: Sequence[Looked], table: Records) -> Iterator[Scored]:
    """Scores of the answers that these records give."""
    for each in looked:
        # A copy, so that what an answer computes on the way is not kept for thousands of cases.
        yield score(each.key, each.truth, each.level, said(answer_of(_light(each.peeled), table)))


def answer_across(looked: Sequence[Looked]) -> list[Scored]:
    """The same where every model is judged by the records of the others."""
    scored: list[Scored] = []
    for model in sorted({each.key.model for each in looked}):
        table = tally(each for each in looked if each.key.model != model)
        scored += answer([each for each in looked if each.key.model == model], table)
    return scored


def untold(scored: Iterable[Scored]) -> dict[str, int]:
    """In how many cases with one fault each cause was there and nothing was named, with whole distributions."""
    alone = [each for each in scored if each.level == levels.LEVELS[-1] and len(each.truth.causes) == 1]
    nothing = [each for each in alone if each.outcome == "cannot tell" and not each.truth.hidden]
    return dict(Counter(each.truth.causes[0][0] for each in nothing))


def said(given: Answer) -> Said:
    precisions = [each.record.precision.value for each in given.named if each.record is not None]
    known = [value for value in precisions if value is not None]
    return Said(
        causes=tuple(each.causes for each in given.named),
        facts=tuple(cause for fact in given.peeled.facts for cause in fact.causes),
        rounding=given.code in ("ordinary_rounding", "identical"),
        fault=given.code in ("cause", "set", "unknown"),
        detectors=tuple(each.detector for each in given.named),
        confidence=min(known) if known else None,
    )
