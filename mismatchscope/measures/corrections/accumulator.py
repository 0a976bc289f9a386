"""Rules at their thresholds, over all blocks of a pair: over all sequences, by cluster and by label.

Shapes: S sequences of a block, C clusters, L labels (steps, lags), K settings, of which each is a rule with its
thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..correction_results import Correction
from .bins import Key
from .block import RatioBlock
from .catalogue import NEEDS, USUAL, Need
from .effect import Effect, RuleSums
from .setting import Setting

Array = np.ndarray


def usual_settings() -> tuple[Setting, ...]:
    return tuple(Setting(name, parameters) for name, settings in USUAL for parameters in settings)


class Corrections:
    """Sums of every setting over all sequences. A rule must see every sequence: once a block lacks what it needs,
    it is left out, with the reason."""

    def __init__(
        self, settings: Sequence[Setting] | None = None, binned_at: Sequence[tuple[str, Mapping[str, float]]] = ()
    ) -> None:
        """`binned_at` are further rules of tokens with thresholds, at which blocks are to be binned too."""
        self._settings = usual_settings() if settings is None else tuple(settings)
        self._sums: list[RuleSums | None] = []
        self._known: frozenset[str] | None = None
        self.thresholds = _thresholds([*self._settings, *(Setting(*each) for each in binned_at)])

    def add(self, block: RatioBlock) -> list[Effect | None]:
        """Take in a block of whole sequences; what each setting did to it, in their order."""
        block.thresholds = self.thresholds
        effects = [
            setting.apply(block) if block.known.issuperset(setting.needs) else None for setting in self._settings
        ]
        self._take([None if effect is None else effect.sums() for effect in effects], block.known)
        return effects

    def merge(self, other: Corrections) -> None:
        if other._known is not None:
            self._take(other._sums, other._known)

    def _take(self, theirs: Sequence[RuleSums | None], known: frozenset[str]) -> None:
        if self._known is None:
            self._sums = [None if sums is None else RuleSums(sums.unit) for sums in theirs]
        self._known = known if self._known is None else self._known & known
        for place, sums in enumerate(theirs):
            mine = self._sums[place]
            if mine is None or sums is None:
                self._sums[place] = None
            else:
                mine.merge(sums)

    @property
    def settings(self) -> tuple[Setting, ...]:
        return self._settings

    def results(self) -> tuple[Correction, ...]:
        """One a setting, in their order, without those that lacked something."""
        return tuple(found for found in self.all_results() if found is not None)

    def all_results(self) -> list[Correction | None]:
        """One a setting; None where something that it needs was lacking, or nothing was seen."""
        sums = self._sums or [None] * len(self._settings)
        return [
            None
            if each is None
            else each.correction(setting.name, dict(setting.parameters), setting.remark(self._known or frozenset()))
            for setting, each in zip(self._settings, sums, strict=True)
        ]

    def left_out(self, needs: Mapping[Need, str] = NEEDS) -> dict[str, str]:
        """Settings that could not be applied, by name, and what they lack in the words of `needs`; nothing while no
        block was seen."""
        if self._known is None:
            return {}
        lacking = {
            setting.name: [needs[need] for need in NEEDS if need in setting.needs and need not in self._known]
            for setting in self._settings
        }
        return {name: f"needs {' and '.join(lacks)}" for name, lacks in lacking.items() if lacks}


def _thresholds(settings: Sequence[Setting]) -> dict[Key, tuple[set[float], set[float]]]:
    """What the settings ask of a block's bins: found out on a block of one token that has everything."""
    zero = np.zeros(1)
    block = RatioBlock(
        zero, [0, 1], tv_T=zero, kl_T=zero, target_log_ratio_T=zero, advantage_T=zero, logp_mu_T=zero - 1
    )
    for setting in settings:
        setting.apply(block)
    return block.thresholds
