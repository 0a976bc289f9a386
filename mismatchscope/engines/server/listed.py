"""What a server lists of its distributions, and how the policies that we record are had from it.

Servers report log-probs at different stages of the way from the logits to the draw:

    raw         the softmax of the logits
    tempered    after the temperature
    processed   after top-k and top-p as well: what is sampled from

A later stage can be computed from a whole distribution of an earlier one, and `raw` from a whole `tempered` one.
From a few entries it cannot, because the normaliser is a sum over the vocabulary; what top-k or top-p cut off does
not come back at all.

Shapes: T response tokens, N listed ids a token, K recorded ids a token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...errors import CapabilityError, EngineError
from ...records import Evidence, Observed, Request, Sampling

if TYPE_CHECKING:
    from torch import Tensor

Stage = Literal["raw", "tempered", "processed"]
Transform = Callable[["Tensor"], "Tensor"]

EXCLUDED = -9999.0
"""At or below it a log-prob stands for -inf, which JSON lacks: vLLM sends -9999, SGLang the lowest float32."""


@dataclass(frozen=True)
class Listed:
    """Ids and log-probs as a server lists them: distinct, in any order, padded with -1 and NaN.

    `exhaustive`: what is not listed has no mass.
    """

    logprob_T: np.ndarray  # float64, of the sampled token
    ids_TN: np.ndarray  # int32
    logprobs_TN: np.ndarray  # float64
    exhaustive: bool = False

    def dense(self, vocabulary: int) -> np.ndarray:
        """The whole distributions, float32 [T, V]. Raises `EngineError` where a part is missing or is NaN."""
        if not self.exhaustive and (self.ids_TN >= 0).sum(axis=1).min() < vocabulary:
            least = (self.ids_TN >= 0).sum(axis=1).min()
            raise EngineError(f"the server listed {least} of {vocabulary} log-probs")
        if np.isnan(self.logprobs_TN[self.ids_TN >= 0]).any():
            raise EngineError("the server's distributions hold NaN: the logits of its model are not finite")
        logp_TV = np.full((len(self.ids_TN), vocabulary), -np.inf, dtype=np.float32)
        row_M, rank_M = np.nonzero(self.ids_TN >= 0)
        logp_TV[row_M, self.ids_TN[row_M, rank_M]] = self.logprobs_TN[row_M, rank_M]
        return logp_TV


def listing(
    logprob_T: Sequence[float | None],
    rows: Sequence[tuple[Sequence[int], Sequence[float | None]]] | None = None,
    *,
    exhaustive: bool = False,
) -> Listed:
    """A listing from the ids and log-probs of each position; a log-prob that is null is NaN."""
    rows = rows if rows is not None else [((), ())] * len(logprob_T)
    if len(rows) != len(logprob_T):
        raise EngineError(f"the server listed {len(rows)} positions of {len(logprob_T)} tokens")
    width = max((len(ids) for ids, _ in rows), default=0)
    ids_TN = np.full((len(rows), width), -1, dtype=np.int32)
    logprobs_TN = np.full((len(rows), width), np.nan)
    for row, (ids, logprobs) in enumerate(rows):
        ids_TN[row, : len(ids)] = ids
        logprobs_TN[row, : len(ids)] = _numbers(logprobs)
    return Listed(_numbers(logprob_T), ids_TN, logprobs_TN, exhaustive)


def point_mass(token_T: np.ndarray) -> Listed:
    """Greedy decoding: all the mass on the token that was taken."""
    zeros_T = np.zeros(len(token_T))
    return Listed(zeros_T, token_T.astype(np.int32)[:, None], zeros_T[:, None], exhaustive=True)


def _numbers(logprobs: Sequence[float | None]) -> np.ndarray:
    values = np.array(logprobs, dtype=np.float64)  # None becomes NaN
    if (values > 1e-3).any():
        raise CapabilityError(
            f"The server calls {values[values > 1e-3][0]:.4g} a log-probability: it reports logits.",
            hint="start vLLM with --logprobs-mode raw_logprobs, its default",
        )
    return np.where(values <= EXCLUDED, -np.inf, values)


def truncates(sampling: Sampling) -> bool:
    """Whether tokens are excluded from the draw; greedy decoding excludes all but one."""
    return sampling.top_p < 1.0 or sampling.top_k > 0 or sampling.temperature == 0


def origin(stage: Stage, sampling: Sampling) -> Stage:
    """The earliest stage at which the distribution is, under this sampling, the one of `stage`."""
    if stage == "processed" and not truncates(sampling):
        stage = "tempered"
    # Greedy decoding divides by no temperature.
    return "raw" if stage == "tempered" and sampling.temperature in (0.0, 1.0) else stage


def way_to(
    policy: Literal["raw", "processed"], stage: Stage, sampling: Sampling
) -> Literal["listed", "whole"] | None:
    """How a policy is had from log-probs of a stage: as listed, from whole distributions, or not at all."""
    start = origin(stage, sampling)
    if policy == "raw":
        return {"raw": "listed", "tempered": "whole", "processed": None}[start]
    return "listed" if start == origin("processed", sampling) else "whole"


def transform_to(
    policy: Literal["raw", "processed"], stage: Stage, sampling: Sampling, *, top_p_first: bool = False
) -> Transform | None:
    """The logits of a policy from whole log-probs of a stage; None where they are the policy itself.

    A softmax does not see a constant, so log-probs serve as logits. `top_p_first`: top-p counts the mass of all
    ids, not of those that top-k leaves. A token on the very edge of top-p may be judged otherwise than the server
    did, whose sums were rounded in another order.
    """
    if way_to(policy, stage, sampling) == "listed":
        return None
    if policy == "raw":
        return lambda logp_TV: logp_TV * sampling.temperature
    from ..common.sampling import process_logits

    if origin(stage, sampling) == "tempered":
        sampling = replace(sampling, temperature=1.0)
    if not top_p_first:
        return lambda logp_TV: process_logits(logp_TV, sampling)
    before, after = replace(sampling, top_k=0), Sampling(top_k=sampling.top_k)
    return lambda logp_TV: process_logits(process_logits(logp_TV, before), after)


def observe(listed: Listed, request: Request, evidence: Evidence) -> Observed:
    """Sampled or top-k evidence from a listing that holds what is asked for."""
    if evidence.level == "sampled":
        return Observed(listed.logprob_T)
    if request.observed_ids_TK is not None:
        ids_TK = request.observed_ids_TK
        return Observed(listed.logprob_T, ids_TK, _at(listed, ids_TK))
    # NaN sorts behind everything, like the ids that are excluded.
    key_TN = np.where(np.isnan(listed.logprobs_TN), np.inf, -listed.logprobs_TN)
    order_TK = np.argsort(key_TN, axis=1, kind="stable")[:, : evidence.k]
    logprobs_TK = np.take_along_axis(listed.logprobs_TN, order_TK, axis=1)
    ids_TK = np.take_along_axis(listed.ids_TN, order_TK, axis=1)
    unseen_TK = ~np.isfinite(logprobs_TK)
    missing = ((0, 0), (0, evidence.k - ids_TK.shape[1]))
    return Observed(
        listed.logprob_T,
        np.pad(np.where(unseen_TK, -1, ids_TK).astype(np.int32), missing, constant_values=-1),
        np.pad(np.where(unseen_TK, np.nan, logprobs_TK), missing, constant_values=np.nan),
    )


def observe_whole(
    listed: Listed,
    token_T: np.ndarray,
    request: Request,
    evidence: Evidence,
    vocabulary: int,
    transform: Transform | None = None,
) -> Observed:
    """Any evidence from whole distributions, after `transform`."""
    import torch

    from ..common.capture import Recorder, log_softmax

    logp_TV = torch.from_numpy(listed.dense(vocabulary))
    if transform is not None:
        logp_TV = log_softmax(transform(logp_TV))
    length = len(token_T)
    recorder = Recorder(evidence, [request], length)
    recorder.add(
        np.zeros(length, dtype=np.int64), np.arange(length), logp_TV, torch.from_numpy(token_T.astype(np.int64))
    )
    return recorder.finish(0, length)


def _at(listed: Listed, ids_TK: np.ndarray) -> np.ndarray:
    """The listed log-probs [T, K] at given ids, NaN at padding. Raises `EngineError` where one is not listed."""
    result_TK = np.full(ids_TK.shape, np.nan)
    for row, (wanted_K, ids_N, logprobs_N) in enumerate(
        zip(ids_TK, listed.ids_TN, listed.logprobs_TN, strict=True)
    ):
        found = dict(zip(ids_N.tolist(), logprobs_N.tolist(), strict=True))
        for rank, token_id in enumerate(wanted_K.tolist()):
            if token_id >= 0:
                if token_id not in found:
                    raise EngineError(f"the server left out the log-prob of id {token_id}")
                result_TK[row, rank] = found[token_id]
    return result_TK
