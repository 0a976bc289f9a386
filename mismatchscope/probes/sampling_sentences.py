"""What the probe `sampling` says: of which distribution the trainer's log-probs are, and what would mend it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..comparison.sampler_policy import RAW
from ..engines.spec import EngineSpec
from ..records import Sampling
from ..reports.logs.section import interval_text
from ..reports.text import count, estimate, number, setting
from .conclusions import gap, mean_tv

if TYPE_CHECKING:
    from ..comparison.pair import Pair
    from ..comparison.sampler_steps import SamplerSteps
    from ..reports.pair_fields import ProbeConclusion
    from ..reports.sampler_fields import SamplerStep
    from .cells import MeasuredCell

_CUTS = ("top_k", "top_p", "min_p")


@dataclass(frozen=True)
class Sampler:
    """The engine that samples, how, and what the trainer divides its logits by."""

    spec: EngineSpec
    sampling: Sampling
    trainer_temperature: float

    @property
    def greedy(self) -> bool:
        return self.sampling.temperature == 0

    @property
    def divides_otherwise(self) -> bool:
        return not self.greedy and self.sampling.temperature != self.trainer_temperature

    @property
    def cuts(self) -> str:
        """`top_k=20, top_p=0.9`."""
        usual = Sampling()
        set_ones = [key for key in _CUTS if getattr(self.sampling, key) != getattr(usual, key)]
        return ", ".join(f"{key}={setting(getattr(self.sampling, key))}" for key in set_ones)


def conclusions(
    sampler: Sampler, cells: Sequence[MeasuredCell], steps: SamplerSteps | None
) -> list[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    drawn = cells[0].trusted
    if drawn is None:
        return [ProbeConclusion("cannot_tell", f"The gap could not be measured: {cells[0].cell.reason}")]
    return list(_conclusions(sampler, drawn, cells, steps))


def _conclusions(
    sampler: Sampler, drawn: Pair, cells: Sequence[MeasuredCell], steps: SamplerSteps | None
) -> Iterator[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    yield _verdict(sampler, drawn, steps)
    if steps is None:
        unknown = next((each.cell.reason for each in cells if each.cell.setting == RAW and each.pair is None), None)
        yield from _without_distributions(sampler, drawn, unknown)
        return
    last, raw = steps.own[-1], steps.own[0]
    if sampler.cuts or sampler.greedy:
        least = f"{number(last.kept.least)} or more at every state"
        sentence = f"The sampler keeps {interval_text(last.kept.mean)} of its mass, {least}"
        yield ProbeConclusion("kept_mass", f"{sentence}: {number(last.kept.ids)} ids on average.")
    if sampler.greedy:
        sentence = "No log-prob of a trainer is of greedy decoding: draw with a temperature"
        yield ProbeConclusion("remedy", f"{sentence}.")
    elif (sampler.cuts or sampler.divides_otherwise) and last.floor.value:
        yield ProbeConclusion("remedy", _remedy(sampler, last, raw))
    yield from _largest_step(steps.own)
    yield from _reported(sampler)
    if steps.check is not None:
        check = steps.check
        same = "all" if check.same_kept == check.states else f"{check.same_kept:,}"
        states = f"{same} of {count(check.states, 'state')}"
        states += f", and at {check.tied:,} more but for which of ids that tie" if check.tied else ""
        sentence = (
            f"Made again of the raw policy in float64, the kept ids are those that were drawn from at {states}"
        )
        yield ProbeConclusion(
            "check", f"{sentence}, and TV to that distribution is at most {number(check.max_tv)}."
        )
    if steps.tried:
        sentence = "What was tried is computed at the states that this run reached; another sampler reaches others."
        yield ProbeConclusion("tried", sentence)


def _verdict(sampler: Sampler, drawn: Pair, steps: SamplerSteps | None) -> ProbeConclusion:
    """Whether, as far as settings go, the trainer's log-probs are of the distribution that was drawn from."""
    from ..reports.pair_fields import ProbeConclusion

    last = None if steps is None else steps.own[-1]
    both = f"temperature {setting(sampler.sampling.temperature)} on both sides"
    same = "As far as settings go, the trainer's log-probs are of the distribution that tokens were drawn from"
    if sampler.greedy:
        why = "decoding is greedy, so that nothing was drawn"
    elif last is not None and sampler.cuts and last.floor.value == 0:
        same += f", as {sampler.cuts} cut nothing off at the states that were seen"
        return ProbeConclusion("same_distribution", f"{same} ({both}): {gap(drawn.summary)}.")
    elif sampler.cuts and sampler.divides_otherwise:
        why = f"the sampler cuts ids off ({sampler.cuts}), and the two {_divisors(sampler)}"
    elif sampler.cuts:
        why = f"the sampler cuts ids off ({sampler.cuts}), and the trainer has its whole vocabulary"
    elif sampler.divides_otherwise:
        why = f"the two {_divisors(sampler)}"
    else:
        return ProbeConclusion("same_distribution", f"{same} ({both}, nothing cut off): {gap(drawn.summary)}.")
    size = f"mean TV is {mean_tv(drawn.summary) if last is None else interval_text(last.tv)}"
    if last is not None:
        size += f", and would be {interval_text(last.floor)} with perfect numerics"
    sentence = "The trainer's log-probs are not of the distribution that tokens were drawn from"
    return ProbeConclusion("other_distribution", f"{sentence}: {why}. {size[0].upper()}{size[1:]}.")


def _divisors(sampler: Sampler) -> str:
    ours, theirs = setting(sampler.sampling.temperature), setting(sampler.trainer_temperature)
    return f"divide their logits by other temperatures ({ours}, the trainer {theirs})"


def _remedy(sampler: Sampler, last: SamplerStep, raw: SamplerStep) -> str:
    """What makes them of one distribution, and what is left then."""
    changes = []
    if sampler.divides_otherwise:
        changes.append(f"have the trainer divide its logits by {setting(sampler.sampling.temperature)}")
    if sampler.cuts:
        changes.append("normalise its log-probs over the ids that the sampler kept (replay its kept set)")
    sentence = " and ".join(changes)
    left = f"mean TV is then {interval_text(last.replayed)}"
    return f"To mend it, {sentence}: {left}; that of the raw policies is {interval_text(raw.tv)}."


def _largest_step(own: Sequence[SamplerStep]) -> Iterator[ProbeConclusion]:
    from ..reports.pair_fields import ProbeConclusion

    told = [step for step in own if step.added is not None and step.added.low is not None and step.added.low > 0]
    if len(own) > 2 and told:
        most = max(told, key=lambda step: (step.added and step.added.value) or 0.0)
        assert most.added is not None
        sentence = f"Of the sampler's transforms {most.change} adds most to mean TV, {interval_text(most.added)}"
        yield ProbeConclusion("largest_step", f"{sentence}, in the order in which they come.")


def _reported(sampler: Sampler) -> Iterator[ProbeConclusion]:
    """What the engine's own log-probs are of, where a trainer that takes them for μ would be wrong."""
    from ..reports.pair_fields import ProbeConclusion

    own, name = sampler.sampling, sampler.spec.name
    if name == "vllm" and own.transforms and "logprobs_mode" not in sampler.spec.options:
        says = "vLLM's own log-probs are of the raw policy unless logprobs_mode is processed_logprobs"
    elif name == "sglang" and own.truncates:
        says = "SGLang's own log-probs are from before top-k and top-p unless return_sampling_mask is asked for"
    else:
        return
    yield ProbeConclusion("reported", f"{says}: taken for those of the sampler they are of another distribution.")


def _without_distributions(sampler: Sampler, drawn: Pair, unknown: str | None) -> Iterator[ProbeConclusion]:
    """What sampled tokens alone tell of the kept mass; `unknown` is why there is no pair of raw policies."""
    from ..reports.pair_fields import ProbeConclusion

    ratio = drawn.figures.token.ratio
    if sampler.cuts and drawn.context.on_policy and ratio is not None:
        mass = estimate(ratio.mean, ratio.low, ratio.high)
        sentence = f"The trainer has {mass} of its mass on the ids that the sampler kept (E ρ of sampled tokens)"
        yield ProbeConclusion("kept_mass", f"{sentence}.")
    if drawn.figures.evidence == "full":
        sentence = f"What each transform does is not known: {unknown or 'a raw policy was not seen whole'}"
    else:
        sentence = "What each transform does needs whole distributions of both sides: --evidence full, or full:0.1"
    yield ProbeConclusion("steps_unknown", f"{sentence}.")
