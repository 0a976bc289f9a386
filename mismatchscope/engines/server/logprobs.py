"""Log-probs as a server lists them, and the evidence that is recorded from them.

Shapes: T response tokens, N listed ids a token, K recorded ids a token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import CapabilityError, EngineError
from ...records import Evidence, Observed, Request
from .stages import Transform

EXCLUDED = -9999.0
"""At or below it a log-prob stands for -inf, which JSON lacks: vLLM sends -9999, SGLang the lowest float32."""

Row = tuple[Sequence[int], Sequence[float | None]]
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
        cls, logprob_T: Sequence[float | None], rows: Sequence[Row] | None = None, *, exhaustive: bool = False
    ) -> TokenLogprobs:
        """From what is listed at each position; a log-prob that is null is NaN.

        Raises `EngineError` for another number of positions, `CapabilityError` for logits.
        """
        rows = rows if rows is not None else [((), ())] * len(logprob_T)
        if len(rows) != len(logprob_T):
            raise EngineError(f"the server listed {len(rows)} positions of {len(logprob_T)} tokens")
        width = max((len(ids) for ids, _ in rows), default=0)
        ids_TN = np.full((len(rows), width), -1, dtype=np.int32)
        logprobs_TN = np.full((len(rows), width), np.nan)
        for row, (ids, logprobs) in enumerate(rows):
            ids_TN[row, : len(ids)] = ids
            logprobs_TN[row, : len(ids)] = _parse(logprobs)
        return cls(_parse(logprob_T), ids_TN, logprobs_TN, exhaustive)

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


def _parse(logprobs: Sequence[float | None]) -> np.ndarray:
    values = np.array(logprobs, dtype=np.float64)  # None becomes NaN
    if (values > 1e-3).any():
        raise CapabilityError(
            f"The server calls {values[values > 1e-3][0]:.4g} a log-probability: it reports logits.",
            hint="start vLLM with --logprobs-mode raw_logprobs, its default",
        )
    return np.where(values <= EXCLUDED, -np.inf, values)
