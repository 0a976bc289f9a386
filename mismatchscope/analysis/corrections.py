"""What every published correction would do to a log: over all of it, by step and by lag, and at many thresholds.

Only whole responses are looked at: of one that lost a token to rejection neither the ratio nor the mask is known.
The figures compare; no rule is recommended, as what a rule does to one batch does not say what it does to a run.

Shapes: S responses of a block, N their tokens that count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..measures.correction_results import Correction, CorrectionSeries, CorrectionSweep
from ..measures.corrections import RatioBlock
from ..measures.corrections.accumulator import Corrections
from ..measures.corrections.catalogue import EVERY, NEEDS, Need
from ..measures.corrections.requests import settings_asked
from ..measures.corrections.second_moment import M2PO, THRESHOLD, SecondMoment
from ..measures.corrections.series import ClusterWeights, LabelSums
from ..measures.corrections.setting import Setting
from ..measures.corrections.sweeps import Sweeps, sweep_settings
from .block import UNKNOWN, LogBlock
from .settings import AnalysisSettings

_BY = ("step", "lag")
_RESPONSES = 4096
"""Rules are applied to about so many at once."""


class LogCorrections:
    """Accumulates whole responses; the results are the fields of the report that are named after them.

    Rules look at sums of responses and of bins of tokens, so some thousand responses are looked at together.
    """

    def __init__(self, settings: AnalysisSettings) -> None:
        self._confidence = settings.confidence
        asked = [setting for text in settings.corrections for setting in settings_asked(text)]
        self._settings = tuple(_settings([setting for setting in asked if setting.name != M2PO]))
        thresholds = [THRESHOLD, *(setting.parameters["threshold"] for setting in asked if setting.name == M2PO)]
        self._second_moments = [SecondMoment(threshold) for threshold in dict.fromkeys(thresholds)]
        binned_at = [moment.binned_at for moment in self._second_moments]
        self._all, self._sweeps = Corrections(self._settings, [*sweep_settings(), *binned_at]), Sweeps()
        self._by_label = {by: LabelSums(len(self._settings)) for by in _BY}
        self._clusters = ClusterWeights(len(self._settings))
        self._waiting: list[_Responses] = []
        self._responses = self._with_target = 0

    def add(self, block: LogBlock) -> None:
        whole_S = block.whole_S
        if not whole_S.any():
            return
        ratios = _ratios(block, whole_S)
        self._responses += int(whole_S.sum())
        self._with_target += _with_target(block, whole_S)
        ratios.thresholds = self._all.thresholds
        labels = {by: _labels(block.label_S(by), whole_S) for by in _BY}
        for moment in self._second_moments:
            moment.add(ratios, labels["step"])
        self._waiting.append(_Responses(RatioBlock.joined([ratios]), block.cluster_S[whole_S], labels))
        if sum(len(each.cluster_S) for each in self._waiting) >= _RESPONSES:
            self._add_waiting()

    def merge(self, other: LogCorrections) -> None:
        self._add_waiting()
        other._add_waiting()
        for name in ("_all", "_sweeps", "_clusters"):
            getattr(self, name).merge(getattr(other, name))
        for moment, theirs in zip(self._second_moments, other._second_moments, strict=True):
            moment.merge(theirs)
        for by, sums in self._by_label.items():
            sums.merge(other._by_label[by])
        self._responses += other._responses
        self._with_target += other._with_target

    def __getstate__(self) -> dict[str, object]:
        self._add_waiting()
        return self.__dict__

    def _add_waiting(self) -> None:
        if not self._waiting:
            return
        ratios, cluster_S, labels = _joined(self._waiting)
        self._waiting = []
        effects = self._all.add(ratios)
        self._sweeps.add(ratios)
        self._clusters.add(cluster_S, effects)
        for by, label_S in labels.items():
            known_S = np.flatnonzero(label_S != UNKNOWN)
            if len(known_S):
                of_known = [None if effect is None else effect.only(known_S) for effect in effects]
                self._by_label[by].add(label_S[known_S], of_known)

    def corrections(self) -> tuple[Correction, ...]:
        """Every rule that the log has the columns for, at the thresholds in use, then what was asked for."""
        found = []
        for k, correction in enumerate(self._results()):
            if correction is not None:
                weight, kept = self._clusters.intervals(k, self._confidence)
                found.append(
                    replace(
                        correction,
                        mean_weight_low=weight.low,
                        mean_weight_high=weight.high,
                        kept_tokens_low=kept.low,
                        kept_tokens_high=kept.high,
                    )
                )
        found += [each for moment in self._second_moments if (each := moment.correction()) is not None]
        return tuple(found)

    def sweeps(self) -> tuple[CorrectionSweep, ...]:
        self._add_waiting()
        return tuple(sweep for sweep in self._sweeps.results() if not self._mixes(Setting(sweep.name)))

    def series(self) -> tuple[CorrectionSeries, ...]:
        """By step and by lag, where the log has them, of every setting that `corrections` has."""
        found = []
        for by, sums in self._by_label.items():
            for k, correction in enumerate(self._results()):
                if correction is not None:
                    found.append(sums.series(k, correction.name, correction.parameters, correction.unit, by))
        return tuple(each for each in found if each is not None)

    def left_out(self, needs: Mapping[Need, str] = NEEDS) -> dict[str, str]:
        """Rules that could not be applied, by name, and what the log lacks, in the words of `needs`."""
        self._add_waiting()
        mixed = {each.name: f"needs {NEEDS['target']} of all responses or none" for each in self._settings}
        return {name: why for name, why in mixed.items() if self._mixes(Setting(name))} | self._all.left_out(needs)

    def _results(self) -> list[Correction | None]:
        """One a setting; None where it lacks something."""
        self._add_waiting()
        results = zip(self._settings, self._all.all_results(), strict=True)
        return [None if self._mixes(setting) else result for setting, result in results]

    def _mixes(self, setting: Setting) -> bool:
        """Whether a rule that looks at π_θ where there is one would take π_old in its place for some responses."""
        stands_in = setting.remark(frozenset(NEEDS)) != setting.remark(frozenset(NEEDS) - {"target"})
        return stands_in and 0 < self._with_target < self._responses


def _settings(asked: Sequence[Setting]) -> Iterator[Setting]:
    """Every rule at its thresholds, then what was asked for, each once."""
    seen = set()
    for setting in (*(Setting(name, parameters) for name, settings in EVERY for parameters in settings), *asked):
        key = (setting.name, tuple(sorted(setting.parameters.items())))
        if key not in seen:
            seen.add(key)
            yield setting


class _Responses(NamedTuple):
    """Whole responses, with their prompt and their labels by `_BY`."""

    ratios: RatioBlock
    cluster_S: np.ndarray
    labels: dict[str, np.ndarray]


def _joined(parts: Sequence[_Responses]) -> _Responses:
    return _Responses(
        RatioBlock.joined([part.ratios for part in parts]),
        np.concatenate([part.cluster_S for part in parts]),
        {by: np.concatenate([part.labels[by] for part in parts]) for by in _BY},
    )


def _labels(label_S: np.ndarray | None, whole_S: np.ndarray) -> np.ndarray:
    return np.full(int(whole_S.sum()), UNKNOWN) if label_S is None else label_S[whole_S]


def _ratios(block: LogBlock, whole_S: np.ndarray) -> RatioBlock:
    length_S = block.length_S[whole_S]
    whole_N = slice(None) if whole_S.all() else np.repeat(whole_S, block.length_S)
    theta_N, advantage_N = block.logp_theta_N, block.of_tokens("advantages")
    pi_N = block.logp_pi_N[whole_N]
    target_N = None if theta_N is None else _complete(theta_N[whole_N] - np.where(np.isfinite(pi_N), pi_N, 0.0))
    return RatioBlock(
        block.figures.log_ratio_N[whole_N],
        np.concatenate([[0], np.cumsum(length_S)]),
        target_log_ratio_T=target_N,
        advantage_T=None if advantage_N is None else _complete(advantage_N[whole_N]),
        logp_mu_T=block.logp_mu_N[whole_N],
    )


def _with_target(block: LogBlock, whole_S: np.ndarray) -> int:
    """How many whole responses have π_θ at every token."""
    if block.logp_theta_N is None:
        return 0
    return int((whole_S & ~np.logical_or.reduceat(np.isnan(block.logp_theta_N), block.start_S)).sum())


def _complete(values_N: np.ndarray) -> np.ndarray | None:
    """None where any is missing: a rule must be applicable to all of a response."""
    return None if np.isnan(values_N.min()) else values_N
