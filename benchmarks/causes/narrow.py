"""What is left of an answer after up to two experiments, which the package chooses one after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import levels
import store
from answers import Looked, Records, said
from cases import ROUNDING, Key
from scoring import Said, Scored, score

from mismatchscope.diagnosis.answer import Answer, answer_of
from mismatchscope.diagnosis.detector import MOST_IN_A_SET
from mismatchscope.diagnosis.narrowing import (
    OF_EXPERTS,
    OF_RECURRENT_LAYERS,
    OF_SEVERAL_DEVICES,
    Narrowing,
    every_cause,
    is_of_the_log,
)

MOST_RUN = 2


def narrowed(looked: Sequence[Looked], table: Records, cache: Path, jobs: int) -> list[Scored]:
    """Scores of the answers from whole distributions once two experiments at the most were run, of one case of each
    cause, model and stack.

    Cases with two faults, and those whose fault is of the log alone, are scored as they were without experiments.
    """
    chosen = [each for each in looked if each.level == levels.LEVELS[-1] and each.key.number == 0]
    groups: dict[tuple[str, str], list[Looked]] = {}
    for each in chosen:
        groups.setdefault((each.key.model, each.key.stack), []).append(each)
    if jobs == 1:
        return [found for group in groups.values() for found in _group(group, table, cache)]
    with ProcessPoolExecutor(jobs) as pool:
        found = pool.map(_group, groups.values(), [table] * len(groups), [cache] * len(groups))
        return [each for many in found for each in many]


def _group(looked: Sequence[Looked], table: Records, cache: Path) -> list[Scored]:
    """Of one model and stack."""
    import torch

    torch.set_num_threads(1)
    results = Results(cache)
    return [
        replace(score(each.key, each.truth, each.level, _narrowed(each, table, results)), level=levels.EXPERIMENTS)
        for each in looked
    ]


def _narrowed(looked: Looked, table: Records, results: Results) -> Said:
    given = answer_of(looked.peeled, table)
    before = said(given)
    suspected = _suspected(given)
    if suspected is None or not (possible := results.possible(looked.key)):
        return before
    impossible = (
        OF_RECURRENT_LAYERS | OF_SEVERAL_DEVICES | (frozenset() if looked.key.model == "moe" else OF_EXPERTS)
    )
    suspected = [cause for cause in suspected if cause not in impossible]
    narrowing = Narrowing(suspected, list(possible), every_cause(impossible))
    if not suspected:
        narrowing.remaining = list(narrowing.every)
    for _ in range(MOST_RUN):
        name = narrowing.following() or narrowing.proving()
        if name is None:
            break
        narrowing.tell(name, results.of(looked.key, name))
    of_the_log = tuple(each.causes for each in given.named if all(map(is_of_the_log, each.causes)))
    left = tuple(narrowing.remaining)
    if left == (ROUNDING,):
        return replace(before, causes=of_the_log, rounding=True, fault=False, confidence=None)
    told = (left,) if 0 < len(left) <= MOST_IN_A_SET else ()
    return replace(before, causes=(*of_the_log, *told), fault=bool(of_the_log or told) or before.fault)


def _suspected(given: Answer) -> list[str] | None:
    """Causes to put to experiments, none of them for all; None where there is nothing to ask."""
    if given.code in ("ordinary_rounding", "identical"):
        return None
    named = [each.causes for each in given.named]
    if named and all(all(map(is_of_the_log, each)) for each in named):
        return None
    return list(dict.fromkeys(cause for each in named for cause in each if not is_of_the_log(cause)))


class Results:
    """Results of experiments, and the workshop that makes those that are missing. They are kept on disk, to be
    removed where experiments change."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._workshop = None
        self._case: tuple[Key, object] | None = None

    def possible(self, key: Key) -> tuple[str, ...]:
        """The experiments that can be run on a case; none where it has two faults, or none."""
        from experiments import possible
        from plants import PLANTS

        return possible(PLANTS[key.plant]) if key.plant in PLANTS else ()

    def of(self, key: Key, name: str) -> str:
        file = store.place(key, self.cache, "experiments").with_suffix(".json")
        known = json.loads(file.read_text()) if file.exists() else {}
        if name not in known:
            known[name] = self._experiments(key).result(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(f".{os.getpid()}.tmp")
            unfinished.write_text(json.dumps(known))
            unfinished.rename(file)
        return known[name]

    def _experiments(self, key: Key):
        from experiments import Experiments
        from workshop import Workshop

        if self._workshop is None:
            self._workshop = Workshop(key.part, key.model, key.stack, self.cache)
        if self._case is None or self._case[0] != key:
            evidence, _ = store.read(key, self.cache)
            made = Experiments(self._workshop, self._workshop.planted(key), evidence.floor)
            self._case = key, made
        return self._case[1]
