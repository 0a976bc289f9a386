"""What a sampler does to a distribution, on one side alone."""

from __future__ import annotations

from ..detector import Finding, detector
from ..pictures import log_odds_picture
from ..sample import Sample
from ..statistics.distributions import rows, scaling
from ..statistics.lost_mass import rarest_against_lost
from ..statistics.masses import kept_sets, masses
from ..statistics.seen_ids import repeated_apart, scaling_of_seen
from ..statistics.size import (
    energy_below,
    gap,
    log_odds_line,
    mean_ratio,
    one_sided,
    rank_with_probability,
    share_below,
    upper_tail,
)
from ..statistics.stat import Stat, standard_error
from ..statistics.values import SIDES
from ..words import NAMES, number, percent, tokens

_RANKS, _RANKS_OF_ALL = 0.36, 0.5
"""Rank correlation of z and log p: 0.4 and more of temperatures, mostly below 0.25 of other causes. Where tokens
that came before are scaled more than others, it takes a higher one to say that all are scaled."""
_TIMES = 1.7
"""How much steeper a line may be for tokens that came before where all are scaled alike."""
_NEW, _AGAIN, _STEEPER_T = 0.72, 0.65, 2.5
"""Share of new tokens that are moved one way, and of repeated ones: 0.78 and more and at most 0.56 of a penalty,
both about a half of most causes, and both 0.7 and more of what loses mass. And how much more steeply repeated ones
go with log p, over its standard error."""
_ONE_TOKEN = 0.05
"""Share of the tokens that are apart at which the two probabilities add up to more than 1: at least 0.076 where ids
beyond the vocabulary take mass, and 0.02 where those of two tokens stand beside each other."""
_OF_ANOTHER = 0.97
"""Share of μ that π lacks at some token where μ's log-prob is another, likelier token's: a rare token is drawn now
and then."""
_EVERY_STATE = 0.8
"""Share of tokens with π below μ, from which on every state may have lost some: 0.87 and more of ids beyond the
vocabulary, 0.6 where attention is wrong from a place on."""
_SMALL_CUT, _AS_MUCH = 0.01, 0.35
"""Of a cut at so small a part of the mass few states have a token that is kept alone. All others lose about that
part: the median of what is lost over its 0.99-quantile is 0.5 and more, and at most 0.15 of ids beyond the
vocabulary."""
_LEAST_PART = 0.1
"""The 0.01-quantile of what is lost over its median: up to 0.06 of samplers that keep so many ids."""
_LEAST_MISSING = 3e-6
"""Mass: a softmax in float32 adds up to 1 within a few 1e-7."""
_MOVED = 1.25
"""In floors: a gap that is smaller is no reason to look for a temperature."""


@detector("temperature", needs=("distributions",), tokens=32)
def proportional_logits(sample: Sample) -> Finding | None:
    """One side's log-probs are a multiple of the other's at every state."""
    found, size = scaling(sample), gap(sample)
    if found is None or found.slope.value is None or size.value is None or size.value < _MOVED:
        return None
    factor = found.slope.value
    if found.explained < _explained_needed(size.value) or abs(factor - 1) < 3 * found.spread:
        return None
    return Finding(
        causes=("temperature",),
        why=f"At every state π's log-probs are {number(factor)} times μ's up to a constant, which explains "
        f"{percent(found.explained)} of how they differ; without a temperature the factor is 1.",
        statistic="factor of π's log-probs on μ's",
        value=found.slope,
        null=1.0,
        explained_N=sample.live_N,
        picture=log_odds_picture(sample),
    )


def _explained_needed(size: float) -> float:
    """Rounding takes its part of what a line can explain: the more, the smaller the gap."""
    return min(0.9, 0.9 * (1 - 1 / size**2))


@detector("truncation", "padded_vocabulary", "top1_logprob", tokens=64)
def one_way(sample: Sample) -> Finding | None:
    """π is below μ wherever they differ, and the mean ratio below 1: mass of π lies where μ does not go."""
    ratio, below = mean_ratio(sample), share_below(sample)
    if ratio.value is None or below.value is None or rows_are_whole(sample):
        return None
    if not (_below_where_apart(sample) or _below_nearly_everywhere(sample)):
        return None
    causes, more = _cut_or_shared(sample, below.value)
    if not causes:
        return None
    return Finding(
        causes=causes,
        why=f"π is below μ at {percent(below.value)} of the tokens with p < 0.9, about a half where only rounding "
        f"differs, and the mean ratio is {number(1 - ratio.value)} below the 1 that it is where tokens were drawn "
        f"from μ and π has no mass elsewhere{more}.",
        statistic="mean ratio",
        value=ratio,
        null=1.0,
        explained_N=sample.live_N,
        picture=log_odds_picture(sample),
    )


def _below_where_apart(sample: Sample) -> bool:
    """Whether tokens beyond rounding have π below μ, and the mean ratio is as low as that makes it."""
    sided, size, above, below = one_sided(sample), gap(sample), upper_tail(sample), energy_below(sample)
    if sided.value is None or size.value is None or above is None or below is None:
        return False
    if size.value < 1.4 or sided.n < 12 or sided.value < 0.9 or above > 4:
        return False
    # Rounding is on both sides alike, and has its part of the squares: the more, the smaller the gap.
    return below >= 1 - 1.5 / size.value**2 and _errors_below_one(sample) > 5


def _below_nearly_everywhere(sample: Sample) -> bool:
    """The same without a floor: what is lost at every state makes rounding the small part of z. Where rounding is
    all that differs π is above μ as often as below."""
    below, energy, size = share_below(sample), energy_below(sample), gap(sample)
    if below.value is None or energy is None or size.value is None:
        return False
    if sample.floor.measured and size.value < 1.4:
        return False
    return below.value > 0.88 and energy > 0.93 and _errors_below_one(sample) > 8


def _errors_below_one(sample: Sample) -> float:
    """How many standard errors the mean ratio is below 1, which no other distribution over the ids makes it."""
    ratio = mean_ratio(sample)
    error = standard_error(ratio)
    return 0.0 if ratio.value is None or not error else (1 - ratio.value) / error


def _cut_or_shared(sample: Sample, below: float) -> tuple[tuple[str, ...], str]:
    """A sampler that cuts keeps single tokens alone, and draws none that is far rarer than what it cut; ids beyond
    the vocabulary take their part of every state, those of rare tokens too."""
    lost = rarest_against_lost(sample)
    if lost.kept_alone > 0.12 and lost.kept_alone > 3 * lost.alone_in_pi:
        return ("truncation",), f"; μ keeps a token alone at {percent(lost.kept_alone)} of the states"
    if lost.too_rare and lost.of_one_token < _ONE_TOKEN and lost.most > _OF_ANOTHER:
        # So it seems where μ's column has another token's log-prob; but then the two fit beside each other.
        return ("top1_logprob",), (
            f"; at {tokens(lost.too_rare)} more mass is lost than all ids no likelier than the token could have, "
            f"and at {percent(lost.of_one_token)} of those apart the two probabilities add up to more than 1"
        )
    if below < _EVERY_STATE:
        return (), ""
    if lost.too_rare:
        return ("padded_vocabulary",), (
            f"; at {tokens(lost.too_rare)} more mass is lost than all ids no likelier than the token could have"
        )
    as_much = lost.median > _AS_MUCH * lost.nearly_most
    if as_much and lost.most < _SMALL_CUT:
        return ("truncation",), (
            f"; half of the states lose {percent(lost.median)} or more and one in a hundred more than "
            f"{percent(lost.nearly_most)}, as where all are cut at one sum"
        )
    if not as_much and lost.least > _LEAST_PART * lost.median:
        return ("padded_vocabulary",), (
            f"; at 99 % of the states no less than {percent(lost.least)} is lost, and no more than "
            f"{percent(lost.median)} at half of them: a sampler cuts next to nothing where one token has nearly all"
        )
    if lost.mean > 0.01 and lost.tokens >= 200 and lost.rarest > 0.05 * lost.mean and lost.rarest_of_own > 0.025:
        return (
            "truncation",
        ), f"; no token that was drawn is much rarer than the {percent(lost.mean)} that is lost"
    return ("truncation", "padded_vocabulary"), ""


def rows_are_whole(sample: Sample) -> bool:
    """Whether whole distributions tell it better."""
    found = rows(sample)
    return found is not None and found.ids is None


@detector("temperature", "penalty", tokens=200)
def log_odds(sample: Sample) -> Finding | None:
    """One side's log-odds are a multiple of the other's: of all tokens alike, or of those that came before."""
    lines, size, below = log_odds_line(sample), gap(sample), energy_below(sample)
    if rows(sample) is not None or lines is None or size.value is None or below is None:
        return None
    # Rounding has no line: where no floor was measured, a line says more than a size.
    if sample.floor.measured and size.value < _MOVED:
        return None
    line, ranks, times = lines.all, rank_with_probability(sample), lines.times_as_steep
    if line.correlation < 0.8 or below > 0.97 or ranks is None or _ratio_is_low(sample):
        return None
    alike = times is None or times < _TIMES
    all_scaled = line.explained > 0.4 and abs(line.t) > 10 and alike
    ranked = abs(ranks) > (_RANKS if alike else _RANKS_OF_ALL) and abs(line.t) > 4.5
    if all_scaled or ranked:
        causes: tuple[str, ...] = ("temperature",)
    elif _of_repeated(sample) or (
        line.explained > 0.13 and abs(line.t) > 3.4 and not alike and abs(lines.again_t) > 3.3
    ):
        causes = ("penalty",)
    else:
        return None
    of_repeated = "" if times is None else f", {number(times)} times as steeply for tokens that came before"
    return Finding(
        causes=causes,
        why=f"π's log-odds are about {number(line.factor.value)} times μ's{of_repeated}; z has a rank correlation "
        f"of {number(ranks)} with log p, mostly below 0.25 where neither a temperature nor a penalty differs.",
        statistic="rank correlation of z and log p",
        value=Stat(ranks, None, None, line.factor.n),
        null=None,
        explained_N=sample.live_N,
        picture=log_odds_picture(sample),
    )


def _of_repeated(sample: Sample) -> bool:
    """Whether new tokens are moved one way, and repeated ones the other way in proportion to their log-probs."""
    found = repeated_apart(sample)
    if found is None or found.new.value is None or found.again.value is None:
        return False
    return found.new.value > _NEW and found.again.value < _AGAIN and found.t > _STEEPER_T


def _ratio_is_low(sample: Sample) -> bool:
    """Whether the mean ratio is clearly below 1, which no temperature makes it."""
    ratio = mean_ratio(sample)
    error = standard_error(ratio)
    return ratio.value is not None and error is not None and (ratio.value - 1) < -6 * max(error, 1e-5)


@detector("truncation", needs=("whole distributions",), tokens=16)
def cut_off(sample: Sample) -> Finding | None:
    """One side has no mass at ids where the other has some."""
    found, sets = masses(sample), kept_sets(sample)
    if found is None or sets is None:
        return None
    for side, theirs in zip(SIDES, reversed(SIDES), strict=True):
        if found[side].excluded < 0.01 or found[theirs].excluded > 0.5 * found[side].excluded:
            continue
        return Finding(
            causes=("truncation",),
            why=f"{NAMES[side]} has no mass at {percent(found[side].excluded)} of the ids, where {NAMES[theirs]} "
            f"has {percent(found[side].beyond)} of its mass; uncut, both have some at every id.",
            statistic="share of ids without mass on one side",
            value=Stat(found[side].excluded, None, None, sets.of_rows),
            null=0.0,
            explained_N=sample.live_N,
            picture=log_odds_picture(sample),
        )
    return None


@detector("padded_vocabulary", needs=("whole distributions",), tokens=16)
def missing_mass(sample: Sample) -> Finding | None:
    """One side's probabilities do not add up to 1."""
    found = masses(sample)
    if found is None:
        return None
    for side, theirs in zip(SIDES, reversed(SIDES), strict=True):
        if found[side].missing < _LEAST_MISSING or abs(found[theirs].missing) > 0.1 * found[side].missing:
            continue
        count = 0 if (shown := rows(sample)) is None else len(shown.token_M)
        return Finding(
            causes=("padded_vocabulary",),
            why=f"{NAMES[side]}'s probabilities leave {percent(found[side].missing)} of the mass out, "
            f"{NAMES[theirs]}'s {percent(abs(found[theirs].missing))}: ids that are not shown have it.",
            statistic="mass that is missing",
            value=Stat(found[side].missing, None, None, count),
            null=0.0,
            explained_N=sample.live_N,
            picture=log_odds_picture(sample),
        )
    return None


@detector("penalty", needs=("token ids", "distributions"), tokens=32)
def seen_ids(sample: Sample) -> Finding | None:
    """Ids that came before in their response are scaled, and others are not."""
    found, size = scaling_of_seen(sample), gap(sample)
    if found is None or size.value is None or size.value < _MOVED:
        return None
    if found.explained < 0.4 * (1 - 1 / size.value**2) or abs(found.seen) < 2.5 * abs(found.unseen):
        return None
    return Finding(
        causes=("penalty",),
        why=f"π's log-probs of ids that came before in their response are {number(1 + found.seen)} times μ's, "
        f"those of others {number(1 + found.unseen)} times, which explains {percent(found.explained)} of how they "
        "differ; without a penalty both factors are 1.",
        statistic="factor of π's log-probs on μ's, of ids that came before",
        value=Stat(1 + found.seen, None, None, found.rows),
        null=1.0,
        explained_N=sample.live_N,
        picture=log_odds_picture(sample),
    )
