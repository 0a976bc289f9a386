"""The same tokens after other contexts: is the gap in the weights, in attention, or in what attention sees?

A softmax over one key is 1. Where a state's previous token is all of its context, a rotary embedding, a scale, a
soft cap, a window, a mask and chunks change nothing, nor do the queries and keys: what differs there is the rest of
the network, its precision or noise. (Not so in a model whose attention has sinks, or whose layers are recurrent.)
With the last n tokens, a fault of positions, a window or chunks has less to act on than with the whole context.

Both sides read, and are seen before top-k and top-p: the tokens that a sampler left out in one context may be the
likeliest in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..composition import BatchComposition
from ..errors import ConfigError
from ..reports.text import count, estimate, number
from .conclusions import MeasuredCell, by_computation, gap, measured
from .other_contexts import Bos, LastTokens, Template
from .plan import Comparison, OtherTokens, Plan, Probe, Question, Setting
from .prefix_cache import CACHE, after_a_reset, from_cache, of_cache, of_resets
from .sides import computations

if TYPE_CHECKING:
    from ..reports.pair_fields import CellRatio, Completions, PairSummary, ProbeCell, ProbeConclusion

_LAST = ("1", "16", "64")
_BOS, _TEMPLATE = "bos", "template"
_VALUES = (*_LAST, _BOS, _TEMPLATE, CACHE)

_WHOLE, _BEHAVIOUR, _AGAIN = "whole", "behaviour", "one token again"

GONE = 0.05
"""What is surely less than this of the gap with whole contexts has vanished."""
HALF = 0.5
CLEAR = 3.0
"""Short contexts are none that a model was trained on: sound pairs reached 1.6 times the usual rounding there."""


def _plan(question: Question) -> Plan:
    words = question.words or list(_VALUES)
    if not all(word in (_BOS, _TEMPLATE, CACHE) or (word.isdecimal() and int(word) > 0) for word in words):
        raise ConfigError(
            "A context is a number of tokens, bos, template, or cache.",
            hint=f"--values {','.join(_VALUES)} (1: one token alone)",
        )

    def side(label: str, behavior: bool, tokens: OtherTokens | None = None, **others: Any) -> Setting:
        spec = question.behavior if behavior else question.reference
        # Both sides in the reference's role: nothing is cut off, and both have its temperature.
        return Setting(label, "reference", spec, "prefill", tokens=tokens, **others)

    behavior, reference = side(_BEHAVIOUR, True), side(_WHOLE, False)
    whole = Comparison(behavior, reference)
    cells = [whole]
    for tokens in sorted({int(word) for word in words if word.isdecimal()}):
        context = LastTokens(tokens)
        ours, theirs = side(_BEHAVIOUR, True, context), side(context.label, False, context)
        cells.append(gap_there := Comparison(ours, theirs, over=whole))
        if tokens == 1:
            order = BatchComposition(shuffle_seed=1)
            for first, behaves in ((ours, True), (theirs, False)):
                again = side(_AGAIN, behaves, context, composition=order, again=1)
                cells.append(Comparison(first, again, over=gap_there))
    variants: list[OtherTokens] = [Bos(2), Bos(0)] if _BOS in words else []
    if _TEMPLATE in words:
        variants += [Template(question.model, added) for added in (True, False)]
    for variant in variants:
        cells.append(Comparison(behavior, side(variant.label, False, variant), over=whole))
        cells.append(Comparison(reference, side(variant.label, True, variant), over=whole))
    resets = after_a_reset(question.behavior) if CACHE in words else []
    if CACHE in question.words:  # another start of an engine, which the probe `batch` makes anyway
        cells += from_cache(computations(question)[0])
    return Plan(factor="what is before a token", comparisons=cells, greedy=[resets] if resets else [], the_gap=True)


@dataclass(frozen=True)
class _Gap:
    """A cell and the pair in it; the ratio is that to the gap with whole contexts."""

    cell: ProbeCell
    pair: PairSummary

    @property
    def ratio(self) -> CellRatio | None:
        return self.cell.ratio

    @property
    def times(self) -> str:
        """`0.031 [0.02, 0.05] times`."""
        assert self.ratio is not None
        value = self.ratio.value
        return f"{estimate(value.value, value.low, value.high)} times"

    def below(self, share: float) -> bool:
        """Whether the gap is surely less than this share of the one it is held against."""
        high = None if self.ratio is None else self.ratio.value.high
        return high is not None and high < share

    def above(self, share: float) -> bool:
        low = None if self.ratio is None else self.ratio.value.low
        return low is not None and low > share

    def beyond_rounding(self, times: float) -> bool:
        """Whether the gap is known to be so many times as large as rounding usually makes it."""
        return self.cell.times_rounding is not None and self.cell.times_rounding > times


def _conclude(cells: Sequence[ProbeCell], completions: Sequence[Completions]) -> list[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    found = [_Gap(*entry) for entry in measured(cells)]
    gaps = {each.cell.setting: each for each in found if each.cell.against == _BEHAVIOUR}
    whole = gaps.get(_WHOLE)
    cache = [*_from_cache(measured(cells)), *of_resets(completions)]
    if whole is None:
        return [ProbeConclusion("no_gap_known", "The gap with whole contexts could not be measured."), *cache]
    if whole.pair.identical:
        sentence = "With whole contexts both sides have the same bits: there is no gap."
        return [ProbeConclusion("no_gap", sentence), *cache]
    one = gaps.get(LastTokens(1).label)
    size = ProbeConclusion("gap", f"With whole contexts: {gap(whole.pair)}{_rounding(whole)}.")
    beginnings = list(_with_beginnings(found))
    if any(each.code in (_BOS, _TEMPLATE) for each in beginnings):
        return [*beginnings, size, *cache]  # a side that adds tokens does not have the contexts that are meant
    repeats = [each for each in found if each.cell.setting == _AGAIN]
    verdict = [] if one is None else list(_with_one_token(one, whole, repeats))
    more = [] if verdict and verdict[0].code == "stays" else list(_with_more(gaps))
    return [*verdict, size, *more, *beginnings, *cache]


def _rounding(found: _Gap) -> str:
    times = found.cell.times_rounding
    return "" if times is None else f"; {number(times)} times what rounding usually makes"


def _with_one_token(one: _Gap, whole: _Gap, repeats: Sequence[_Gap]) -> Iterator[ProbeConclusion]:
    from ..comparison.rounding_size import BEYOND
    from ..reports.pair_fields import ProbeConclusion

    where = f"With one token of context (at {count(one.pair.tokens or 0, 'state')})"
    if one.pair.identical:
        yield _vanished(f"{where} both sides have the same bits", "do not differ")
        return
    if one.ratio is None:
        yield ProbeConclusion("unclear", f"{where}: {gap(one.pair)}, which cannot be held against whole contexts.")
        return
    size = f"{where} the gap is {one.times} that with whole contexts{_rounding(one)}"
    clear = one.beyond_rounding(CLEAR)
    to_rounding = whole.beyond_rounding(BEYOND) and not one.beyond_rounding(BEYOND)
    if not clear and one.below(HALF if to_rounding else GONE):
        yield _vanished(size, "differ by no more than that")
        return
    if not clear and (to_rounding or not one.above(GONE)):
        yield ProbeConclusion("unclear", f"{size}: it cannot be told whether it vanishes.")
        return
    causes = "weights, norms, the head, quantisation, noise" + ("" if clear else " (rounding among it)")
    rest = "; most of the gap shows with more context alone" if one.below(HALF) else ""
    code = "stays_in_part" if rest else "stays"
    why = f"Attention has no choice of one key, so that much is {causes}, or a token that one side adds"
    yield ProbeConclusion(code, f"{size}. {why}{rest}.")
    for repeat in repeats:
        if repeat.above(HALF):
            side = repeat.cell.engine.partition(":")[0]
            sentence = f"There, {side} is {repeat.times} as far from itself when it is run again in another order"
            yield ProbeConclusion("noise", f"{sentence}: noise, or what else is in a batch.")


def _vanished(size: str, rest: str) -> ProbeConclusion:
    from ..reports.pair_fields import ProbeConclusion

    attention = (
        "attention (kernel, scale, soft cap, window, chunks) or what goes in (queries, keys, positions, mask)"
    )
    return ProbeConclusion("vanishes", f"{size}. It is {attention}; all other weights, norms and the head {rest}.")


def _with_more(gaps: dict[str, _Gap]) -> Iterator[ProbeConclusion]:
    """How the gap grows from a few tokens to whole contexts, and whether it is there at all with a few."""
    from ..reports.pair_fields import ProbeConclusion

    more = {label: each for label, each in gaps.items() if label.startswith("last ") and each.ratio is not None}
    if gone := [label for label, each in more.items() if each.pair.identical]:
        acting = "where a rotary base, a scale or a soft cap acts"
        sentence = f"With the {gone[-1]} both sides have the same bits, {acting}: what differs is further back"
        yield ProbeConclusion("further_back", f"{sentence}, as with a window, chunks, or the first tokens.")
    elif any(each.below(1.0) for each in more.values()):
        shown = ", ".join(f"{each.times} with the {label}" for label, each in more.items())
        yield ProbeConclusion("grows", f"The gap grows with the context: it is {shown} what it is with all.")


def _with_beginnings(found: Sequence[_Gap]) -> Iterator[ProbeConclusion]:
    """Whether the gap closes where one of the sides has another beginning."""
    from ..reports.pair_fields import ProbeConclusion

    for code, beginning in ((_BOS, "BOS "), (_TEMPLATE, "template ")):
        variants = [each for each in found if each.cell.setting.startswith(beginning)]
        closing = [each for each in variants if each.pair.identical or each.below(GONE)]
        for each in closing:
            side = "the reference" if each.cell.against == _BEHAVIOUR else "the behaviour"
            size = "the same bits" if each.pair.identical else f"{each.times} the gap is left"
            sentence = f"{_capital(each.cell.setting)} for {side} alone closes the gap: {size}"
            yield ProbeConclusion(code, f"{sentence}. The two sides do not see the same beginning.")
        if variants and not closing:
            labels = " or ".join(dict.fromkeys(each.cell.setting for each in variants))
            yield ProbeConclusion(f"not_{code}", f"{_capital(labels)} on one side does not close the gap.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _from_cache(cells: Sequence[MeasuredCell]) -> Iterator[ProbeConclusion]:
    for computation, own in by_computation(cells).items():
        yield from of_cache(computation, {(cell.setting, cell.against): pair.identical for cell, pair in own})


PROBE = Probe(_plan, _conclude)
