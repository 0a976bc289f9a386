"""Do two sides choose the same experts for the same tokens, and how far apart are they where they do not?

Filled a response at a time; what is kept does not grow with their number but for the quantiles of margins.

Shapes: L layers, S tokens of a sequence, T states of its response, k chosen experts in slot order, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .accumulators import Clusters, ClusterSums
from .intervals import NONNEGATIVE, UNIT
from .results import Interval
from .routing_results import LayerRouting, Routing
from .sketches import QuantileSketch

Array = np.ndarray

_MEDIAN = (0.5,)
_OFTEN, _MATCHED = 10, 0.9
"""Uses of an expert, and the share of slots, that tell a renumbering from flips."""


@dataclass(frozen=True, eq=False)
class Routes:
    """What one side's routers said of a sequence: the experts it used, their weights (NaN: not seen), and its
    logits if known."""

    ids_LSk: Array
    weights_LSk: Array  # float64
    logits_LSE: Array | None = None  # float64


class RoutingSums:
    """What a `Routing` is made of; `layers` has the number of each layer that routes."""

    def __init__(self, layers: list[int], experts: int) -> None:
        self._layers, self._experts = layers, experts
        self._clusters = Clusters()
        self._chosen = 0
        self._states = {name: ClusterSums() for name in ("flipped", "after_flip", "after_same")}
        self._decisions = {name: ClusterSums() for name in ("decisions", "reordered")}
        self._tv = {name: ClusterSums() for name in ("tv_same", "tv_flipped", "tv_untouched")}
        self._by_layer = [_LayerSums(experts) for _ in layers]

    def add(self, prompt: int, mu: Routes, pi: Routes, states: slice, tv_T: Array) -> None:
        """One sequence: both sides' routes over all of it, where the states of its response are, and their TV (NaN:
        not known)."""
        row = int(self._clusters.rows(np.array([prompt]))[0])
        self._chosen = mu.ids_LSk.shape[2]
        mu_sorted_LSk, pi_sorted_LSk = np.sort(mu.ids_LSk, axis=2), np.sort(pi.ids_LSk, axis=2)
        flip_LS = (mu_sorted_LSk != pi_sorted_LSk).any(axis=2)
        flip_S = flip_LS.any(axis=0)
        flip_T, before_T = flip_S[states], np.logical_or.accumulate(flip_S)[states]
        slots_LT = (mu.ids_LSk == pi.ids_LSk).all(axis=2)[:, states]
        _add(self._states["flipped"], row, flip_T)
        _add(self._states["after_flip"], row, flip_T[1:][flip_T[:-1]])
        _add(self._states["after_same"], row, flip_T[1:][~flip_T[:-1]])
        _add(self._decisions["decisions"], row, flip_LS[:, states].ravel())
        _add(self._decisions["reordered"], row, (~flip_LS[:, states] & ~slots_LT).ravel())
        known_T = np.isfinite(tv_T)
        _add(self._tv["tv_same"], row, tv_T[known_T & ~flip_T])
        _add(self._tv["tv_flipped"], row, tv_T[known_T & flip_T])
        _add(self._tv["tv_untouched"], row, tv_T[known_T & ~before_T])
        for layer, sums in enumerate(self._by_layer):
            sums.add(row, _at(mu, layer, states), _at(pi, layer, states), flip_LS[layer, states])

    def result(self, behavior: str, *, confidence: float = 0.95) -> Routing:
        def means(sums: dict[str, ClusterSums]) -> dict[str, Interval]:
            return {name: _interval(each, UNIT, confidence) for name, each in sums.items()}

        states = means(self._states)
        return Routing(
            behavior=behavior,
            experts=self._experts,
            chosen=self._chosen,
            tokens=states["flipped"].n,
            prompts=len(self._clusters),
            **states,
            **means(self._decisions),
            **means(self._tv),
            margin_flipped=_median(self._joined("margin_flipped")),
            margin_same=_median(self._joined("margin_same")),
            layers=[
                sums.result(layer, confidence) for layer, sums in zip(self._layers, self._by_layer, strict=True)
            ],
        )

    def _joined(self, name: str) -> QuantileSketch:
        joined = QuantileSketch()
        for sums in self._by_layer:
            joined.merge(getattr(sums, name))
        return joined


class _LayerSums:
    """Of one layer."""

    def __init__(self, experts: int) -> None:
        names = ("same_set", "same_slots", "jaccard", "weight_difference")
        self._sums = {name: ClusterSums() for name in names}
        self.margin_flipped, self.margin_same = QuantileSketch(), QuantileSketch()
        self._logit_difference = QuantileSketch()
        self._together_EE = np.zeros((experts, experts), dtype=np.int64)

    def add(self, row: int, mu: Routes, pi: Routes, flip_T: Array) -> None:
        """The routes here are of this layer and of the states of a response alone: [T, …]."""
        common_Tkk = mu.ids_LSk[:, :, None] == pi.ids_LSk[:, None, :]
        common_T = common_Tkk.sum(axis=(1, 2))
        chosen = mu.ids_LSk.shape[1]
        difference_Tkk = np.abs(mu.weights_LSk[:, :, None] - pi.weights_LSk[:, None, :])
        _add(self._sums["same_set"], row, ~flip_T)
        _add(self._sums["same_slots"], row, (mu.ids_LSk == pi.ids_LSk).all(axis=1))
        _add(self._sums["jaccard"], row, common_T / (2 * chosen - common_T))
        _add(self._sums["weight_difference"], row, difference_Tkk[common_Tkk & ~np.isnan(difference_Tkk)])
        np.add.at(self._together_EE, (mu.ids_LSk, pi.ids_LSk), 1)
        if mu.logits_LSE is not None:
            margin_T = decision_margins(mu.logits_LSE, mu.ids_LSk)
            decided_T = ~np.isnan(margin_T)
            self.margin_flipped.add(margin_T[flip_T & decided_T])
            self.margin_same.add(margin_T[~flip_T & decided_T])
            if pi.logits_LSE is not None:
                self._logit_difference.add(np.std(mu.logits_LSE - pi.logits_LSE, axis=1))

    def result(self, layer: int, confidence: float) -> LayerRouting:
        bounds = {"weight_difference": NONNEGATIVE}
        means = {name: _interval(each, bounds.get(name, UNIT), confidence) for name, each in self._sums.items()}
        return LayerRouting(
            layer=layer,
            **means,
            margin_flipped=_median(self.margin_flipped),
            margin_same=_median(self.margin_same),
            logit_difference=_median(self._logit_difference),
            renumbered=is_renumbering(self._together_EE),
        )


def decision_margins(logits_TE: Array, ids_Tk: Array) -> Array:
    """By how much the last chosen logit lies above the first that was not, [T]; NaN where another rule than the
    largest logits decided (groups of experts, a bias that is added for the choice alone)."""
    chosen_TE = np.zeros(logits_TE.shape, dtype=bool)
    np.put_along_axis(chosen_TE, ids_Tk, True, axis=1)
    least_T = np.where(chosen_TE, logits_TE, np.inf).min(axis=1)
    most_T = np.where(chosen_TE, -np.inf, logits_TE).max(axis=1)
    margin_T = least_T - most_T
    return np.where(margin_T >= 0, margin_T, np.nan)


def is_renumbering(together_EE: Array) -> bool:
    """Whether experts of one side correspond one to one to experts of the other under other numbers.

    `together_EE` counts how often expert i was in a slot of one side and expert j in the same slot of the other. So
    it is where each expert's most frequent partner is its own, nine in ten slots hold such partners, and at least
    one expert that was used often enough to tell has another partner than itself.
    """
    uses_E = together_EE.sum(axis=1)
    used_E = np.flatnonzero(uses_E)
    partner_E = together_EE.argmax(axis=1)[used_E]
    one_to_one = len(np.unique(partner_E)) == len(used_E)
    matched = together_EE[used_E, partner_E].sum() >= _MATCHED * uses_E.sum()
    moved_E = used_E[(partner_E != used_E) & (uses_E[used_E] >= _OFTEN)]
    return bool(one_to_one and matched and len(moved_E))


def _at(routes: Routes, layer: int, states: slice) -> Routes:
    logits_LSE = routes.logits_LSE
    return Routes(
        routes.ids_LSk[layer, states],
        routes.weights_LSk[layer, states],
        None if logits_LSE is None else logits_LSE[layer, states],
    )


def _add(sums: ClusterSums, row: int, value_N: Array) -> None:
    value_N = np.asarray(value_N, dtype=np.float64)
    if value_N.size:
        sums.add(np.array([row]), np.array([value_N.sum()]), np.array([value_N.size]), value_N)


def _interval(sums: ClusterSums, bounds: tuple[float, float], confidence: float) -> Interval:
    return sums.interval(confidence=confidence, bounds=bounds) if sums.n else Interval(None, confidence=confidence)


def _median(sketch: QuantileSketch) -> float | None:
    return sketch.quantiles(_MEDIAN)[0] if sketch.n else None
