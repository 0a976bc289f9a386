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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..composition import BatchComposition
from ..errors import ConfigError
from ..records import Observed, SequenceRecord
from ..reports.text import count, estimate, number
from .conclusions import gap, measured
from .plan import Comparison, OtherTokens, Plan, Probe, Question, Setting

if TYPE_CHECKING:
    from ..reports.pair_fields import CellRatio, Completions, PairSummary, ProbeCell, ProbeConclusion
    from ..traces.reader import Trace

_STATES = 256
"""Of the states of all responses, so many are computed after shorter contexts: a random sample."""

_LAST = ("1", "16", "64")
_BOS = "bos"
_VALUES = (*_LAST, _BOS)

_WHOLE, _BEHAVIOUR, _AGAIN = "whole", "behaviour", "one token again"

_GONE = 0.05
"""What is surely less than this of the gap with whole contexts has vanished."""
_HALF = 0.5
_CLEAR = 3.0
"""Short contexts are none that a model was trained on: sound pairs reached 1.6 times the usual rounding there."""


@dataclass(frozen=True)
class LastTokens(OtherTokens):
    """A random sample of states, each a sequence of its own: the last `tokens` before it, or all where there are
    fewer, and the one token drawn there. The number of a sequence is that of the state in the trace."""

    tokens: int
    states: int = _STATES

    @property
    def label(self) -> str:
        return "one token" if self.tokens == 1 else f"last {self.tokens} tokens"

    def missing(self, drawn: Trace) -> str | None:
        return None

    def records(self, drawn: Trace) -> Iterator[SequenceRecord]:
        total = drawn.manifest.counts.tokens
        chosen_N = np.zeros(total, dtype=bool)
        chosen_N[np.random.default_rng(0).permutation(total)[: self.states]] = True
        start = 0
        for record in drawn.records():
            length = len(record.response_token_ids)
            for position in np.flatnonzero(chosen_N[start : start + length]).tolist():
                yield self._at(record, position, start + position)
            start += length

    def _at(self, record: SequenceRecord, position: int, number: int) -> SequenceRecord:
        here, before = slice(position, position + 1), record.response_token_ids[:position]
        seen = record.observed
        return replace(
            record,
            sequence_id=number,
            prompt_token_ids=np.concatenate([record.prompt_token_ids, before])[-self.tokens :],
            response_token_ids=record.response_token_ids[here],
            observed=Observed(
                seen.logprob_T[here],
                None if seen.topk_ids_TK is None else seen.topk_ids_TK[here],
                None if seen.topk_logprobs_TK is None else seen.topk_logprobs_TK[here],
            ),
        )


@dataclass(frozen=True)
class Bos(OtherTokens):
    """The sequences with one BOS token more or less before them: `times` 2 or 0."""

    times: int

    @property
    def label(self) -> str:
        return "BOS doubled" if self.times else "BOS missing"

    def missing(self, drawn: Trace) -> str | None:
        bos = _bos_token_id(drawn)
        if bos is None:
            return "nothing says which token is the model's BOS"
        column: Any = drawn.read_sequences(["prompt_token_ids"])["prompt_token_ids"]
        prompts: list[list[int]] = column.to_pylist()
        if not all(prompt[:1] == [bos] for prompt in prompts):
            return f"not every prompt begins with the BOS token, {bos}"
        if not self.times and any(len(prompt) == 1 for prompt in prompts):
            return "a prompt has no other token than BOS"
        return None

    def records(self, drawn: Trace) -> Iterator[SequenceRecord]:
        for record in drawn.records():
            bos, rest = record.prompt_token_ids[:1], record.prompt_token_ids[1:]
            yield replace(record, prompt_token_ids=np.concatenate([bos] * self.times + [rest]))


def _bos_token_id(drawn: Trace) -> int | None:
    config: dict[str, Any] = drawn.manifest.model.config or {}
    found = (config.get("text_config") or config).get("bos_token_id")
    return found if isinstance(found, int) else None


def _plan(question: Question) -> Plan:
    words = question.words or list(_VALUES)
    if not all(word == _BOS or (word.isdecimal() and int(word) > 0) for word in words):
        raise ConfigError(
            "A context is a number of tokens, or bos.", hint=f"--values {','.join(_VALUES)} (1: one token alone)"
        )

    def side(label: str, behavior: bool, tokens: OtherTokens | None = None, **others: Any) -> Setting:
        spec = question.behavior if behavior else question.reference
        # Both sides in the reference's role: nothing is cut off, and both have its temperature.
        return Setting(label, "reference", spec, "prefill", tokens=tokens, **others)

    behavior, reference = side(_BEHAVIOUR, True), side(_WHOLE, False)
    whole = Comparison(behavior, reference)
    cells = [whole]
    for tokens in sorted({int(word) for word in words if word != _BOS}):
        context = LastTokens(tokens)
        ours, theirs = side(_BEHAVIOUR, True, context), side(context.label, False, context)
        cells.append(gap_there := Comparison(ours, theirs, over=whole))
        if tokens == 1:
            order = BatchComposition(shuffle_seed=1)
            for first, behaves in ((ours, True), (theirs, False)):
                again = side(_AGAIN, behaves, context, composition=order, again=1)
                cells.append(Comparison(first, again, over=gap_there))
    if _BOS in words:
        for variant in (Bos(2), Bos(0)):
            cells.append(Comparison(behavior, side(variant.label, False, variant), over=whole))
            cells.append(Comparison(reference, side(variant.label, True, variant), over=whole))
    return Plan(factor="what is before a token", comparisons=cells, the_gap=True)


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
    if whole is None:
        return [ProbeConclusion("no_gap_known", "The gap with whole contexts could not be measured.")]
    if whole.pair.identical:
        return [ProbeConclusion("no_gap", "With whole contexts both sides have the same bits: there is no gap.")]
    one = gaps.get(LastTokens(1).label)
    size = ProbeConclusion("gap", f"With whole contexts: {gap(whole.pair)}{_rounding(whole)}.")
    bos = _with_bos([each for each in found if each.cell.setting in (Bos(2).label, Bos(0).label)])
    if any(each.code == "bos" for each in bos):
        return [*bos, size]  # the contexts of a side that adds a token are not what they are meant to be
    repeats = [each for each in found if each.cell.setting == _AGAIN]
    verdict = [] if one is None else list(_with_one_token(one, whole, repeats))
    more = [] if verdict and verdict[0].code == "stays" else list(_with_more(gaps))
    return [*verdict, size, *more, *bos]


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
    clear = one.beyond_rounding(_CLEAR)
    to_rounding = whole.beyond_rounding(BEYOND) and not one.beyond_rounding(BEYOND)
    if not clear and one.below(_HALF if to_rounding else _GONE):
        yield _vanished(size, "differ by no more than that")
        return
    if not clear and (to_rounding or not one.above(_GONE)):
        yield ProbeConclusion("unclear", f"{size}: it cannot be told whether it vanishes.")
        return
    causes = "weights, norms, the head, quantisation, noise" + ("" if clear else " (rounding among it)")
    rest = "; most of the gap shows with more context alone" if one.below(_HALF) else ""
    code = "stays_in_part" if rest else "stays"
    why = f"Attention has no choice of one key, so that much is {causes}, or a token that one side adds"
    yield ProbeConclusion(code, f"{size}. {why}{rest}.")
    for repeat in repeats:
        if repeat.above(_HALF):
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


def _with_bos(variants: Sequence[_Gap]) -> list[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    found: list[ProbeConclusion] = []
    closing = [each for each in variants if each.pair.identical or each.below(_GONE)]
    for each in closing:
        side = "the reference" if each.cell.against == _BEHAVIOUR else "the behaviour"
        size = "the same bits" if each.pair.identical else f"{each.times} the gap is left"
        sentence = f"{each.cell.setting} for {side} alone closes the gap: {size}"
        found.append(ProbeConclusion("bos", f"{sentence}. The two sides do not see the same beginning."))
    if variants and not closing:
        found.append(ProbeConclusion("not_bos", "BOS doubled or missing on one side does not close the gap."))
    return found


PROBE = Probe(_plan, _conclude)
