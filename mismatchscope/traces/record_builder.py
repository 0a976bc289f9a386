"""Arrays of one row a response -> finished sequences, checked before anything is written.

Shapes: B sequences, T response tokens of one sequence, K observed ids a token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UsageError
from ..measures.sampled import LOG_TOLERANCE
from ..records import Evidence, Observed, SequenceRecord
from .arrays import PerSequence, Rows, aligned, masks, per_sequence, rows, token_ids
from .columns import repeated_id


class RecordBuilder:
    """Responses, which of their tokens the policy chose, and what was observed of those.

    `mask` is 1 at the tokens that the policy chose. What follows the last of them is padding and goes; the others
    keep their place, with a log-prob of NaN, and the records say which they are.
    Raises `UsageError` for arrays that cannot belong together.
    """

    def __init__(self, responses: Rows, mask: Rows | None, logprobs: Rows) -> None:
        self._padded_B = rows(responses, "responses")
        chosen_B = masks(mask, "mask", self._padded_B)
        self._masked = mask is not None
        if not any(chosen_T.any() for chosen_T in chosen_B):
            raise UsageError("There is no response token.", hint="responses is empty, or its mask is 0 everywhere")
        self._chosen_B = [chosen_T[: np.flatnonzero(chosen_T).max(initial=-1) + 1] for chosen_T in chosen_B]
        self._responses_B = [
            token_ids(row_T[: len(chosen_T)], f"responses[{b}]")
            for b, (row_T, chosen_T) in enumerate(zip(self._padded_B, self._chosen_B, strict=True))
        ]
        self._widest = 0  # K of the longest list of top-k ids
        self.observed_B = [Observed(logprob_T=logp_T) for logp_T in self._logprobs(logprobs, "logprobs")]

    def __len__(self) -> int:
        return len(self._padded_B)

    @property
    def evidence(self) -> Evidence:
        observed = self.observed_B[0]
        if observed.full_logprobs_RV is not None:
            return Evidence("full")
        if observed.topk_ids_TK is not None:
            return Evidence("topk", k=self._widest - self._sampled_is_appended)
        return Evidence("sampled")

    def add_topk(self, ids: Rows | None, logprobs: Rows | None, *, falling: bool) -> None:
        """Top-k evidence, [B, T, K] each; `falling` where the log-probs are those that the ids were chosen by."""
        if ids is None or logprobs is None:
            raise UsageError("Top-k evidence needs topk_ids and topk_logprobs.", hint="give both, or neither")
        ids_B = aligned(ids, "topk_ids", self._padded_B, ndim=2)
        logp_B = self._logprobs(logprobs, "topk_logprobs", ndim=2)
        for b, (chosen_T, logp_TK) in enumerate(zip(self._chosen_B, logp_B, strict=True)):
            ids_TK = ids_B[b][: len(chosen_T)]
            listed_TK = (ids_TK >= 0) & chosen_T[:, None]
            if ids_TK.shape != logp_TK.shape:
                raise UsageError(
                    f"topk_ids[{b}] has {ids_TK.shape[1]} ids a token, topk_logprobs[{b}] {logp_TK.shape[1]}.",
                    hint="one log-prob for each id; where a token lists fewer, an id of -1",
                )
            token_ids(ids_TK[listed_TK], f"topk_ids[{b}]")
            repeated = repeated_id(np.where(listed_TK, ids_TK, -1))
            if repeated is not None:
                raise UsageError(
                    f"topk_ids[{b}] lists id {repeated.id} twice at position {repeated.row}.",
                    hint="list each id once: its probability would count twice",
                )
            logp_TK = np.where(listed_TK, logp_TK, np.nan)
            rises_T = (np.diff(logp_TK, axis=1) > 0).any(axis=1)
            if falling and rises_T.any():
                raise UsageError(
                    f"topk_logprobs[{b}] rises from one id to the next at position {rises_T.argmax()}.",
                    hint="list the ids in falling order of μ, the reference's at the same ids",
                )
            self._widest = max(self._widest, ids_TK.shape[1])
            self.observed_B[b].topk_ids_TK = np.where(listed_TK, ids_TK, -1).astype(np.int32)
            self.observed_B[b].topk_logprobs_TK = logp_TK

    def add_full(self, logprobs: Rows) -> None:
        """Full evidence: normalised log-probs of every id, [B, T, V]."""
        if self._widest:
            raise UsageError(
                "Both top-k and full evidence are given.", hint="full_logprobs alone: it holds the rest"
            )
        for b, logp_TV in enumerate(aligned(logprobs, "full_logprobs", self._padded_B, ndim=2)):
            row_R = np.flatnonzero(self._chosen_B[b])
            self.observed_B[b].full_row_R = row_R
            self.observed_B[b].full_logprobs_RV = logp_TV[row_R].astype(np.float32)

    @property
    def _sampled_is_appended(self) -> bool:
        """Whether the longest lists end with the sampled token, as servers append one that is not in the top-k."""
        shorter = False
        for response_T, observed in zip(self._responses_B, self.observed_B, strict=True):
            assert observed.topk_ids_TK is not None
            last_T = observed.topk_ids_TK[:, self._widest - 1]
            longest_T = last_T >= 0
            shorter = shorter or not longest_T.all()
            if (last_T[longest_T] != response_T[longest_T]).any():
                return False
        return shorter and self._widest > 1

    def records(
        self,
        *,
        prompts: Rows,
        prompt_mask: Rows | None,
        sequence_ids: PerSequence | None,
        prompt_ids: PerSequence | None,
        group: PerSequence | None,
        worker: PerSequence | None,
        policy_version: PerSequence | None,
        finish_reason: PerSequence | None,
    ) -> list[SequenceRecord]:
        """The sequences in rising order of their ids."""
        count = len(self)
        prompts_B = _unpadded(rows(prompts, "prompts", count), prompt_mask)
        ids_B = (
            list(range(count)) if sequence_ids is None else per_sequence(sequence_ids, "sequence_ids", int, count)
        )
        if len(set(ids_B)) < count:
            raise UsageError("sequence_ids has an id twice.", hint="one id a response, the same on both sides")
        columns = zip(
            ids_B,
            _numbered(prompts_B) if prompt_ids is None else per_sequence(prompt_ids, "prompt_ids", int, count),
            prompts_B,
            self._responses_B,
            per_sequence(finish_reason, "finish_reason", str, count),
            self.observed_B,
            per_sequence(policy_version, "policy_version", int, count),
            per_sequence(worker, "worker", str, count),
            per_sequence(group, "group", str, count),
            strict=True,
        )
        records = [
            SequenceRecord(
                sequence_id=sequence_id,
                prompt_id=prompt_id,
                prompt_token_ids=prompt,
                response_token_ids=response_T,
                finish_reason=reason,
                observed=observed,
                policy_version=version,
                worker=name,
                group=member,
            )
            for sequence_id, prompt_id, prompt, response_T, reason, observed, version, name, member in columns
        ]
        if self._masked:
            for record, chosen_T in zip(records, self._chosen_B, strict=True):
                record.mask_T = chosen_T
        return sorted(records, key=lambda record: record.sequence_id)

    def _logprobs(self, values: Rows, name: str, ndim: int = 1) -> list[np.ndarray]:
        """float64 [T] or [T, K] a sequence, NaN where the policy did not choose the token."""
        logp_B = []
        for b, row in enumerate(aligned(values, name, self._padded_B, ndim)):
            chosen_T = self._chosen_B[b]
            logp_T = row[: len(chosen_T)].astype(np.float64)
            logp_T[~chosen_T] = np.nan
            above_T = (logp_T > LOG_TOLERANCE).any(axis=tuple(range(1, ndim)))
            if above_T.any():
                at = int(above_T.argmax())
                raise UsageError(
                    f"{name}[{b}] has {np.nanmax(logp_T[at]):.4g} at position {at}: no log-prob is above 0.",
                    hint="give natural log-probs: no logits, no probabilities, and minus a cross-entropy",
                )
            logp_B.append(logp_T)
        return logp_B


def _unpadded(prompts_B: list[np.ndarray], mask: Rows | None) -> list[np.ndarray]:
    given_B = masks(mask, "prompt_mask", prompts_B)
    return [
        token_ids(row[given], f"prompts[{b}]")
        for b, (row, given) in enumerate(zip(prompts_B, given_B, strict=True))
    ]


def _numbered(prompts_B: Sequence[np.ndarray]) -> list[int]:
    """Equal prompts have one number, in the order in which they come."""
    number: dict[bytes, int] = {}
    return [number.setdefault(prompt.tobytes(), len(number)) for prompt in prompts_B]
