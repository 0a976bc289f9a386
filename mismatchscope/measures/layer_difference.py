"""Where two forwards of the same tokens come apart: stage by stage, what each creates and what is carried into it.

Filled a sequence at a time. Rounding alone makes a stage's output wrong by about half a unit in its last place: the
relative error of one rounding is at most u, 2⁻⁸ in bfloat16 (Higham 2002, "Accuracy and Stability of Numerical
Algorithms", section 2.1). Kernels of 16 bits sum in float32 and round a few times, so they create 0.4 to 1.4 u, at
any width; in float32 the sums round too, and create up to 5 u (transformers' own kernels against each other).

Shapes: T tokens of a sequence, H width of a stage, S stages, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from .accumulators import Clusters, ClusterSums
from .intervals import NONNEGATIVE
from .layer_results import HeatRow, Internals, StageDifference, UnmatchedStage
from .results import Interval

Array = np.ndarray

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The largest relative error of one rounding."""
BEYOND = {"float64": 32.0, "float32": 32.0, "float16": 4.0, "bfloat16": 4.0}
"""How many roundings no stage creates by rounding alone."""
AMONG = 3.0
"""How many times as much as the same stage of any other layer is more than layers differ by: 1.4 was seen."""
_LEAST_OTHERS = 2
"""Layers that a stage's kind must have beside its own."""
COLUMNS = 48
"""Most positions of the heat map that are told apart."""


@dataclass(frozen=True, eq=False)
class Output:
    """What a stage gave for the tokens of a sequence, [T, H], in the dtype it was computed in."""

    values_TH: Array  # float32 or float64
    dtype: str


@dataclass(frozen=True)
class Place:
    """What is known of a stage before anything is measured: its kind, which other layers have too, and the stage
    that it reads (None: token ids, or several)."""

    kind: str
    reads: str | None = None


@dataclass(eq=False)
class _StageSums:
    width: int
    given_in: tuple[str, ...] = ()
    dtypes: list[str] = field(default_factory=lambda: list(ROUNDING)[-1:] * 2)
    error: ClusterSums = field(default_factory=ClusterSums)
    cosine: ClusterSums = field(default_factory=ClusterSums)
    created: ClusterSums = field(default_factory=ClusterSums)
    carried: ClusterSums = field(default_factory=ClusterSums)
    first: list[float] = field(default_factory=list)
    max_abs: float = 0.0
    same: int = 0
    values: int = 0
    error_P: Array = field(default_factory=lambda: np.zeros(0))
    count_P: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    not_finite: int = 0

    def along(self, position_T: Array, error_T: Array) -> None:
        """Errors at these positions; those that are not known do not count."""
        if not len(position_T):
            return
        length = int(position_T[-1]) + 1
        self.error_P, self.count_P = (_at_least(each, length) for each in (self.error_P, self.count_P))
        known_T = np.isfinite(error_T)
        self.error_P[position_T[known_T]] += error_T[known_T]
        self.count_P[position_T[known_T]] += 1


class LayerSums:
    """What an `Internals` is made of. `places` has the stages in the order of the computation."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places
        self._clusters = Clusters()
        self._sums: dict[str, _StageSums] = {}
        self._sequences = self._tokens = self._length = 0

    def begin(self, prompt: int, tokens: int) -> int:
        """A sequence is about to come; returns what `add` is to be told."""
        self._sequences += 1
        self._tokens += tokens
        self._length = tokens
        return int(self._clusters.rows(np.array([prompt]))[0])

    def add(self, row: int, stage: str, reference: Output, behavior: Output, swapped: Output | None = None) -> None:
        """One stage of a sequence: a, b and, where there is one, c (see `StageDifference`), of the same shape.

        They may be of some of its tokens alone, which then have no place in it.
        """
        a_TH, b_TH = (np.asarray(each.values_TH, dtype=np.float64) for each in (reference, behavior))
        sums = self._sums.setdefault(stage, _StageSums(a_TH.shape[1]))
        sums.dtypes = [_finer(*pair) for pair in zip(sums.dtypes, map(held_in, (behavior, reference)), strict=True)]
        sums.given_in = behavior.dtype, reference.dtype
        sums.same += int(((a_TH == b_TH) | (np.isnan(a_TH) & np.isnan(b_TH))).sum())
        sums.values += a_TH.size
        c_TH = None if swapped is None else np.asarray(swapped.values_TH, dtype=np.float64)
        finite_T = _finite(a_TH, b_TH, *(() if c_TH is None else (c_TH,)))
        sums.not_finite += int((~finite_T).sum())
        a_TH, b_TH = a_TH[finite_T], b_TH[finite_T]
        difference_TH = b_TH - a_TH
        sums.max_abs = max(sums.max_abs, float(np.abs(difference_TH).max(initial=0.0)))
        error_T = relative_error(a_TH, difference_TH)
        _add(sums.error, row, error_T)
        _add(sums.cosine, row, cosine(a_TH, b_TH))
        if c_TH is not None:
            c_TH = c_TH[finite_T]
            created_T = relative_error(b_TH, b_TH - c_TH)
            _add(sums.created, row, created_T)
            _add(sums.carried, row, relative_error(a_TH, c_TH - a_TH))
            if finite_T[0] and len(finite_T) == self._length:
                sums.first.append(float(created_T[0]))
        if len(finite_T) == self._length:
            sums.along(np.flatnonzero(finite_T), error_T)

    def result(
        self,
        streams: Sequence[str],
        unmatched: Sequence[UnmatchedStage] = (),
        *,
        confidence: float = 0.95,
    ) -> Internals:
        """`streams` are the stages that the heat map has as rows."""
        measured = {stage: self._stage(stage, confidence) for stage in self._places if stage in self._sums}
        stages = [self._with_others(each, measured) for each in measured.values()]
        prefix = next((index for index, each in enumerate(stages) if each.same < 1), len(stages))
        starts, heat = self._heat([stage for stage in streams if stage in self._sums])
        return Internals(
            stages=stages,
            sequences=self._sequences,
            tokens=self._tokens,
            same_prefix=prefix,
            first_difference=stages[prefix].stage if prefix < len(stages) else None,
            unmatched=list(unmatched),
            positions=starts,
            heat=heat,
        )

    def _stage(self, stage: str, confidence: float) -> StageDifference:
        sums = self._sums[stage]
        return StageDifference(
            stage=stage,
            dtype=sums.dtypes[0],
            reference_dtype=sums.dtypes[1],
            width=sums.width,
            error=_interval(sums.error, confidence),
            cosine=sums.cosine.mean if sums.cosine.n else None,
            max_abs=sums.max_abs,
            same=sums.same / sums.values,
            created=_interval(sums.created, confidence) if sums.created.n else None,
            carried=_interval(sums.carried, confidence) if sums.carried.n else None,
            created_first=float(np.mean(sums.first)) if sums.first else None,
            not_finite=sums.not_finite,
        )

    def _with_others(self, stage: StageDifference, measured: Mapping[str, StageDifference]) -> StageDifference:
        """With what the other stages of its kind, and the stage it reads, say of it."""
        place = self._places[stage.stage]
        source = measured.get(place.reads) if place.reads is not None else None
        stage = replace(stage, amplification=_over(stage.carried, None if source is None else source.error))
        if place.kind == _LAYER and source is not None:
            stage = replace(stage, growth=_over(stage.error, source.error))
        if stage.created is None or stage.created.value is None:
            return stage
        created = stage.created.value
        read = () if source is None else self._sums[source.stage].given_in
        coarse = coarser(*_dtypes(stage), *read)
        others = [
            each.created.value
            for name, each in measured.items()
            if name != stage.stage and self._places[name].kind == place.kind and each.created is not None
            if each.created.value is not None
        ]
        times = created / max(others) if others and max(others) > 0 else None
        stage = replace(
            stage,
            rounded_to=coarse,
            times_rounding=created / ROUNDING[coarse],
            limit=BEYOND[coarse],
            times_others=times,
        )
        enough = len(others) >= _LEAST_OTHERS
        computes_otherwise = len(set(_dtypes(stage))) == 2 and len(set(read)) == 1
        return replace(stage, stands_out=_why(stage, BEYOND[coarse], computes_otherwise, times if enough else None))

    def _heat(self, streams: Sequence[str]) -> tuple[tuple[int, ...], list[HeatRow]]:
        length = max((len(self._sums[stage].count_P) for stage in streams), default=0)
        if not length:
            return (), []
        starts = np.arange(0, length, -(-length // COLUMNS))
        rows = []
        for stage in streams:
            sums = self._sums[stage]
            error = np.add.reduceat(_at_least(sums.error_P, length), starts)
            count = np.add.reduceat(_at_least(sums.count_P, length), starts)
            cells = zip(error.tolist(), count.tolist(), strict=True)
            rows.append(HeatRow(stage, tuple(total / n if n else None for total, n in cells)))
        return tuple(starts.tolist()), rows


_LAYER = "layer"


def _why(
    stage: StageDifference, beyond: float, computes_otherwise: bool, times: float | None
) -> Literal["beyond_rounding", "other_dtype", "among_its_kind"] | None:
    """Why a stage stands out, whose kind in other layers creates `times` less."""
    assert stage.times_rounding is not None, "what it creates is known"
    if stage.times_rounding > beyond:
        return "beyond_rounding"
    if computes_otherwise:
        return "other_dtype"
    return "among_its_kind" if times is not None and times > AMONG and stage.times_rounding > 1 else None


def _dtypes(stage: StageDifference) -> tuple[str, str]:
    return stage.dtype, stage.reference_dtype


def coarser(*dtypes: str) -> str:
    """The dtype of the largest rounding."""
    return max(dtypes, key=ROUNDING.__getitem__)


def _finer(*dtypes: str) -> str:
    return min(dtypes, key=ROUNDING.__getitem__)


def held_in(output: Output) -> str:
    """The coarsest dtype that holds all values: logits are often cast up after they were computed."""
    if output.dtype == "float32":
        bits = np.ascontiguousarray(output.values_TH, dtype=np.float32).view(np.uint32)
        if not (bits & np.uint32(0xFFFF)).any():
            return "bfloat16"
    return output.dtype


def relative_error(a_TH: Array, difference_TH: Array) -> Array:
    """‖difference‖ / ‖a‖ of each token [T]; NaN where a is 0 and the difference is not, 0 where both are."""
    norm_T, error_T = np.linalg.norm(a_TH, axis=1), np.linalg.norm(difference_TH, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_T = error_T / norm_T
    return np.where(norm_T > 0, ratio_T, np.where(error_T > 0, np.nan, 0.0))


def cosine(a_TH: Array, b_TH: Array) -> Array:
    """The cosine of the angle between a and b at each token [T]; NaN where one of them is 0."""
    norms_T = np.linalg.norm(a_TH, axis=1) * np.linalg.norm(b_TH, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norms_T > 0, np.einsum("th,th->t", a_TH, b_TH) / norms_T, np.nan)


def _finite(*outputs: Array) -> Array:
    """At which tokens [T] all numbers of all are finite."""
    return np.all([np.isfinite(each).all(axis=1) for each in outputs], axis=0)


def _add(sums: ClusterSums, row: int, value_T: Array) -> None:
    value_T = value_T[np.isfinite(value_T)]
    if value_T.size:
        sums.add(np.array([row]), np.array([value_T.sum()]), np.array([value_T.size]), value_T)


def _interval(sums: ClusterSums, confidence: float) -> Interval:
    if not sums.n:
        return Interval(None, confidence=confidence)
    return sums.interval(confidence=confidence, bounds=NONNEGATIVE)


def _over(above: Interval | None, below: Interval | None) -> float | None:
    if above is None or below is None or above.value is None or not below.value:
        return None
    return above.value / below.value


def _at_least(value_P: Array, length: int) -> Array:
    return value_P if len(value_P) >= length else np.pad(value_P, (0, length - len(value_P)))
