"""Logs of which it is known what is wrong: random policies, whose rounding is about that of bfloat16, and one
fault.

Shapes: S responses, N their tokens, V ids.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from log_rows import log_batch

PROMPTS, SAMPLES, IDS, WORKERS = 48, 2, 48, 4
STALE = "worker-2"
MISSED_FROM = 40
ROUNDING = 0.02
"""Standard deviation of what either side adds to a logit."""


class Drawn(NamedTuple):
    """What μ has drawn, and both policies' logits."""

    rng: np.random.Generator
    length_S: np.ndarray
    token_N: np.ndarray
    logit_mu_NV: np.ndarray
    logit_pi_NV: np.ndarray

    def mu(self) -> np.ndarray:
        return _at(self.logit_mu_NV, self.token_N)

    def pi(self, temperature: float = 1.0, noise_N: np.ndarray | float = 0.0) -> np.ndarray:
        moved_NV = self.rng.normal(size=self.logit_pi_NV.shape) * np.reshape(noise_N, (-1, 1))
        return _at((self.logit_pi_NV + moved_NV) / temperature, self.token_N)

    @property
    def sequence_N(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.length_S)), self.length_S)


def sound(drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    return drawn.mu(), drawn.pi()


def shifted_quarter(drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """One response of four has π's log-probs a token late."""
    pi_N = drawn.pi()
    late_N = drawn.sequence_N % 4 == 1
    pi_N[late_N] = np.roll(pi_N, 1)[late_N]
    return drawn.mu(), pi_N


def temperature(drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """The trainer divides its logits by 1.2."""
    return drawn.mu(), drawn.pi(temperature=1.2)


def stale_worker(drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """What one worker of four has drawn is of other weights."""
    return drawn.mu(), drawn.pi(noise_N=np.where(drawn.sequence_N % WORKERS == 2, 0.3, 0.0))


def missed_sync(drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """From a response on, all are drawn from other weights."""
    return drawn.mu(), drawn.pi(noise_N=np.where(drawn.sequence_N >= MISSED_FROM, 0.3, 0.0))


def top_1(drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """μ's column has the log-prob of the likeliest token."""
    return _at(drawn.logit_mu_NV, drawn.logit_mu_NV.argmax(1)), drawn.pi()


def planted_log(
    path: Path,
    plant: Callable[[Drawn], tuple[np.ndarray, np.ndarray]],
    *,
    without: tuple[str, ...] = (),
    seed: int = 0,
) -> Path:
    """Write a log of the recorder's form with this fault; `without` leaves columns out."""
    rng = np.random.default_rng(seed)
    length_S = rng.integers(30, 61, PROMPTS * SAMPLES)
    tokens = int(length_S.sum())
    exact_NV = rng.normal(size=(tokens, IDS)) * rng.uniform(0.5, 4, size=(tokens, 1))
    mu_NV, pi_NV = (exact_NV + rng.normal(scale=ROUNDING, size=exact_NV.shape) for _ in range(2))
    token_N = (mu_NV + rng.gumbel(size=mu_NV.shape)).argmax(1)
    sequence_S = np.arange(len(length_S))
    by_token = dict(
        zip(
            ("behavior_logprobs", "reference_logprobs"),
            plant(Drawn(rng, length_S, token_N, mu_NV, pi_NV)),
            strict=True,
        ),
        token_ids=token_N,
    )
    by_row = {
        "prompt": (sequence_S // SAMPLES).tolist(),
        "step": (sequence_S // 16).tolist(),
        "worker": [f"worker-{worker}" for worker in sequence_S % WORKERS],
        "prompt_token_ids": [[1, 2, int(prompt)] for prompt in sequence_S // SAMPLES],
    }
    columns = by_row | {name: np.split(value_N, np.cumsum(length_S)[:-1]) for name, value_N in by_token.items()}
    rows = log_batch(**{name: value for name, value in columns.items() if name not in without}).rows
    pq.write_table(pa.Table.from_batches([rows]), path)
    return path


def _at(logit_NV: np.ndarray, token_N: np.ndarray) -> np.ndarray:
    largest_N1 = logit_NV.max(1, keepdims=True)
    at_N = logit_NV[np.arange(len(token_N)), token_N] - largest_N1[:, 0]
    return at_N - np.log(np.exp(logit_NV - largest_N1).sum(1))
