"""What the cells of the probe `routing`, and the experts that both sides choose, say together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..reports.text import count, estimate, number, share
from .conclusions import gap, mean_tv, measured

if TYPE_CHECKING:
    from ..measures.results import Interval
    from ..measures.routing_results import Routing
    from ..reports.pair_fields import PairSummary, ProbeCell, ProbeConclusion

OWN, IDS, BOTH = (
    "trainer, own routing",
    "trainer, ids replayed",
    "trainer, ids and weights replayed",
)
"""Whose experts the trainer's forward takes."""
READS, AS_DRAWN = "sampler prefill", "sampler as drawn"

_NEAR, _WIDE = 0.25, 0.5
"""Of the usual margin: what that of flips is below where they are near ties, and above where they are not."""
_FEWEST_FLIPS = 10
_LITTLE = 0.1
"""Of the gap: what routing is said to be no more than, where the interval is so narrow."""


def conclusions(cells: Sequence[ProbeCell], routing: Routing | None, why: str | None) -> list[ProbeConclusion]:
    """`why` there is no routing to speak of."""
    from ..reports.pair_fields import ProbeConclusion

    found = [*_shares({(cell.setting, cell.against): cell for cell, _ in measured(cells)})]
    if routing is None:
        found.append(ProbeConclusion("no_routes", f"Which experts both sides choose is not known: {why}"))
        return found
    found += [_flips(routing), *_by_state(routing), *_margins(routing), *_bursts(routing), *_slots(routing)]
    if any(cell.conditioned_on for cell in cells):
        found.append(
            ProbeConclusion(
                "routing_conditioned",
                "With the sampler's experts the trainer's forward is routing-conditioned: that splits the gap and "
                "does not lower α₁, which is of the policy that trains unless it is trained with the same replay.",
            )
        )
    return found


def _shares(cells: dict[tuple[str, str], ProbeCell]) -> Iterator[ProbeConclusion]:
    """How much of the gap routing is: of that from the sampler's prefill, whose experts are known; as drawn."""
    from ..reports.pair_fields import ProbeConclusion

    own = _pair(cells.get((OWN, READS)))
    if own is None:
        yield ProbeConclusion("cannot_tell", f"The gap between {READS} and {OWN} could not be measured.")
        return
    if own.identical:
        yield ProbeConclusion("no_gap", f"{READS} and {OWN} have the same bits: there is no gap to split.")
    elif (both := cells.get((BOTH, READS))) is None:
        sentence = (
            f"Between {READS} and {OWN}: {gap(own)}. How much of it is routing is not known without a replay."
        )
        yield ProbeConclusion("no_replay", sentence)
    else:
        yield _share(both, own)
        if (ids := cells.get((IDS, READS))) is not None:
            yield _ids_alone(ids, both)
    drawn, both_drawn = _pair(cells.get((OWN, AS_DRAWN))), cells.get((BOTH, AS_DRAWN))
    if drawn is not None and both_drawn is not None and not drawn.identical:
        found = _share(both_drawn, drawn)
        unseen = "The experts are those of its prefill: what decoding chose is not seen."
        yield ProbeConclusion(f"drawn_{found.code}", f"{found.sentence} {unseen}")


def _pair(cell: ProbeCell | None) -> PairSummary | None:
    return None if cell is None else cell.pair


def _share(both: ProbeCell, own: PairSummary) -> ProbeConclusion:
    from ..reports.pair_fields import ProbeConclusion

    of = f"the gap between {both.against} and trainer (mean TV {mean_tv(own)})"
    replayed, difference = both.pair, both.differences[0].tv
    assert replayed is not None, "cells here are those that were measured"
    if replayed.identical:
        sentence = f"All of {of} is routing: with the sampler's experts and weights no recorded bit differs."
        return ProbeConclusion("all_routing", sentence)
    left = f"with the sampler's experts and weights mean TV is {mean_tv(replayed)}"
    if _below(difference):
        return ProbeConclusion("routing", f"Of {of}, routing is {_taken_away(both)}: {left}.")
    if difference.low is not None and difference.low > 0:
        return ProbeConclusion("larger", f"The sampler's experts do not close {of}: {left}, which is more.")
    if difference.value is not None:
        left += f", a difference of {estimate(difference.value, difference.low, difference.high)}"
    whole = own.alpha.mean.value
    if whole and difference.low is not None and -difference.low <= _LITTLE * whole:
        most = share(round(max(-difference.low, 0.0) / whole, 3))
        return ProbeConclusion("little", f"Routing is at most {most} of {of}: {left}.")
    return ProbeConclusion("cannot_tell", f"Whether routing is a part of {of} cannot be told: {left}.")


def _ids_alone(ids: ProbeCell, both: ProbeCell) -> ProbeConclusion:
    """What the weights do beyond the choice."""
    from ..reports.pair_fields import ProbeConclusion

    beyond = both.differences[1].tv
    alone = f"Replaying ids alone leaves mean TV {mean_tv(ids.pair)}" if ids.pair else ""
    if both.pair is not None and both.pair.identical and ids.pair is not None and not ids.pair.identical:
        return ProbeConclusion("weights_matter", f"{alone}: the weights take away the rest.")
    if _below(beyond):
        lower = estimate(*(None if end is None else -end for end in (beyond.value, beyond.high, beyond.low)))
        return ProbeConclusion("weights_matter", f"{alone}: the weights take away another {lower}.")
    if beyond.low is not None and beyond.low > 0:
        return ProbeConclusion("weights_add", f"{alone}, less than with the sampler's weights.")
    if _below(ids.differences[0].tv):
        return ProbeConclusion("ids_matter", f"{alone}, not told from that with weights.")
    return ProbeConclusion("ids_not_told", f"{alone}: what the ids do, and the weights, cannot be told apart.")


def _below(difference: Interval) -> bool:
    return difference.high is not None and difference.high < 0


def _taken_away(cell: ProbeCell) -> str:
    """`87 % [80 %, 93 %]`: one less the ratio that is left."""
    if cell.ratio is None:
        return "of unknown share"
    ratio = cell.ratio.value
    value, low, high = (None if end is None else round(1 - end, 3) for end in (ratio.value, ratio.high, ratio.low))
    ends = "" if low is None or high is None else f" [{share(low)}, {share(high)}]"
    of = "" if cell.ratio.figure == "tv" else " of mean |Δ log p|"
    return f"{share(value)}{ends}{of}"


def _flips(routing: Routing) -> ProbeConclusion:
    from ..reports.pair_fields import ProbeConclusion

    layers = count(len(routing.layers), "layer")
    states = count(routing.tokens, "state")
    if not routing.flipped.value:
        return ProbeConclusion("no_flips", f"Both sides choose the same experts at all {states}, in {layers}.")
    flipped, decisions = _percent(routing.flipped), _percent(routing.decisions)
    sentence = (
        f"At {flipped} of {states} another set of {routing.chosen} of {routing.experts} experts is chosen in at "
        f"least one of {layers}; of all decisions {decisions} are such flips."
    )
    return ProbeConclusion("flips", sentence)


def _by_state(routing: Routing) -> Iterator[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    flipped, same, untouched = routing.tv_flipped, routing.tv_same, routing.tv_untouched
    if flipped.value is None or same.value is None:
        return
    there = f"Mean TV is {_mean(flipped)} at states with a flip and {_mean(same)} at those without"
    before = "" if untouched.value is None else f", {_mean(untouched)} where there is none before either"
    yield ProbeConclusion("tv_by_routing", f"{there}{before}. That is where the gap is, not what makes it.")


def _margins(routing: Routing) -> Iterator[ProbeConclusion]:
    """Whether flips are of decisions that were nearly ties; and experts that have other numbers."""
    from ..reports.pair_fields import ProbeConclusion

    renumbered = [layer.layer for layer in routing.layers if layer.renumbered]
    if renumbered:
        where = ", ".join(map(str, renumbered))
        sentence = (
            f"In layer {where} the sides number the experts differently: one permutation makes them agree, and a "
            "replay by number gives the trainer other experts."
        )
        yield ProbeConclusion("renumbered", sentence)
    flipped, same = routing.margin_flipped, routing.margin_same
    flips = (routing.decisions.value or 0.0) * routing.decisions.n
    if flipped is None or same is None or flips < _FEWEST_FLIPS:
        return
    figures = f"median margin {number(flipped)} in logits, {number(same)} where both agree"
    if flipped < _NEAR * same:
        yield ProbeConclusion("near_ties", f"Flips are decisions that were nearly ties: {figures}.")
    elif flipped > _WIDE * same:
        sentence = "which rounding does not turn round: other inputs or other weights of routers, or other numbers"
        yield ProbeConclusion("not_near_ties", f"Flips are no near ties: {figures}, {sentence}.")
    else:
        yield ProbeConclusion("margins", f"Flips: {figures}.")


def _bursts(routing: Routing) -> Iterator[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    after, other = routing.after_flip, routing.after_same
    if after.low is not None and other.high is not None and after.low > other.high:
        sentence = f"after a state with one {_percent(after)} have one, after another state {_percent(other)}"
        yield ProbeConclusion("bursts", f"Flips come in bursts: {sentence}.")


def _slots(routing: Routing) -> Iterator[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    if routing.reordered.value:
        sentence = f"At {_percent(routing.reordered)} of decisions the same experts are in other slots"
        yield ProbeConclusion("reordered", f"{sentence}: other weights, or another order of sums.")


def _percent(interval: Interval) -> str:
    value, low, high = (
        None if end is None else round(end, 4) for end in (interval.value, interval.low, interval.high)
    )
    return share(value) if low is None or high is None else f"{share(value)} [{share(low)}, {share(high)}]"


def _mean(interval: Interval) -> str:
    return f"{estimate(interval.value, interval.low, interval.high)} (n {interval.n:,})"
