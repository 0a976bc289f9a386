"""Which policies can be had through a server, and which log-probs have to be requested for a task."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import CapabilityError
from ...records import Sampling, Task
from .stages import DESCRIPTIONS, RecordedPolicy, Stage, entries_needed

MAX_BODY_BYTES_UNDER_WAY = 512 << 20
"""Of all responses under way together, and so of each of them: JSON grows several times when it is parsed."""

_GIVEN = "of given tokens"


@dataclass(frozen=True)
class LogprobPlan:
    """`entries` log-probs are requested at each token: of the most probable ids, or of given ones (`by_id`).

    `policies` are those that a rollout records.
    """

    entries: int
    policies: tuple[RecordedPolicy, ...] = ("processed",)
    by_id: bool = False


@dataclass(frozen=True)
class ServerCapabilities:
    """`stage` says what sampled log-probs are, `max_logprobs` how many a token there are at most; None is unknown.

    The log-probs of given responses are always raw.
    """

    url: str
    vocabulary: int
    stage: Stage | None
    max_logprobs: int | None
    bytes_per_logprob: int  # in JSON
    full_hint: str  # what helps where full distributions are needed
    processed_hint: str  # what helps where only the distribution sampled from is
    lists_given_ids: bool = False
    max_top_k_with_support: int = 0  # up to this top_k the distribution sampled from is told as well

    def reports_support(self, sampling: Sampling) -> bool:
        """Whether a response comes with what was sampled from, beside its log-probs."""
        return sampling.temperature > 0 and 0 < sampling.top_k <= self.max_top_k_with_support

    def for_rollout(self, task: Task) -> LogprobPlan:
        """Raises `CapabilityError` where what is sampled from, or a raw policy asked for, cannot be had."""
        sampling, entries = task.sampling, self._entries(task)
        if not sampling.transforms:
            return LogprobPlan(self._check(entries, sampling.max_new_tokens))
        if self.stage is None:
            raise CapabilityError(
                f"{self.url} does not show whether its log-probs are from before or after top-p and temperature.",
                hint="--temperature 1 --top-p 1 --top-k 0",
            )
        known = sampling.temperature == 0 or self.reports_support(sampling)
        if not known and entries_needed("processed", self.stage, sampling) == "all":
            what = f"what is sampled from at {_describe(sampling)}"
            entries = self._all(DESCRIPTIONS[self.stage], what, f"{self.full_hint}, or {self.processed_hint}")
        for_raw = entries_needed("raw", self.stage, sampling)
        if task.policy == "raw" and for_raw == "all":
            entries = self._all(DESCRIPTIONS[self.stage], "the raw policy", self.full_hint)
        if task.policy == "raw" and for_raw is None:
            raise CapabilityError(
                f"{self.url} reports log-probs {DESCRIPTIONS[self.stage]}: no way leads back to the raw policy.",
                hint="--policy processed, or start vLLM with --logprobs-mode raw_logprobs, its default",
            )
        with_raw = for_raw == "any" or (for_raw == "all" and entries == self.vocabulary)
        self._check(entries, sampling.max_new_tokens)
        return LogprobPlan(entries, ("processed", "raw") if with_raw else ("processed",))

    def for_score(self, task: Task, *, given_ids: bool, tokens: int) -> LogprobPlan:
        """For sequences of up to `tokens` tokens; `given_ids`: log-probs are wanted at ids that requests name."""
        entries, by_id = self._entries(task), False
        if task.policy != "raw" and entries_needed("processed", "raw", task.sampling) == "all":
            entries = self._all(_GIVEN, f"their policy at {_describe(task.sampling)}", self.full_hint)
        elif given_ids and self.lists_given_ids:
            by_id = True
        elif given_ids:
            entries = self._all(_GIVEN, "the ids that the behaviour listed", self.full_hint)
        return LogprobPlan(self._check(entries, tokens), by_id=by_id)

    def concurrency(self, plan: LogprobPlan, tokens: int, most: int) -> int:
        """How many responses of `tokens` tokens fit into memory, at most `most`."""
        size = max(1, plan.entries * tokens * self.bytes_per_logprob)
        return max(1, min(most, MAX_BODY_BYTES_UNDER_WAY // size))

    def _entries(self, task: Task) -> int:
        # More entries than there are ids would end SGLang.
        k = min(task.evidence.k, self.vocabulary)
        return {"sampled": 0, "topk": k, "full": self.vocabulary}[task.evidence.level]

    def _all(self, which: str, what: str, hint: str) -> int:
        """As many entries as there are ids, for what cannot be had from fewer."""
        if self.max_logprobs is None or self.max_logprobs < self.vocabulary:
            raise CapabilityError(
                f"{self.url} lists log-probs {which} of {self.max_logprobs or 'some'} ids, "
                f"not of all {self.vocabulary}: {what} cannot be had from them.",
                hint=hint,
            )
        return self.vocabulary

    def _check(self, entries: int, tokens: int) -> int:
        if self.max_logprobs is not None and entries > self.max_logprobs:
            fewer = f"topk:{self.max_logprobs}" if self.max_logprobs else "sampled"
            raise CapabilityError(
                f"{self.url} lists at most {self.max_logprobs} log-probs a token; {entries} are asked for.",
                hint=f"--evidence {fewer}, or {self.full_hint}",
            )
        size = entries * tokens * self.bytes_per_logprob
        if size > MAX_BODY_BYTES_UNDER_WAY:
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
