"""Values that stand where no log-prob was recorded, and columns that were stored in less precision.

Everything is counted block by block and merged in any order; what the counts mean is decided once, at the end.

Shapes: N states of a block, S its sequences, L of them that are long enough for a tail, W rows at the end of one, R
runs of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from ..measures import kernel
from ..measures.rounding import SPARE_BITS
from ..reports.text import count, share
from .states import States

CLEARLY_BELOW = -0.05
RUN = 4
LOW = -20.0
TAIL = 8
_TAIL_VARIES = 0.05
# Of values nearer to 0 even a float32 log-softmax has few significant bits.
_GRADED_BELOW = -1 / 64
_TYPE = {8: "bfloat16", 11: "float16"}

Place = tuple[int, int]  # sequence id, position
_NOWHERE: Place = (2**63 - 1, 2**63 - 1)


@dataclass
class ColumnCounts:
    """What was seen in the column of one side. A run is of exact zeros within a response, at least `RUN` of which,
    and a quarter, lie where the other side is below `CLEARLY_BELOW`."""

    rows: int = 0
    zeros: int = 0
    clear_zeros: int = 0
    runs: int = 0
    run_rows: int = 0
    run_clear_zeros: int = 0
    first_run: Place = _NOWHERE
    low: int = 0
    whole: int = 0
    whole_from: float = np.inf
    whole_to: float = -np.inf
    first_whole: Place = _NOWHERE
    graded: int = 0
    bits8: int = 0
    bits11: int = 0
    long_responses: int = 0
    tails: int = 0
    tail_rows: int = 0
    first_tail: Place = _NOWHERE

    def add(self, states: States, logp_N: np.ndarray, other_N: np.ndarray) -> None:
        """Take in the column `logp_N` of some whole sequences beside that of the other side."""
        self.rows += len(logp_N)
        library = kernel.library()
        if library is not None:
            found = np.empty(1, _RESULT)
            library.column_counts(
                *(kernel.address(np.ascontiguousarray(each)) for each in (logp_N, other_N)),
                *(kernel.address(each, np.int64) for each in (states.sequence_id_S, states.offsets_S1)),
                *(len(states.length_S), _LIMITS.ctypes.data, found.ctypes.data),
            )
            self.merge(_counts(states, dict(zip(_RESULT.names or (), found[0].item(), strict=True))))
            return
        self._add_zeros(states, logp_N, other_N)
        self._add_whole_numbers(states, logp_N)
        graded_N = (logp_N < _GRADED_BELOW) & (logp_N > -np.inf)
        bits_N = np.ascontiguousarray(logp_N).view(np.int64)
        self.graded += int(np.count_nonzero(graded_N))
        self.bits8 += int(np.count_nonzero(graded_N & (bits_N & SPARE_BITS[8] == 0)))
        self.bits11 += int(np.count_nonzero(graded_N & (bits_N & SPARE_BITS[11] == 0)))
        self._add_tails(states, logp_N, other_N)

    def merge(self, other: ColumnCounts) -> None:
        for name in (field.name for field in fields(self)):
            ours, theirs = getattr(self, name), getattr(other, name)
            smaller = name.startswith("first_") or name == "whole_from"
            merged = min(ours, theirs) if smaller else max(ours, theirs) if name == "whole_to" else ours + theirs
            setattr(self, name, merged)

    def _add_zeros(self, states: States, logp_N: np.ndarray, other_N: np.ndarray) -> None:
        zero_N = logp_N == 0.0
        zeros = int(np.count_nonzero(zero_N))
        self.zeros += zeros
        if not zeros:
            return
        clear_N = zero_N & (other_N < CLEARLY_BELOW)
        clear = int(np.count_nonzero(clear_N))
        self.clear_zeros += clear
        if clear < RUN:
            return
        before_N, after_N = np.zeros_like(zero_N), np.zeros_like(zero_N)
        before_N[1:], after_N[:-1] = zero_N[:-1], zero_N[1:]
        before_N[states.start_S], after_N[states.offsets_S1[1:] - 1] = False, False
        first_R, end_R = np.flatnonzero(zero_N & ~before_N), np.flatnonzero(zero_N & ~after_N) + 1
        clear_upto = np.concatenate([[0], np.cumsum(clear_N)])
        clear_R, length_R = clear_upto[end_R] - clear_upto[first_R], end_R - first_R
        filled_R = (clear_R >= RUN) & (4 * clear_R >= length_R)
        if filled_R.any():
            self.runs += int(filled_R.sum())
            self.run_rows += int(length_R[filled_R].sum())
            self.run_clear_zeros += int(clear_R[filled_R].sum())
            self.first_run = min(self.first_run, *(_place(states, int(row)) for row in first_R[filled_R]))

    def _add_whole_numbers(self, states: States, logp_N: np.ndarray) -> None:
        if logp_N.min() >= LOW:
            return
        row = np.flatnonzero((logp_N < LOW) & (logp_N > -np.inf))
        self.low += len(row)
        row = row[logp_N[row] == np.rint(logp_N[row])]
        if len(row):
            self.whole += len(row)
            self.whole_from = min(self.whole_from, float(logp_N[row].min()))
            self.whole_to = max(self.whole_to, float(logp_N[row].max()))
            self.first_whole = min(self.first_whole, *(_place(states, int(each)) for each in row))

    def _add_tails(self, states: States, logp_N: np.ndarray, other_N: np.ndarray) -> None:
        long_L = np.flatnonzero(states.length_S >= TAIL)
        self.long_responses += len(long_L)
        row_LW = states.offsets_S1[1:][long_L][:, None] - 1 - np.arange(TAIL)
        last_LW, other_LW = logp_N[row_LW], other_N[row_LW]
        with np.errstate(invalid="ignore"):  # −inf less −inf
            varies_L = other_LW.max(axis=1) - other_LW.min(axis=1) > _TAIL_VARIES
        constant_L = (last_LW == last_LW[:, :1]).all(axis=1) & (last_LW[:, 0] < 0) & np.isfinite(last_LW[:, 0])
        for at in long_L[constant_L & varies_L]:  # few: in a sound column none
            response = slice(states.start_S[at], states.offsets_S1[at + 1])
            changes = np.flatnonzero(logp_N[response] != logp_N[response.stop - 1])
            begin = int(changes[-1]) + 1 if len(changes) else 0
            self.tails += 1
            self.tail_rows += int(states.length_S[at]) - begin
            self.first_tail = min(self.first_tail, _place(states, int(response.start) + begin))


_RESULT = np.dtype(
    [
        *(
            (name, np.int64)
            for name in ("zeros", "clear_zeros", "runs", "run_rows", "run_clear_zeros", "first_run")
        ),
        *((name, np.int64) for name in ("low", "whole", "first_whole", "graded", "bits8", "bits11")),
        *((name, np.int64) for name in ("long_responses", "tails", "tail_rows", "first_tail")),
        *((name, np.float64) for name in ("whole_from", "whole_to")),
    ]
)
"""The layout of the result of column_counts.c, which does what the methods above do, and of its limits."""
_LIMITS = np.array(
    (CLEARLY_BELOW, LOW, _GRADED_BELOW, _TAIL_VARIES, RUN, TAIL),
    dtype="f8,f8,f8,f8,i8,i8",
)


def _counts(states: States, found: dict[str, float]) -> ColumnCounts:
    """Rows of the block become places."""
    for name in ("first_run", "first_whole", "first_tail"):
        row = int(found.pop(name))
        found[name] = _NOWHERE if row < 0 else _place(states, row)  # type: ignore[assignment]
    return ColumnCounts(**found)  # type: ignore[arg-type]


def _place(states: States, row: int) -> Place:
    at = int(np.searchsorted(states.start_S, row, side="right")) - 1
    return int(states.sequence_id_S[at]), int(states.position_N[row])


class Filler(NamedTuple):
    """`kind` is "zeros", "whole_numbers" or "tails"; `rows` of the `of_rows` of that side, the first at `place`."""

    kind: str
    side: str
    rows: int
    of_rows: int
    place: Place
    message: str


class Rounded(NamedTuple):
    """The share of values that `bits` significant bits hold, on the rounded side and on the other."""

    side: str
    bits: int
    share: float
    other_share: float
    message: str


class Fillers:
    """The columns of both sides of a pair, as they were recorded."""

    def __init__(self) -> None:
        self.behavior, self.reference = ColumnCounts(), ColumnCounts()

    def add(self, states: States) -> None:
        """Take in the states of some whole sequences."""
        self.behavior.add(states, states.logp_mu_N, states.recorded_pi_N)
        self.reference.add(states, states.recorded_pi_N, states.logp_mu_N)

    def merge(self, other: Fillers) -> None:
        self.behavior.merge(other.behavior)
        self.reference.merge(other.reference)

    def found(self, *, zeros_may_be_sampled: bool) -> Iterator[Filler]:
        """What looks like a filler.

        `zeros_may_be_sampled`: a greedy or truncating sampler gives a token that is alone in the kept set the
        log-prob 0, so zeros all over the behaviour's column are no filler.
        """
        for side, other, counts in (
            ("behaviour", "reference", self.behavior),
            ("reference", "behaviour", self.reference),
        ):
            if _zeros_are_filled(counts, zeros_may_be_sampled and side == "behaviour"):
                what = (
                    f"are exactly 0 in {count(counts.runs, 'run')} within a response, while the {other} is below "
                    f"{CLEARLY_BELOW} at {counts.run_clear_zeros:,} of these rows"
                )
                yield _filler("zeros", side, counts, counts.run_rows, counts.first_run, what)
            if _whole_numbers_are_filled(counts):
                span = f"{counts.whole_from:.0f}"
                if counts.whole_from != counts.whole_to:
                    span += f" to {counts.whole_to:.0f}"
                what = "is a whole number" if counts.whole == 1 else "are whole numbers"
                what += f" below {LOW:.0f} ({span})"
                yield _filler("whole_numbers", side, counts, counts.whole, counts.first_whole, what)
            if counts.tails >= max(3, 0.05 * counts.long_responses):
                what = (
                    f"repeat one value up to the end of {count(counts.tails, 'response')}, {TAIL} rows and more "
                    f"each, while the {other} varies there"
                )
                yield _filler("tails", side, counts, counts.tail_rows, counts.first_tail, what)

    def rounded(self) -> Rounded | None:
        """The side whose values alone lie on the grid of bfloat16, or else of float16."""
        sides = (("behaviour", self.behavior), ("reference", self.reference))
        if min(counts.graded for _, counts in sides) < 100:
            return None
        for bits in SPARE_BITS:
            for (side, counts), (other, rest) in (sides, sides[::-1]):
                held = getattr(counts, f"bits{bits}") / counts.graded
                other_held = getattr(rest, f"bits{bits}") / rest.graded
                if held > 0.97 and other_held < 0.6:
                    message = (
                        f"{share(held)} of the {side}'s log-probs below {_GRADED_BELOW:.3f} fit {bits} significant "
                        f"bits, as many as {_TYPE[bits]} has; {share(other_held)} of the {other}'s do. Rounding to "
                        f"so many moves a log-prob by up to 1/{2**bits} of itself."
                    )
                    return Rounded(side, bits, held, other_held, message)
        return None


def _zeros_are_filled(counts: ColumnCounts, may_be_sampled: bool) -> bool:
    if not counts.runs or 2 * counts.run_clear_zeros < counts.clear_zeros:
        return False
    outside = counts.rows - counts.run_rows
    enough_outside = 10 * outside >= counts.rows
    return not may_be_sampled or (enough_outside and 4 * (counts.zeros - counts.run_rows) <= outside)


def _whole_numbers_are_filled(counts: ColumnCounts) -> bool:
    """On the grid of a short float type whole numbers are common far below 0: there it takes one that repeats."""
    if not counts.whole or 2 * counts.whole < counts.low:
        return False
    coarse = counts.bits11 > 0.97 * counts.graded
    return not coarse or (counts.whole >= 3 and counts.whole_from == counts.whole_to)


def _filler(kind: str, side: str, counts: ColumnCounts, rows: int, place: Place, what: str) -> Filler:
    sequence_id, position = place
    message = (
        f"{rows:,} of the {counts.rows:,} log-probs of the {side} ({share(rows / counts.rows)}) {what}; the first "
        f"is position {position} of sequence {sequence_id}. Values that were filled in look like this."
    )
    return Filler(kind, side, rows, counts.rows, place, message)
