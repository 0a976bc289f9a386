"""What of the policies can be seen through a server, and what has to be asked of it for a task."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import CapabilityError
from ...records import Policy, Sampling, Task
from .listed import Stage, way_to

LARGEST_ANSWERS_BYTES = 512 << 20
"""Of all answers under way together, and so of each one: JSON grows several times when it is parsed."""

_STAGES = {
    "raw": "before the temperature",
    "tempered": "after the temperature and before top-k and top-p",
    "processed": "after temperature, top-k and top-p",
}
_GIVEN = "of given tokens"


@dataclass(frozen=True)
class Plan:
    """`entries` log-probs are asked for at each token: of the most probable ids, or of given ones (`by_id`).

    `policies` are those that a rollout records.
    """

    entries: int
    policies: tuple[Policy, ...] = ("processed",)
    by_id: bool = False


@dataclass(frozen=True)
class Sight:
    """`stage` says what sampled log-probs are, `cap` how many a token there are at most; None is unknown.

    The log-probs of given responses are always raw.
    """

    url: str
    vocabulary: int
    stage: Stage | None
    cap: int | None
    entry_bytes: int  # of one log-prob in an answer
    whole_remedy: str  # what helps where whole distributions are needed
    draw_remedy: str  # what helps where only the distribution sampled from is
    lists_given_ids: bool = False
    tells_draw_to_top_k: int = 0  # up to this top_k the distribution sampled from is told as well

    def tells_draw(self, sampling: Sampling) -> bool:
        """Whether an answer has what was sampled from, beside its log-probs."""
        return sampling.temperature > 0 and 0 < sampling.top_k <= self.tells_draw_to_top_k

    def for_rollout(self, task: Task) -> Plan:
        """Raises `CapabilityError` where what is sampled from, or a raw policy asked for, cannot be had."""
        sampling, entries = task.sampling, self._entries(task)
        if not sampling.transforms:
            return Plan(self._check(entries, sampling.max_new_tokens))
        if self.stage is None:
            raise CapabilityError(
                f"{self.url} does not show whether its log-probs are from before or after top-p and temperature.",
                hint="--temperature 1 --top-p 1 --top-k 0",
            )
        known = sampling.temperature == 0 or self.tells_draw(sampling)
        if not known and way_to("processed", self.stage, sampling) == "whole":
            what = f"what is sampled from at {_describe(sampling)}"
            entries = self._whole(_STAGES[self.stage], what, f"{self.whole_remedy}, or {self.draw_remedy}")
        raw = way_to("raw", self.stage, sampling)
        if task.policy == "raw" and raw == "whole":
            entries = self._whole(_STAGES[self.stage], "the raw policy", self.whole_remedy)
        if task.policy == "raw" and raw is None:
            raise CapabilityError(
                f"{self.url} reports log-probs {_STAGES[self.stage]}: no way leads back to the raw policy.",
                hint="--policy processed, or start vLLM with --logprobs-mode raw_logprobs, its default",
            )
        with_raw = raw == "listed" or (raw == "whole" and entries == self.vocabulary)
        self._check(entries, sampling.max_new_tokens)
        return Plan(entries, ("processed", "raw") if with_raw else ("processed",))

    def for_score(self, task: Task, *, given_ids: bool, tokens: int) -> Plan:
        """For sequences of up to `tokens` tokens; `given_ids`: log-probs are wanted at ids that requests name."""
        entries, by_id = self._entries(task), False
        if task.policy != "raw" and way_to("processed", "raw", task.sampling) == "whole":
            entries = self._whole(_GIVEN, f"their policy at {_describe(task.sampling)}", self.whole_remedy)
        elif given_ids and self.lists_given_ids:
            by_id = True
        elif given_ids:
            entries = self._whole(_GIVEN, "the ids that the behaviour listed", self.whole_remedy)
        return Plan(self._check(entries, tokens), by_id=by_id)

    def concurrency(self, plan: Plan, tokens: int, most: int) -> int:
        """How many answers of `tokens` tokens fit into memory, at most `most`."""
        size = max(1, plan.entries * tokens * self.entry_bytes)
        return max(1, min(most, LARGEST_ANSWERS_BYTES // size))

    def _entries(self, task: Task) -> int:
        # More entries than there are ids would end SGLang.
        k = min(task.evidence.k, self.vocabulary)
        return {"sampled": 0, "topk": k, "full": self.vocabulary}[task.evidence.level]

    def _whole(self, which: str, what: str, remedy: str) -> int:
        """As many entries as there are ids, for what cannot be had from fewer."""
        if self.cap is None or self.cap < self.vocabulary:
            raise CapabilityError(
                f"{self.url} lists log-probs {which} of {self.cap or 'some'} ids, not of all {self.vocabulary}: "
                f"{what} cannot be had from them.",
                hint=remedy,
            )
        return self.vocabulary

    def _check(self, entries: int, tokens: int) -> int:
        if self.cap is not None and entries > self.cap:
            raise CapabilityError(
                f"{self.url} lists at most {self.cap} log-probs a token; {entries} are asked for.",
                hint=f"--evidence {f'topk:{self.cap}' if self.cap else 'sampled'}, or {self.whole_remedy}",
            )
        size = entries * tokens * self.entry_bytes
        if size > LARGEST_ANSWERS_BYTES:
            raise CapabilityError(
                f"An answer of {tokens} tokens with {entries} log-probs each has {size >> 20} MiB: too much.",
                hint="--evidence topk:20, or fewer --max-new-tokens",
            )
        return entries


def _describe(sampling: Sampling) -> str:
    parts = [f"temperature {sampling.temperature:g}"]
    parts += [f"top-p {sampling.top_p:g}"] if sampling.top_p < 1 else []
    parts += [f"top-k {sampling.top_k}"] if sampling.top_k else []
    return ", ".join(parts)
