"""Audits with a known fault, or none: the log-probs of sampled tokens that two policies would have filed.

States differ in how sharp they are, and so do prompts. Every fault is planted in a pair that also has the rounding
of two bfloat16 engines, but for the designs that begin with float32.

Shape suffixes: N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

VOCABULARY, TOKENS = 64, 96
ROUNDING_MU, ROUNDING_PI = 0.010, 0.025
"""Errors of the logits, nats: together they move log p by about 0.03 · (1 − p), as two bfloat16 engines do."""

Filed = tuple[np.ndarray, np.ndarray]
"""log μ and log π of the drawn tokens, as the two sides file them."""


@dataclass(frozen=True)
class Truth:
    """The exact logits of N states [N, V], and the randomness of an audit."""

    logits_NV: np.ndarray
    rng: np.random.Generator

    def side(self, error: float, temperature: float = 1.0) -> np.ndarray:
        """Log-probs [N, V] of an engine whose logits are off by `error`."""
        shape = self.logits_NV.shape
        return log_softmax((self.logits_NV + error * self.rng.standard_normal(shape)) / temperature)

    def mu(self, temperature: float = 1.0) -> np.ndarray:
        return self.side(ROUNDING_MU, temperature)

    def pi(self, temperature: float = 1.0) -> np.ndarray:
        return self.side(ROUNDING_PI, temperature)

    def drawn(self, logp_NV: np.ndarray) -> np.ndarray:
        """A token of each state [N], by the Gumbel maximum."""
        return (logp_NV + self.rng.gumbel(size=logp_NV.shape)).argmax(axis=1)

    def filed(self, mu_NV: np.ndarray, pi_NV: np.ndarray, sampler_NV: np.ndarray | None = None) -> Filed:
        """Both columns for tokens drawn from `sampler_NV`, by default from μ."""
        token_N = self.drawn(mu_NV if sampler_NV is None else sampler_NV)
        rows_N = np.arange(len(token_N))
        return mu_NV[rows_N, token_N].copy(), pi_NV[rows_N, token_N].copy()


def log_softmax(logits_NV: np.ndarray) -> np.ndarray:
    shifted_NV = logits_NV - logits_NV.max(axis=1, keepdims=True)
    return shifted_NV - np.log(np.exp(shifted_NV).sum(axis=1, keepdims=True))


def audit(design: str, rng: np.random.Generator, prompts: int, tokens: int = TOKENS) -> tuple[Filed, np.ndarray]:
    """The columns of one audit, and the prompt of each token [N]."""
    prompt_N = np.repeat(np.arange(prompts), tokens)
    of_prompt_N = rng.normal(1.0, 0.45, prompts)[prompt_N]
    sharpness_N = np.exp(0.5 * of_prompt_N + rng.normal(0.5, 0.5, len(prompt_N)))
    logits_NV = sharpness_N[:, None] * rng.standard_normal((len(prompt_N), VOCABULARY))
    return DESIGNS[design](Truth(logits_NV, rng)), prompt_N


def _rounding(truth: Truth) -> Filed:
    return truth.filed(truth.mu(), truth.pi())


def _float32(truth: Truth) -> Filed:
    return truth.filed(truth.side(0.0), truth.side(1e-6))


def _rounded_logits(truth: Truth) -> Filed:
    """Logits stored in bfloat16 on both sides."""
    return truth.filed(*(log_softmax(_bfloat16(truth.logits_NV + e)) for e in (0.0, _error(truth, ROUNDING_PI))))


def _bfloat16(value: np.ndarray) -> np.ndarray:
    mantissa, exponent = np.frexp(value)
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


def _error(truth: Truth, size: float) -> np.ndarray:
    return size * truth.rng.standard_normal(truth.logits_NV.shape)


def _reference_temperature(temperature: float) -> Callable[[Truth], Filed]:
    return lambda truth: truth.filed(truth.mu(), truth.pi(temperature))


def _behavior_temperature(temperature: float) -> Callable[[Truth], Filed]:
    return lambda truth: truth.filed(truth.mu(temperature), truth.pi())


def _raw_behavior(temperature: float, reference: float) -> Callable[[Truth], Filed]:
    """μ's log-probs are raw, though its tokens were drawn at a temperature."""
    return lambda truth: truth.filed(truth.mu(), truth.pi(reference), truth.mu(temperature))


def _stale(size: float) -> Callable[[Truth], Filed]:
    return lambda truth: truth.filed(truth.mu(), log_softmax(truth.logits_NV + _error(truth, size)))


def _unrelated(truth: Truth) -> Filed:
    logp_mu_N, logp_pi_N = _rounding(truth)
    return logp_mu_N, truth.rng.permutation(logp_pi_N)


def _unrelated_and_flat(truth: Truth) -> Filed:
    flat_NV = log_softmax(0.3 * truth.rng.permutation(truth.logits_NV))
    return _rounding(truth)[0], flat_NV[:, 0]


def _shifted(truth: Truth) -> Filed:
    logp_mu_N, logp_pi_N = _rounding(truth)
    return logp_mu_N, np.roll(logp_pi_N, 2)


def _filled(side: int, share: float, filler: float) -> Callable[[Truth], Filed]:
    def filed(truth: Truth) -> Filed:
        columns = _rounding(truth)
        columns[side][truth.rng.random(len(columns[side])) < share] = filler
        return columns

    return filed


def _truncated(mass: float) -> Callable[[Truth], Filed]:
    """Top-p on the behaviour's side, of which nobody says anything."""

    def filed(truth: Truth) -> Filed:
        mu_NV = truth.mu()
        order_NV = np.argsort(-mu_NV, axis=1)
        ordered_NV = np.take_along_axis(mu_NV, order_NV, axis=1)
        p_NV = np.exp(ordered_NV)
        ordered_NV[p_NV.cumsum(axis=1) - p_NV >= mass] = -np.inf
        kept_NV = np.empty_like(mu_NV)
        np.put_along_axis(kept_NV, order_NV, ordered_NV, axis=1)
        return truth.filed(log_softmax(kept_NV), truth.pi())

    return filed


def _likeliest(truth: Truth) -> Filed:
    """The log-prob of the likeliest token filed for the drawn one."""
    mu_NV = truth.mu()
    return mu_NV.max(axis=1), truth.filed(mu_NV, truth.pi())[1]


SOUND = {"bfloat16 rounding": _rounding, "bfloat16 logits": _rounded_logits, "float32 rounding": _float32}
TEMPERATURES = {
    **{f"π at τ = {t}": _reference_temperature(t) for t in (0.95, 0.9, 0.7, 1.2)},
    **{f"μ at τ = {t}": _behavior_temperature(t) for t in (0.9, 0.7, 0.6, 1.2)},
    **{f"raw μ drawn at τ = {t}, π at {t}": _raw_behavior(t, t) for t in (0.9, 0.6)},
}
OTHER_FAULTS = {
    "other weights, 0.1": _stale(0.1),
    "other weights, 0.3": _stale(0.3),
    "other weights, 1": _stale(1.0),
    "other weights, 3": _stale(3.0),
    "unrelated columns": _unrelated,
    "unrelated, π flat": _unrelated_and_flat,
    "off by two": _shifted,
    "10 % zeros in μ": _filled(0, 0.1, 0.0),
    "50 % zeros in μ": _filled(0, 0.5, 0.0),
    "30 % zeros in π": _filled(1, 0.3, 0.0),
    "10 % of −9999 in π": _filled(1, 0.1, -9999.0),
    "top-p 0.9 in μ": _truncated(0.9),
    "top-p 0.8 in μ": _truncated(0.8),
    "likeliest token's log-prob in μ": _likeliest,
}
INVISIBLE = {
    "raw μ drawn at τ = 0.6, raw π": _raw_behavior(0.6, 1.0),
    "π at τ = 0.99": _reference_temperature(0.99),
}
DESIGNS: dict[str, Callable[[Truth], Filed]] = SOUND | TEMPERATURES | OTHER_FAULTS | INVISIBLE
