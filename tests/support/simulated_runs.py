"""Logs of simulated asynchronous RL runs whose truth is known, as blocks and as Arrow rows.

Every state has two tokens. μ gives the first one probability p, π_old has the logit of p moved by a normal error,
and the recorded token is drawn from μ: so E ρ = 1, and TV(s) = |p − q| is known of each token. How large the error
is depends on the prompt, the step, the lag, the worker and the position, as the `RunDesign` says.

Shapes: S responses, N their tokens, P prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mismatchscope.analysis.block import LogBlock
from mismatchscope.logs.source import LogBatch, Part


@dataclass(frozen=True)
class RunDesign:
    """What a run is like. `error` is the standard deviation of the logit's error; the rest multiplies it."""

    steps: int = 12
    prompts: int = 16
    """A step. They are drawn from `pool` prompts; None: no prompt comes twice."""
    pool: int | None = None
    samples: int = 2
    length: tuple[int, int] = (16, 64)
    """Shortest and longest response; lengths are log-uniform."""
    turns: int = 1
    """Of each response; the last token of every turn but the last is tool output, which the mask leaves out."""
    workers: int = 4
    environments: tuple[str, ...] = ("math", "code")
    lags: tuple[int, ...] = (0,)
    """Of tokens: the first ones of a response are the stalest, as weights are updated while it is sampled."""

    error: float = 0.1
    per_lag: float = 0.0
    """What each version of lag adds to the error, relative to lag 0."""
    prompt_spread: float = 0.0
    """Standard deviation of the logarithm of a prompt's factor."""
    step_spread: float = 0.0
    """The same of a step's factor, which follows an AR(1) process with `step_correlation`."""
    step_correlation: float = 0.0
    drift: float = 0.0
    """Growth of the logarithm of the factor over the whole run."""
    change_at: int | None = None
    change_factor: float = 3.0
    bad_worker: int | None = None
    bad_factor: float = 2.0
    cache_from: int | None = None
    """The step from which on the first `cache_tokens` of each response are worse by `cache_factor`."""
    cache_tokens: int = 8
    cache_factor: float = 4.0
    bias: float = 0.0
    """Standard deviation of a shift of the logit that all tokens of a response share, relative to `error`."""
    reward: float = 0.5


@dataclass(frozen=True, eq=False)
class SimulatedRun:
    """All responses of a run, in the order of their steps."""

    design: RunDesign
    length_S: np.ndarray
    step_S: np.ndarray
    prompt_S: np.ndarray
    worker_S: np.ndarray
    environment_S: np.ndarray
    reward_S: np.ndarray
    turn_N: np.ndarray
    version_N: np.ndarray
    mask_N: np.ndarray
    token_id_N: np.ndarray
    logp_mu_N: np.ndarray
    logp_pi_N: np.ndarray
    entropy_N: np.ndarray
    tv_N: np.ndarray
    """The true TV of each token's state."""

    @cached_property
    def start_S(self) -> np.ndarray:
        return np.cumsum(self.length_S) - self.length_S

    @property
    def mean_tv(self) -> float:
        """E TV over the tokens that count."""
        return float(self.tv_N[self.mask_N].mean())

    def block(self, first: int = 0, stop: int | None = None) -> LogBlock:
        """Some responses, side by side in the run, as one block."""
        of_S = slice(first, stop)
        length_S = self.length_S[of_S]
        start = int(self.start_S[of_S][0])
        of_N = slice(start, start + int(length_S.sum()))
        return LogBlock(
            sequence_id_S=np.arange(len(self.length_S))[of_S],
            cluster_S=self.prompt_S[of_S],
            recorded_S=length_S,
            whole_S=np.ones(len(length_S), dtype=bool),
            counts_R=self.mask_N[of_N],
            mask_R=self.mask_N[of_N],
            token_id_R=self.token_id_N[of_N],
            logp_R={"behavior": self.logp_mu_N[of_N], "reference": self.logp_pi_N[of_N]},
            by_row={
                "step": self.step_S[of_S],
                "trainer_version": _trained(self.design, self.step_S[of_S]),
                "prompt": self.prompt_S[of_S],
                "worker": self._texts("worker-", self.worker_S[of_S]),
                "environment": np.array(self.design.environments, dtype=object)[self.environment_S[of_S]],
                "reward": self.reward_S[of_S],
                "rank": self.worker_S[of_S] % 2,
            },
            by_token={
                "turns": self.turn_N[of_N],
                "versions": self.version_N[of_N],
                "entropy": self.entropy_N[of_N],
            },
            batch=LogBatch(self.rows(first, stop), Part(Path("simulated.parquet"))),
        )

    def blocks(self, responses: int = 256) -> Iterator[LogBlock]:
        for first in range(0, len(self.length_S), responses):
            yield self.block(first, first + responses)

    def rows(self, first: int = 0, stop: int | None = None) -> Any:
        """The same responses as an Arrow record batch in the form of `logs.columns`."""
        import pyarrow as pa

        from mismatchscope.logs.columns import column_type

        of_S = slice(first, stop)
        length_S = self.length_S[of_S]
        start = int(self.start_S[of_S][0])
        of_N = slice(start, start + int(length_S.sum()))
        offsets_S1 = pa.array(np.append(0, np.cumsum(length_S)), pa.int32())
        by_row = {
            "sequence_id": np.arange(len(self.length_S))[of_S],
            "step": self.step_S[of_S],
            "prompt": self.prompt_S[of_S],
            "trainer_version": _trained(self.design, self.step_S[of_S]),
            "worker": self._texts("worker-", self.worker_S[of_S]),
            "environment": np.array(self.design.environments, dtype=object)[self.environment_S[of_S]],
            "reward": self.reward_S[of_S],
            "rank": self.worker_S[of_S] % 2,
        }
        by_token = {
            "token_ids": self.token_id_N,
            "mask": self.mask_N,
            "behavior_logprobs": self.logp_mu_N,
            "reference_logprobs": self.logp_pi_N,
            "entropy": self.entropy_N,
            "versions": self.version_N,
            "turns": self.turn_N,
        }
        columns = {name: pa.array(value_S, column_type(name)) for name, value_S in by_row.items()}
        for name, value_N in by_token.items():
            kind = column_type(name, double=True).value_type
            columns[name] = pa.ListArray.from_arrays(offsets_S1, pa.array(value_N[of_N], kind))
        return pa.RecordBatch.from_pydict(columns)

    @staticmethod
    def _texts(prefix: str, number_S: np.ndarray) -> np.ndarray:
        return np.array([f"{prefix}{number}" for number in number_S.tolist()], dtype=object)


def simulated_run(design: RunDesign = RunDesign(), seed: int = 0) -> SimulatedRun:
    """One run of that design; the same seed gives the same run."""
    rng = np.random.default_rng([seed, 10])
    responses = design.steps * design.prompts * design.samples
    step_S = np.repeat(np.arange(design.steps), design.prompts * design.samples)
    prompt_S = np.repeat(_prompts(rng, design), design.samples)
    worker_S = rng.integers(design.workers, size=responses)
    length_S = np.exp(rng.uniform(*np.log([design.length[0], design.length[1] + 1]), responses)).astype(np.int64)
    tokens = int(length_S.sum())
    sequence_N = np.repeat(np.arange(responses), length_S)
    position_N = np.arange(tokens) - np.repeat(np.cumsum(length_S) - length_S, length_S)
    through_N = position_N / length_S[sequence_N]  # 0 up to 1 in each response
    turn_N = (through_N * design.turns).astype(np.int64)
    lag_N = _lags(rng, design, responses)[sequence_N, (through_N * 2).astype(np.int64)]
    version_N = _trained(design, step_S)[sequence_N] - lag_N

    scale_S = design.error * _response_factors(rng, design, step_S, prompt_S, worker_S)
    scale_N = scale_S[sequence_N] * (1 + design.per_lag * lag_N)
    if design.cache_from is not None:
        cached_N = (step_S[sequence_N] >= design.cache_from) & (position_N < design.cache_tokens)
        scale_N *= np.where(cached_N, design.cache_factor, 1.0)
    error_N = rng.normal(size=tokens)
    if design.bias:
        error_N += design.bias * rng.normal(size=responses)[sequence_N]
    logit_N = rng.normal(2.5, 2.0, tokens)
    moved_N = logit_N + scale_N * error_N
    p_N, q_N = 1 / (1 + np.exp(-logit_N)), 1 / (1 + np.exp(-moved_N))
    first_N = rng.random(tokens) < p_N
    sign_N = np.where(first_N, 1.0, -1.0)
    last_of_turn_N = np.append(np.diff(turn_N) > 0, False) & (np.append(np.diff(sequence_N), 1) == 0)
    return SimulatedRun(
        design=design,
        length_S=length_S,
        step_S=step_S,
        prompt_S=prompt_S,
        worker_S=worker_S,
        environment_S=prompt_S % len(design.environments),
        reward_S=(rng.random(responses) < design.reward).astype(float),
        turn_N=turn_N,
        version_N=version_N,
        mask_N=~last_of_turn_N,
        token_id_N=np.where(first_N, 0, 1),
        logp_mu_N=-np.logaddexp(0, -sign_N * logit_N),
        logp_pi_N=-np.logaddexp(0, -sign_N * moved_N),
        entropy_N=np.logaddexp(0, moved_N) - moved_N * q_N,
        tv_N=np.abs(p_N - q_N),
    )


def _prompts(rng: np.random.Generator, design: RunDesign) -> np.ndarray:
    if design.pool is None:
        return np.arange(design.steps * design.prompts)
    return np.concatenate([rng.permutation(design.pool)[: design.prompts] for _ in range(design.steps)])


def _trained(design: RunDesign, step_S: np.ndarray) -> np.ndarray:
    """Version of the weights that train; those that sample at the first step have versions from 0 on."""
    return step_S + max(design.lags)


def _lags(rng: np.random.Generator, design: RunDesign, responses: int) -> np.ndarray:
    """Of the first and of the second half of each response [S, 2]."""
    lags = np.array(design.lags)
    return -np.sort(-lags[rng.integers(len(lags), size=(responses, 2))], axis=1)


def _response_factors(
    rng: np.random.Generator, design: RunDesign, step_S: np.ndarray, prompt_S: np.ndarray, worker_S: np.ndarray
) -> np.ndarray:
    log_prompt_P = design.prompt_spread * rng.normal(size=int(prompt_S.max()) + 1)
    log_step = design.step_spread * autoregressive(rng, design.step_correlation, (design.steps,))
    log_step = log_step + design.drift * np.arange(design.steps) / max(1, design.steps - 1)
    if design.change_at is not None:
        log_step = log_step + np.log(design.change_factor) * (np.arange(design.steps) >= design.change_at)
    bad_S = worker_S == (-1 if design.bad_worker is None else design.bad_worker)
    return np.exp(log_prompt_P[prompt_S] + log_step[step_S]) * np.where(bad_S, design.bad_factor, 1.0)


def autoregressive(rng: np.random.Generator, correlation: float, shape: tuple[int, ...]) -> np.ndarray:
    """Stationary AR(1) paths along the last axis, with variance 1."""
    from scipy.signal import lfilter

    noise = rng.normal(size=shape)
    noise[..., 1:] *= np.sqrt(1 - correlation**2)
    return lfilter([1.0], [1.0, -correlation], noise, axis=-1)
