"""Logs with a known fault, or none, as blocks.

Every state has two tokens. Three states in five are nearly certain, in stretches, as those of trained models are;
the others have a logit of wide normal law. μ draws the token; π has the logits moved by an error. A design says how
large the error is, how long and how many the responses are, and what was planted.

Shapes: S responses, R their tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mismatchscope.analysis.block import LogBlock
from mismatchscope.logs.source import LogBatch, Part

STAYS = 0.85


@dataclass(frozen=True)
class Size:
    """`length` is the shortest and the longest response; `group` responses have one prompt."""

    responses: int = 64
    length: tuple[int, int] = (32, 128)
    group: int = 4


USUAL = Size()


@dataclass(frozen=True, eq=False)
class Columns:
    """What a log holds of its responses, end to end; `logit_R` is μ's of the drawn token against the other one."""

    rng: np.random.Generator
    length_S: np.ndarray
    cluster_S: np.ndarray
    logit_R: np.ndarray
    mu_R: np.ndarray
    pi_R: np.ndarray
    mask_R: np.ndarray
    token_id_R: np.ndarray
    rank_S: np.ndarray
    by_token: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def start_S(self) -> np.ndarray:
        return np.cumsum(self.length_S) - self.length_S

    @property
    def sequence_R(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.length_S)), self.length_S)

    @property
    def position_R(self) -> np.ndarray:
        return np.arange(len(self.mu_R)) - self.start_S[self.sequence_R]

    def responses(self, chosen: np.ndarray) -> Columns:
        """Some responses, in the given order."""
        of_R = np.concatenate([np.arange(self.start_S[s], self.start_S[s] + self.length_S[s]) for s in chosen])
        by_S = {name: getattr(self, name)[chosen] for name in ("length_S", "cluster_S", "rank_S")}
        by_R = {name: getattr(self, name)[of_R] for name in ("logit_R", "mu_R", "pi_R", "mask_R", "token_id_R")}
        return replace(self, **by_S, **by_R)


def logp_of(logit: np.ndarray) -> np.ndarray:
    """log p of a token whose logit against the other one is this."""
    return -np.logaddexp(0, -logit)


def sound(
    rng: np.random.Generator,
    size: Size,
    error: float | Callable[[np.random.Generator, int], np.ndarray] = 0.03,
    certain: float = 0.6,
) -> Columns:
    """Nothing planted: the tokens are μ's own, π has logits off by `error`."""
    import pyarrow  # noqa: F401  (loaded before anything is timed)

    low, high = np.log([size.length[0], size.length[1] + 1])
    length_S = np.exp(rng.uniform(low, high, size.responses)).astype(np.int64)
    tokens = int(length_S.sum())
    stretch_R = np.cumsum(rng.random(tokens) > STAYS)  # which stretch each token is in
    certain_R = (rng.random(stretch_R[-1] + 1) < certain)[stretch_R]
    logit_R = np.where(certain_R, rng.uniform(5, 14, tokens), rng.normal(1.0, 2.0, tokens))
    drawn_R = np.where(rng.random(tokens) < 1 / (1 + np.exp(-logit_R)), 1.0, -1.0)
    error_R = error(rng, tokens) if callable(error) else rng.normal(0, error, tokens)
    scored_R = drawn_R * (logit_R + error_R)
    return Columns(
        rng=rng,
        length_S=length_S,
        cluster_S=np.arange(size.responses) // size.group,
        logit_R=drawn_R * logit_R,
        mu_R=as_float32(logp_of(drawn_R * logit_R)),
        pi_R=as_float32(logp_of(scored_R)),
        mask_R=np.ones(tokens, dtype=bool),
        token_id_R=rng.integers(0, 50_000, tokens),
        rank_S=np.arange(size.responses) % 2,
    )


def as_float32(logp: np.ndarray) -> np.ndarray:
    return logp.astype(np.float32).astype(np.float64)


def block_of(columns: Columns) -> LogBlock:
    """The block of those responses that have a token left."""
    import pyarrow as pa

    kept_S = np.logical_or.reduceat(columns.mask_R, columns.start_S)
    kept_R = kept_S[columns.sequence_R]
    responses = int(kept_S.sum())
    return LogBlock(
        sequence_id_S=np.flatnonzero(kept_S),
        cluster_S=columns.cluster_S[kept_S],
        recorded_S=columns.length_S[kept_S],
        whole_S=np.ones(responses, dtype=bool),
        counts_R=columns.mask_R[kept_R],
        mask_R=columns.mask_R[kept_R],
        token_id_R=columns.token_id_R[kept_R],
        logp_R={"behavior": columns.mu_R[kept_R], "reference": columns.pi_R[kept_R]},
        by_row={"rank": columns.rank_S[kept_S]},
        by_token={name: value_R[kept_R] for name, value_R in columns.by_token.items()},
        batch=LogBatch(pa.RecordBatch.from_pydict({"row": pa.array(range(responses))}), Part(Path("log"))),
    )


def heavy(rng: np.random.Generator, tokens: int) -> np.ndarray:
    """Errors as a mixture of experts makes them: small, and at one token in two hundred very large."""
    return rng.normal(0, 0.03, tokens) + (rng.random(tokens) < 0.005) * 2 * rng.standard_t(2, tokens)


def rounded(logp: np.ndarray, bits: int) -> np.ndarray:
    fraction, exponent = np.frexp(logp)
    return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)


class Design(NamedTuple):
    """`fails` are the codes of checks that should fail; none where everything is sound. A log of a design costs
    about `cost` times the usual one, and so many times fewer are simulated."""

    draw: Callable[[np.random.Generator], Columns]
    fails: tuple[str, ...] = ()
    cost: int = 1


def _sound(size: Size = USUAL, error: object = 0.03, certain: float = 0.6, cost: int = 1) -> Design:
    return Design(lambda rng: sound(rng, size, error, certain), cost=cost)  # type: ignore[arg-type]


def _edited(edit: Callable[[Columns], Columns], *fails: str, size: Size = USUAL, error: float = 0.03) -> Design:
    return Design(lambda rng: edit(sound(rng, size, error)), fails)


def both_rounded(columns: Columns) -> Columns:
    return replace(columns, mu_R=rounded(columns.mu_R, 8), pi_R=rounded(columns.pi_R, 8))


def both_truncated(columns: Columns) -> Columns:
    """Top-p 0.9 on both sides: a token with so much mass is alone."""
    alone_R = columns.mu_R > np.log(0.9)
    return replace(columns, mu_R=np.where(alone_R, 0.0, columns.mu_R), pi_R=np.where(alone_R, 0.0, columns.pi_R))


def tool_turns(columns: Columns, *, scored: bool) -> Columns:
    """A third of each response is tool output: masked, unlikely text that π scored, and μ too or 0."""
    tool_R = (columns.position_R % 30) >= 20
    logp_R = -columns.rng.exponential(2.0, len(tool_R)) - 0.01
    noise_R = columns.rng.normal(0, 0.03, len(tool_R)) * -np.expm1(logp_R)
    return replace(
        columns,
        mu_R=np.where(tool_R, np.minimum(logp_R + noise_R, -1e-6) if scored else 0.0, columns.mu_R),
        pi_R=np.where(tool_R, logp_R, columns.pi_R),
        mask_R=columns.mask_R & ~tool_R,
    )


def overlong_masked(columns: Columns) -> Columns:
    """Responses among the longest tenth are masked whole, as truncated ones are."""
    cut_S = columns.length_S > np.quantile(columns.length_S, 0.9)
    return replace(columns, mask_R=columns.mask_R & ~cut_S[columns.sequence_R])


def greedy(columns: Columns) -> Columns:
    """Greedy decoding with raw log-probs: every response of a prompt is the same."""
    first_S = np.flatnonzero(np.append(True, np.diff(columns.cluster_S) > 0))[columns.cluster_S]
    same = columns.responses(first_S)
    logit_R = np.abs(same.logit_R)
    error_R = columns.rng.normal(0, 0.03, len(logit_R))
    return replace(
        same, logit_R=logit_R, mu_R=as_float32(logp_of(logit_R)), pi_R=as_float32(logp_of(logit_R + error_R))
    )


def greedy_zeros(columns: Columns) -> Columns:
    """Greedy decoding that says so: every token had probability 1."""
    same = greedy(columns)
    return replace(same, mu_R=np.zeros_like(same.mu_R))


def surer(columns: Columns, error: float | Callable[[np.random.Generator, int], np.ndarray]) -> Columns:
    """What was nearly certain is certain: its log-prob in float32 is 0 on both sides, or next to it."""
    rng, tokens = columns.rng, len(columns.mu_R)
    certain_R = np.abs(columns.logit_R) > 5
    logit_R = np.where(certain_R, np.abs(columns.logit_R) + rng.uniform(0, 20, tokens), columns.logit_R)
    error_R = error(rng, tokens) if callable(error) else rng.normal(0, error, tokens)
    return replace(columns, mu_R=softmax32(logit_R), pi_R=softmax32(logit_R + error_R))


def softmax32(logit_R: np.ndarray) -> np.ndarray:
    """log p as a float32 log-softmax has it: 0 where the other token is 2⁻²⁴ times as likely, or less."""
    larger_R = np.maximum(logit_R, 0) - logit_R
    return -as_float32(larger_R + np.log(1 + np.exp(-np.abs(logit_R)).astype(np.float32)))


def loops(columns: Columns) -> Columns:
    """A tenth of the responses end in one token over and over, ever surer of it."""
    loop_R = (columns.rng.random(len(columns.length_S)) < 0.1)[columns.sequence_R]
    place_R = columns.position_R - columns.length_S[columns.sequence_R] // 2
    loop_R &= place_R >= 0
    logp_R = softmax32(2.0 * np.maximum(place_R, 0))
    return replace(
        columns,
        mu_R=np.where(loop_R, logp_R, columns.mu_R),
        pi_R=np.where(loop_R, logp_R, columns.pi_R),
        token_id_R=np.where(loop_R, 13, columns.token_id_R),
    )


def one_prompt(columns: Columns) -> Columns:
    """All responses have one prompt and the same first 16 tokens, whose log-probs are the same too."""
    first_R = columns.position_R < 16
    at_R = np.where(first_R, columns.position_R, np.arange(len(columns.mu_R)))
    by_R = {name: getattr(columns, name)[at_R] for name in ("logit_R", "mu_R", "pi_R", "token_id_R")}
    return replace(columns, **by_R, cluster_S=np.zeros_like(columns.cluster_S))


SOUND: dict[str, Design] = {
    "bfloat16 rounding, 8 responses": _sound(Size(8, group=1)),
    "bfloat16 rounding, 64 responses": _sound(),
    "bfloat16 rounding, 1,000 responses": _sound(Size(1000), cost=2),
    "bfloat16 rounding, 10,000 short responses": _sound(Size(10_000, (4, 16)), cost=3),
    "fp8-like noise": _sound(error=0.3),
    "stale weights": _sound(error=1.0),
    "heavy tails of experts": _sound(error=heavy),
    "heavy tails of experts, 8 responses": _sound(Size(8, group=1), heavy),
    "float32 on both sides": _sound(error=1e-5),
    "short responses": _sound(Size(64, (2, 8))),
    "long responses": _sound(Size(32, (500, 2000))),
    "nearly certain policy": _sound(certain=0.97),
    "uncertain policy": _sound(certain=0.0),
    "both columns in bfloat16": _edited(both_rounded),
    "top-p 0.9 on both sides": _edited(both_truncated),
    "tool output masked, 0 in μ": _edited(lambda c: tool_turns(c, scored=False)),
    "tool output masked, scored by both": _edited(lambda c: tool_turns(c, scored=True)),
    "overlong responses masked": _edited(overlong_masked, size=Size(200)),
    "greedy, raw log-probs": _edited(greedy),
    "certain tokens, log-prob 0": _edited(lambda c: surer(c, 0.03)),
    "certain tokens, stale weights": _edited(lambda c: surer(c, 1.0)),
    "certain tokens, heavy tails of experts": _edited(lambda c: surer(c, heavy)),
    "responses that end in a loop": _edited(loops, size=Size(200)),
    "one prompt, one beginning": _edited(one_prompt, size=Size(256)),
}
