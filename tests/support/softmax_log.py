"""Responses of a simulated log with several tokens a state, so that states differ in how certain they are.

μ's logits are normal times the state's concentration; π_old's have a normal error of a stated size. The token is
drawn from μ, so the mean TV is larger where states are less certain, with the same error.

Shapes: S responses, N their tokens, V ids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from mismatchscope.analysis.block import LogBlock
from mismatchscope.analysis.groups import GroupSums
from mismatchscope.logs.source import LogBatch, Part

IDS = 8


def concentrations(rng: np.random.Generator, tokens: int, certain: float = 0.5) -> np.ndarray:
    """Some states are nearly certain, in stretches of five tokens on average; the others are not."""
    stretch_N = np.cumsum(rng.random(tokens) > 0.8)
    certain_N = (rng.random(stretch_N[-1] + 1) < certain)[stretch_N]
    return np.where(certain_N, rng.uniform(5, 9, tokens), rng.uniform(1, 3.5, tokens))


def positions(length_S: np.ndarray) -> np.ndarray:
    return np.arange(length_S.sum()) - np.repeat(np.cumsum(length_S) - length_S, length_S)


def softmax_log(
    rng: np.random.Generator,
    length_S: np.ndarray,
    step_S: np.ndarray,
    prompt_S: np.ndarray,
    *,
    concentration_N: np.ndarray,
    error_N: np.ndarray | float,
    worker_S: np.ndarray | None = None,
    lag_N: np.ndarray | None = None,
) -> GroupSums:
    """The sums of a log of these responses."""
    tokens = int(length_S.sum())
    logit_NV = rng.standard_normal((tokens, IDS)) * concentration_N[:, None]
    error_NV = rng.standard_normal((tokens, IDS)) * np.broadcast_to(error_N, tokens)[:, None]
    token_N = (logit_NV + rng.gumbel(size=logit_NV.shape)).argmax(axis=1)
    mu_N, pi_N = (_log_softmax_at(each_NV, token_N) for each_NV in (logit_NV, logit_NV + error_NV))
    by_row = {"step": step_S, "prompt": prompt_S}
    by_token = {}
    if worker_S is not None:
        by_row["worker"] = np.array([f"worker-{worker}" for worker in worker_S.tolist()], dtype=object)
    if lag_N is not None:
        by_row["trainer_version"] = step_S + 100
        by_token["versions"] = np.repeat(step_S + 100, length_S) - lag_N
    every_N = np.ones(tokens, dtype=bool)
    sums = GroupSums()
    sums.add(
        LogBlock(
            sequence_id_S=np.arange(len(length_S)),
            cluster_S=prompt_S,
            recorded_S=length_S,
            whole_S=np.ones(len(length_S), dtype=bool),
            counts_R=every_N,
            mask_R=every_N,
            token_id_R=token_N,
            logp_R={"behavior": mu_N, "reference": pi_N},
            by_row=by_row,
            by_token=by_token,
            batch=LogBatch(pa.RecordBatch.from_pydict({"row": np.arange(len(length_S))}), Part(Path("log"))),
        )
    )
    return sums


def _log_softmax_at(logit_NV: np.ndarray, token_N: np.ndarray) -> np.ndarray:
    logit_NV = logit_NV - logit_NV.max(axis=1, keepdims=True)
    at_N: np.ndarray = logit_NV[np.arange(len(token_N)), token_N] - np.log(np.exp(logit_NV).sum(axis=1))
    return at_N
