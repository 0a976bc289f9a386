"""The experts that both sides of a pair chose, from what their engines have shown of the insides of their models.

Shapes: L layers, S tokens of a sequence, T states of its response, k chosen experts, N states of a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engines.common.stage_files import finished_internals, read_internals
from ..engines.common.stages import EXPERT_IDS, EXPERT_WEIGHTS, ROUTER
from ..errors import ConfigError, NotComparableError
from ..measures.routing import Routes, RoutingSums
from ..measures.routing_results import Routing
from ..measures.tensor_difference import Weight
from ..records import Request
from .pair import Pair
from .paired_states import figures_by_state


def routing_of(pair: Pair, shown: tuple[Path, Path], requests: Iterable[Request], *, behavior: str) -> Routing:
    """Held together at the states of the pair. `shown` are the directories of the behaviour's and the reference's
    files, `requests` the sequences, `behavior` what the first is called.

    Raises `ConfigError` where neither side routes, `NotComparableError` where they have no layer in common that
    shows its experts, or no sequence, and where their routes are of other tokens or numbers of experts.
    """
    mu_files, pi_files = (finished_internals(directory) for directory in shown)
    states = _states_of(pair)
    sums: RoutingSums | None = None
    layers: list[int] = []
    for request in requests:
        number = request.sequence_id
        if number not in states or number not in mu_files or number not in pi_files:
            continue
        mu, pi = _Shown.read(mu_files[number]), _Shown.read(pi_files[number])
        if sums is None:
            layers = _common_layers(mu, pi)
            sums = RoutingSums(layers, max(mu.experts(layers), pi.experts(layers)))
        assert request.prompt_token_ids is not None and request.response_token_ids is not None
        start, length = len(request.prompt_token_ids) - 1, len(request.response_token_ids)
        of_pair = states[number]
        tv_T = np.full(length, np.nan)
        tv_T[of_pair.position_T] = of_pair.tv_T
        both = mu.routes(layers), pi.routes(layers)
        if any(routes.ids_LSk.shape[1] != start + 1 + length for routes in both):
            raise NotComparableError(f"The routes of sequence {number} are of other tokens.")
        slots = [routes.ids_LSk.shape[2] for routes in both]
        if slots[0] != slots[1]:
            raise NotComparableError(f"The sides choose {slots[0]} and {slots[1]} experts a token.")
        sums.add(of_pair.prompt, *both, slice(start, start + length), tv_T)
    if sums is None:
        raise NotComparableError("No sequence has routes of both sides.")
    return sums.result(behavior, confidence=pair.context.confidence)


@dataclass(frozen=True, eq=False)
class _SequenceStates:
    """The states of a pair in one sequence; their TV may be an estimate."""

    prompt: int
    position_T: np.ndarray
    tv_T: np.ndarray


def _states_of(pair: Pair) -> dict[int, _SequenceStates]:
    found = {}
    for block in figures_by_state(pair):
        sequence_N, position_N = block["place"] >> 32, block["place"] & 0xFFFFFFFF
        for number in np.unique(sequence_N):
            own_N = sequence_N == number
            prompt = int(block["prompt"][own_N][0])
            found[int(number)] = _SequenceStates(prompt, position_N[own_N], block["tv"][own_N])
    return found


@dataclass(frozen=True, eq=False)
class _Shown:
    """The stages of one sequence on one side, and why others are not there."""

    stages: Mapping[str, Weight]
    unmatched: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> _Shown:
        found = read_internals(path)
        return cls(found.stages, found.unmatched)

    @property
    def layers(self) -> set[int]:
        """Those whose experts were seen."""
        names = (re.fullmatch(rf"layers\.(\d+)\.{EXPERT_IDS}", name) for name in self.stages)
        return {int(name[1]) for name in names if name}

    def experts(self, layers: list[int]) -> int:
        """How many there are: by the router's logits, else by the largest number that is used."""
        logits = [stage for layer in layers if (stage := self._stage(layer, ROUTER)) is not None]
        if logits:
            return logits[0].shape[-1]
        return 1 + max(int(self._ids(layer).max()) for layer in layers)

    def routes(self, layers: list[int]) -> Routes:
        ids_LSk = np.stack([self._ids(layer) for layer in layers])
        weights = [self._stage(layer, EXPERT_WEIGHTS) for layer in layers]
        logits = [self._stage(layer, ROUTER) for layer in layers]
        return Routes(
            ids_LSk,
            np.stack([np.full(ids_LSk.shape[1:], np.nan) if each is None else _floats(each) for each in weights]),
            np.stack([_floats(each) for each in logits if each is not None]) if all(logits) else None,
        )

    def _ids(self, layer: int) -> np.ndarray:
        stage = self._stage(layer, EXPERT_IDS)
        assert stage is not None, "layers are those that show their experts"
        return stage.bits.astype(np.int64)

    def _stage(self, layer: int, kind: str) -> Weight | None:
        return self.stages.get(f"layers.{layer}.{kind}")


def _floats(stage: Weight) -> np.ndarray:
    return stage.floats().astype(np.float64)


def _common_layers(mu: _Shown, pi: _Shown) -> list[int]:
    common = sorted(mu.layers & pi.layers)
    if common:
        return common
    if not mu.layers and not pi.layers and not any(name.endswith(ROUTER) for name in (*mu.stages, *pi.stages)):
        raise ConfigError("The model has no layer that chooses experts.", hint="routing is of mixtures of experts")
    reasons = dict.fromkeys(
        reason for side in (mu, pi) for name, reason in side.unmatched.items() if name.endswith(EXPERT_IDS)
    )
    raise NotComparableError(f"No layer shows the experts it chose on both sides: {'; '.join(reasons)}.")
