"""Log-probs as a server lists them, and the evidence that is recorded from them.

Shapes: T response tokens, N listed ids a token, K recorded ids a token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import EngineError
from ...records import Evidence, Observed, Request
from .stages import Transform
from .values import UnusableValue, check_same_length, log_probabilities, token_ids

MOST_MASS, LEAST_MASS = 1.05, 0.95
"""Of listed ids of a position together, of all of them: 1, and what log-probs of half precision add to it."""
ROUNDING = 0.01
"""By which two accounts of one log-prob may differ: of a relative rounding of 2⁻⁸ (bfloat16), and of 0.01 nats."""

Row = tuple[list[int] | np.ndarray, list[float | None] | np.ndarray]
"""The listed ids of a position and their log-probs."""


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-prob of each sampled token, and those of listed ids: distinct, in any order, padded with -1 and NaN.

    `exhaustive`: what is not listed has no mass.
    """

    logprob_T: np.ndarray  # float64, of the sampled token
    ids_TN: np.ndarray  # int32
    logprobs_TN: np.ndarray  # float64
    exhaustive: bool = False

    @classmethod
    def from_rows(
        cls,
        logprob_T: list[float | None],
        rows: Sequence[Row] | None = None,
        *,
        exhaustive: bool = False,
        widest: int | None = None,
    ) -> TokenLogprobs:
        """From what is listed at each position, at most `widest` ids; a log-prob that is null is NaN.

        Raises `UnusableValue` for lists that do not fit together, and for what is no id or no log-prob, and
        `CapabilityError` for logits.
        """
        sampled_T = log_probabilities(logprob_T)
        rows = rows if rows is not None else [([], [])] * len(sampled_T)
        check_same_length("positions", tokens=sampled_T, lists=rows)
        width = max((len(ids) for ids, _ in rows), default=0)
        if widest is not None and width > widest:
            raise UnusableValue(
                f"lists {width} log-probs of a token where {widest} are the most that was asked for"
            )
        ids_TN = np.full((len(rows), width), -1, dtype=np.int32)
        logprobs_TN = np.full((len(rows), width), np.nan)
        for row, (ids, logprobs) in enumerate(rows):
            check_same_length("a token's log-probs", ids=ids, logprobs=logprobs)
            ids_TN[row, : len(ids)] = token_ids(ids)
            logprobs_TN[row, : len(ids)] = log_probabilities(logprobs)
        return cls(sampled_T, ids_TN, logprobs_TN, exhaustive)

    def check(self, token_T: np.ndarray, vocabulary: int, *, most_probable: bool, least: int = 0) -> None:
        """Raise `UnusableValue` where what is listed contradicts itself, or the log-probs of the tokens themselves.

        `most_probable`: at each position the most probable ids are listed, so that no other is more probable. Fewer
        than `least` are too few.
        """
        listed_TN = self.ids_TN >= 0
        if len(token_T) and (fewest := listed_TN.sum(axis=1).min()) < least:
            raise UnusableValue(f"lists {fewest} of the {least} log-probs of a token that were asked for")
        if self.ids_TN.size == 0:
            return
        if self.ids_TN.max() >= vocabulary:
            raise UnusableValue(f"lists an id outside the vocabulary of {vocabulary}: it serves another model")
        sorted_TN = np.sort(self.ids_TN, axis=1)
        if ((sorted_TN[:, 1:] == sorted_TN[:, :-1]) & (sorted_TN[:, 1:] >= 0)).any():
            raise UnusableValue("lists an id twice for one token")
        mass_T = np.nansum(np.exp(np.where(listed_TN, self.logprobs_TN, -np.inf)), axis=1)
        if (mass_T > MOST_MASS).any():
            raise UnusableValue(f"lists probabilities of a token that add up to {mass_T.max():.3g}")
        own_TN = self.ids_TN == token_T[:, None]
        own_T = np.where(own_TN, self.logprobs_TN, -np.inf).max(axis=1)
        differs_T = own_TN.any(axis=1) & ~_agree(own_T, self.logprob_T)
        if most_probable:
            least_T = np.where(listed_TN, self.logprobs_TN, np.inf).min(axis=1)
            above_T = (self.logprob_T > least_T) & ~_agree(self.logprob_T, least_T)
            differs_T |= ~own_TN.any(axis=1) & listed_TN.any(axis=1) & above_T
        if differs_T.any():
            raise UnusableValue("contradicts itself about the log-prob of a token: the list of ids has another one")

    @classmethod
    def point_mass(cls, token_T: np.ndarray) -> TokenLogprobs:
        """Greedy decoding: all the mass on the token that was taken."""
        zeros_T = np.zeros(len(token_T))
        return cls(zeros_T, token_T.astype(np.int32)[:, None], zeros_T[:, None], exhaustive=True)

    def full(self, vocabulary: int) -> np.ndarray:
        """The full distributions, float32 [T, V]. Raises `EngineError` where a part is missing or is NaN."""
        if not self.exhaustive and (least := (self.ids_TN >= 0).sum(axis=1).min()) < vocabulary:
            raise EngineError(f"the server listed {least} of {vocabulary} log-probs")
        if np.isnan(self.logprobs_TN[self.ids_TN >= 0]).any():
            raise EngineError("the server's distributions hold NaN: the logits of its model are not finite")
        logp_TV = np.full((len(self.ids_TN), vocabulary), -np.inf, dtype=np.float32)
        row_M, rank_M = np.nonzero(self.ids_TN >= 0)
        logp_TV[row_M, self.ids_TN[row_M, rank_M]] = self.logprobs_TN[row_M, rank_M]
        return logp_TV

    def at(self, ids_TK: np.ndarray) -> np.ndarray:
        """The log-probs [T, K] of given ids, NaN at padding. Raises `EngineError` where one is not listed."""
        result_TK = np.full(ids_TK.shape, np.nan)
        for row, (wanted_K, ids_N, logprobs_N) in enumerate(
            zip(ids_TK, self.ids_TN, self.logprobs_TN, strict=True)
        ):
            found = dict(zip(ids_N.tolist(), logprobs_N.tolist(), strict=True))
            for rank, token_id in enumerate(wanted_K.tolist()):
                if token_id >= 0:
                    if token_id not in found:
                        raise EngineError(f"the server left out the log-prob of id {token_id}")
                    result_TK[row, rank] = found[token_id]
        return result_TK


def observe_entries(logprobs: TokenLogprobs, request: Request, evidence: Evidence) -> Observed:
    """Sampled or top-k evidence from log-probs that list what is asked for."""
    if evidence.level == "sampled":
        return Observed(logprobs.logprob_T)
    if request.observed_ids_TK is not None:
        ids_TK = request.observed_ids_TK
        return Observed(logprobs.logprob_T, ids_TK, logprobs.at(ids_TK))
    # NaN sorts behind everything, like the ids that are excluded.
    key_TN = np.where(np.isnan(logprobs.logprobs_TN), np.inf, -logprobs.logprobs_TN)
    order_TK = np.argsort(key_TN, axis=1, kind="stable")[:, : evidence.k]
    logprobs_TK = np.take_along_axis(logprobs.logprobs_TN, order_TK, axis=1)
    ids_TK = np.take_along_axis(logprobs.ids_TN, order_TK, axis=1)
    excluded_TK = ~np.isfinite(logprobs_TK)
    missing = ((0, 0), (0, evidence.k - ids_TK.shape[1]))
    return Observed(
        logprobs.logprob_T,
        np.pad(np.where(excluded_TK, -1, ids_TK).astype(np.int32), missing, constant_values=-1),
        np.pad(np.where(excluded_TK, np.nan, logprobs_TK), missing, constant_values=np.nan),
    )


def observe_full(
    logprobs: TokenLogprobs,
    token_T: np.ndarray,
    request: Request,
    evidence: Evidence,
    vocabulary: int,
    transform: Transform | None = None,
) -> Observed:
    """Any evidence from full distributions, after `transform`."""
    import torch

    from ..common.capture import Recorder, log_softmax

    logp_TV = torch.from_numpy(logprobs.full(vocabulary))
    if transform is not None:
        logp_TV = log_softmax(transform(logp_TV))
    length = len(token_T)
    recorder = Recorder(evidence, [request], length)
    recorder.add(
        np.zeros(length, dtype=np.int64), np.arange(length), logp_TV, torch.from_numpy(token_T.astype(np.int64))
    )
    return recorder.finish(0, length)


def _agree(a_T: np.ndarray, b_T: np.ndarray) -> np.ndarray:
    """Whether two accounts of log-probs are the same but for rounding; NaN agrees with NaN."""
    with np.errstate(invalid="ignore"):
        close_T = np.abs(a_T - b_T) <= ROUNDING * np.maximum(1.0, np.abs(b_T))
    return close_T | (a_T == b_T) | (np.isnan(a_T) & np.isnan(b_T))
