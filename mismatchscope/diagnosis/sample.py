"""The tokens that a diagnosis still has to explain, and what rounding does to them.

Rounding moves a log-prob by a nearly constant multiple of 1 − p. So the gap of a token is taken as z = Δ / (1 − p)
with Δ = log π − log μ and p the geometric mean of the two probabilities, and the gap of a sample as the root mean
square of z over tokens with p < 0.9, in floors: R.

Shapes: N tokens, S sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, TypeVar

import numpy as np

from .evidence import Array, Floor, TokenEvidence

T = TypeVar("T")

CERTAIN = 0.9
"""From this probability on z is all rounding of log p itself."""
PRIOR = 0.03
"""Root mean square of z of sound pairs in bfloat16: 0.023 was measured, published pairs have up to 0.03."""
WIDEST = 8 / 3
"""Times the prior that sound pairs have at the most, and so a sound side with itself: 0.08 of eager attention and
of a bfloat16 log-softmax."""
_FEWEST_QUIET = 16
"""Responses, of which the quieter half is a floor."""
_FEWEST_PROMPTS = 8
_LEAST_FLOOR = 1e-6
"""float32 resolves no less."""
_FLOAT32, _SURELY_FLOAT32 = 1e-5, 2e-6
"""Root mean square of z: two sound float32 sides stay below the first. Between the two a gap may be the rounding of
a large model or a fault of small effect in a small one, whose rounding stays below the second."""
_TIES, _SMALL, _LEAST_16_BITS = 0.02, 0.2, 1e-3
"""Where the logits of both sides have 16 bits: the share of tokens with equal log-probs at the least, that of gaps
below `_SMALL_GAP` among those that float32 does not make, and the root mean square of z, which float16 has a few
times over."""
_SMALL_GAP = 3e-4


@dataclass(frozen=True, eq=False)
class Sample:
    """Evidence, and which of its tokens are out: those that a finding explains.

    Statistics are functions of a sample that `statistic` makes to be computed once.
    """

    evidence: TokenEvidence
    out_N: Array
    known: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, evidence: TokenEvidence) -> Sample:
        """All tokens, with the floor that counts for whatever is made of them."""
        whole = cls(evidence, np.zeros(evidence.tokens, dtype=bool))
        return cls(evidence.but(floor=_floor_of(whole)), whole.out_N)

    def without(self, explained_N: Array) -> Sample:
        """The same with these tokens out as well."""
        return Sample(self.evidence, self.out_N | explained_N)

    def mended(self, logp_pi_N: Array, *, logp_mu_N: Array | None = None) -> Sample:
        """The same with other log-probs, as they would be without a fault; NaN is a token that has none."""
        mu_N = self.evidence.logp_mu_N if logp_mu_N is None else logp_mu_N
        return Sample(self.evidence.but(logp_pi_N=logp_pi_N, logp_mu_N=mu_N), self.out_N)

    @cached_property
    def live_N(self) -> Array:
        """Tokens that are not explained and have two log-probs."""
        mu_N, pi_N = self.evidence.logp_mu_N, self.evidence.logp_pi_N
        return ~self.out_N & np.isfinite(mu_N) & np.isfinite(pi_N)

    @cached_property
    def delta_N(self) -> Array:
        """log π − log μ; NaN of tokens that are not live."""
        with np.errstate(invalid="ignore"):
            return np.where(self.live_N, self.evidence.logp_pi_N - self.evidence.logp_mu_N, np.nan)

    @cached_property
    def p_N(self) -> Array:
        """Geometric mean of the two probabilities."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.exp(np.minimum((self.evidence.logp_pi_N + self.evidence.logp_mu_N) / 2, 0.0))

    @cached_property
    def scaled_N(self) -> Array:
        """Live tokens whose z says something: those with p below `CERTAIN`."""
        return self.live_N & (self.p_N < CERTAIN)

    @cached_property
    def z_N(self) -> Array:
        """Δ / (1 − p); NaN of tokens that are not `scaled_N`."""
        return np.where(self.scaled_N, self.delta_N / np.where(self.scaled_N, 1 - self.p_N, 1.0), np.nan)

    @cached_property
    def floor(self) -> Floor:
        """What `of` found to be the floor, or the prior of evidence that it has not seen."""
        return self.evidence.floor or Floor(PRIOR, "prior")

    @cached_property
    def gap_N(self) -> Array:
        """|z| in floors; NaN of tokens that are not `scaled_N`."""
        return np.abs(self.z_N) / self.floor.value

    @cached_property
    def live_S(self) -> Array:
        """How many live tokens each sequence has."""
        return self.by_sequence(self.live_N)

    def by_sequence(self, value_N: Array) -> Array:
        """Sums by sequence, float64 [S]; NaN counts nothing."""
        weights_N = np.nan_to_num(value_N.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        return np.bincount(self.evidence.sequence_N, weights_N, minlength=self.evidence.sequences)

    def by_prompt(self, value_N: Array) -> Array:
        """The same by prompt, or by sequence where prompts are too few to be the unit of an interval."""
        value_S, prompt_S = self.by_sequence(value_N), self.evidence.prompt_S
        prompt, index_S = np.unique(prompt_S, return_inverse=True)
        return np.bincount(index_S, value_S) if len(prompt) >= _FEWEST_PROMPTS else value_S


def _floor_of(whole: Sample) -> Floor:
    """A floor that was measured; else the prior as a range, with the quieter responses' own level within it.

    Where not even the dtypes are known, responses that are nearer than 16 bits bring them are a floor, and a gap of
    the size that 16 bits make is not yet one of 16 bits.
    """
    known = whole.evidence.floor or Floor(PRIOR, "prior")
    value = max(known.value, _LEAST_FLOOR)
    if known.measured:
        return Floor(value, known.source)
    quiet, least, most = _quiet(whole), value, WIDEST * value
    if whole.evidence.floor is None:
        if quiet is not None and quiet < PRIOR / 10:
            quiet = max(quiet, _LEAST_FLOOR)
            return Floor(quiet, "quiet part", _SURELY_FLOAT32, max(10 * quiet, 3 * _FLOAT32))
        least = value if _in_16_bits(whole) else _SURELY_FLOAT32
    if quiet is None or quiet <= value:
        return Floor(value, "prior", least, most)
    return Floor(min(quiet, most), "quiet part", least, most)


def _in_16_bits(whole: Sample) -> bool:
    """Whether both sides' logits have 16 bits: some log-probs are equal to the bit then, in spite of the others.

    float32 has ties as well. But 16 bits leave many small gaps, at tokens whose own logits tie and whose others do
    not, where a fault between two float32 sides moves all that it touches by about as much, or is small itself.
    """
    size_M = np.abs(whole.z_N[whole.scaled_N])
    apart_M = size_M[size_M > _FLOAT32]
    if not len(apart_M) or np.mean(size_M == 0) <= _TIES:
        return False
    return bool(np.sqrt(np.mean(size_M**2)) > _LEAST_16_BITS and np.mean(apart_M < _SMALL_GAP) > _SMALL)


def _quiet(whole: Sample) -> float | None:
    """Root mean square of z of the quieter half of the responses that differ at all; None of too few."""
    count_S = whole.by_sequence(whole.scaled_N)
    square_S = whole.by_sequence(np.where(whole.scaled_N, np.nan_to_num(whole.z_N) ** 2, 0.0))
    telling = np.flatnonzero(square_S > 0)
    if len(telling) < _FEWEST_QUIET:
        return None
    order = telling[np.argsort(square_S[telling] / count_S[telling], kind="stable")][: len(telling) // 2]
    return float(np.sqrt(square_S[order].sum() / count_S[order].sum()))


def statistic(measure: Callable[[Sample], T]) -> Callable[[Sample], T]:
    """A function of a sample that is computed once, however many detectors ask for it."""

    @wraps(measure)
    def once(sample: Sample) -> T:
        if measure not in sample.known:
            sample.known[measure] = measure(sample)
        return sample.known[measure]

    return once
