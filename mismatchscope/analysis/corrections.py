"""What every published correction would do to a log: over all of it, by step and by lag, and at many thresholds.

Only whole responses are looked at: of one that lost a token to rejection neither the ratio nor the mask is known.
The figures compare; no rule is recommended, as what a rule does to one batch does not say what it does to a run.

Shapes: S responses of a block, N their tokens that count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..measures.correction_results import Correction, CorrectionSeries, CorrectionSweep
from ..measures.corrections import RatioBlock
from ..measures.corrections.accumulator import Corrections
from ..measures.corrections.catalogue import EVERY
from ..measures.corrections.requests import settings_asked
from ..measures.corrections.second_moment import BINNED_AT, SecondMoment
from ..measures.corrections.series import ClusterWeights, LabelSums
from ..measures.corrections.setting import Setting
from ..measures.corrections.sweeps import Sweeps, sweep_settings
from .block import UNKNOWN, LogBlock
from .settings import AnalysisSettings

_BY = ("step", "lag")


class LogCorrections:
    """Accumulates whole responses; the results are the fields of the report that are named after them."""

    def __init__(self, settings: AnalysisSettings) -> None:
        self._confidence = settings.confidence
        self._settings = tuple(_settings(settings.corrections))
        self._all = Corrections(self._settings, [*sweep_settings(), BINNED_AT])
        self._sweeps, self._second_moment = Sweeps(), SecondMoment()
        self._by_label = {by: LabelSums(len(self._settings)) for by in _BY}
        self._clusters = ClusterWeights(len(self._settings))

    def add(self, block: LogBlock) -> None:
        if not block.whole_S.any():
            return
        whole_S = block.whole_S
        ratios = _ratios(block, whole_S)
        effects = self._all.add(ratios)
        self._sweeps.add(ratios)
        self._clusters.add(block.cluster_S[whole_S], effects)
        labels = {by: block.label_S(by) for by in _BY}
        step_S = labels["step"]
        self._second_moment.add(ratios, np.full(int(whole_S.sum()), UNKNOWN) if step_S is None else step_S[whole_S])
        for by, label_S in labels.items():
            if label_S is None or (label_S[whole_S] == UNKNOWN).all():
                continue
            known_S = np.flatnonzero(label_S[whole_S] != UNKNOWN)
            self._by_label[by].add(
                label_S[whole_S][known_S], [None if effect is None else effect.only(known_S) for effect in effects]
            )

    def merge(self, other: LogCorrections) -> None:
        for name in ("_all", "_sweeps", "_second_moment", "_clusters"):
            getattr(self, name).merge(getattr(other, name))
        for by, sums in self._by_label.items():
            sums.merge(other._by_label[by])

    def corrections(self) -> tuple[Correction, ...]:
        """Every rule that the log has the columns for, at the thresholds in use, then what was asked for."""
        found = []
        for k, correction in enumerate(self._all.all_results()):
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
        second_moment = self._second_moment.correction()
        return (*found, *([] if second_moment is None else [second_moment]))

    def sweeps(self) -> tuple[CorrectionSweep, ...]:
        return self._sweeps.results()

    def series(self) -> tuple[CorrectionSeries, ...]:
        """By step and by lag, where the log has them, of every setting that `corrections` has."""
        found = []
        for by, sums in self._by_label.items():
            for k, correction in enumerate(self._all.all_results()):
                if correction is not None:
                    found.append(sums.series(k, correction.name, correction.parameters, correction.unit, by))
        return tuple(each for each in found if each is not None)

    def left_out(self) -> dict[str, str]:
        """Rules that could not be applied, by name, and what the log lacks."""
        return self._all.left_out()


def _settings(asked: tuple[str, ...]) -> Iterator[Setting]:
    seen = set()
    for setting in (
        *(Setting(name, parameters) for name, settings in EVERY for parameters in settings),
        *(setting for text in asked for setting in settings_asked(text)),
    ):
        key = (setting.name, tuple(sorted(setting.parameters.items())))
        if key not in seen:
            seen.add(key)
            yield setting


def _ratios(block: LogBlock, whole_S: np.ndarray) -> RatioBlock:
    length_S = block.length_S[whole_S]
    whole_N = slice(None) if whole_S.all() else np.repeat(whole_S, block.length_S)
    mu_N, pi_N = block.logp_mu_N[whole_N], block.logp_pi_N[whole_N]
    theta_N, advantage_N = block.logp_theta_N, block.of_tokens("advantages")
    target_N = None if theta_N is None else _complete(theta_N[whole_N] - np.where(np.isfinite(pi_N), pi_N, 0.0))
    return RatioBlock(
        pi_N - mu_N,
        np.concatenate([[0], np.cumsum(length_S)]),
        target_log_ratio_T=target_N,
        advantage_T=None if advantage_N is None else _complete(advantage_N[whole_N]),
        logp_mu_T=mu_N,
    )


def _complete(values_N: np.ndarray) -> np.ndarray | None:
    """None where any is missing: a rule must be applicable to all of a response."""
    return None if np.isnan(values_N).any() else values_N
