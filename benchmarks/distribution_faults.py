"""Faults that are planted in sound logs: see `distribution_designs`.

Shapes: S responses, R their tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from distribution_designs import USUAL, Columns, Design, Size, as_float32, logp_of, rounded, sound, surer


def _fault(
    edit: Callable[[Columns], Columns], *fails: str, size: Size = USUAL, error: float = 0.03, cost: int = 1
) -> Design:
    return Design(lambda rng: edit(sound(rng, size, error)), fails, cost)


def shifted(columns: Columns, shift: int, share: float) -> Columns:
    """In that share of responses π [t] is of token t − shift; what is not there is 0."""
    moved_S = columns.rng.random(len(columns.length_S)) < share
    from_R = columns.position_R - shift
    there_R = (from_R >= 0) & (from_R < columns.length_S[columns.sequence_R])
    at_R = np.where(there_R, np.arange(len(from_R)) - shift, 0)
    moved_R = np.where(there_R, columns.pi_R[at_R], 0.0)
    return replace(columns, pi_R=np.where(moved_S[columns.sequence_R], moved_R, columns.pi_R))


def permuted(columns: Columns, share: float) -> Columns:
    """That share of the rows of π is in another order, cut or filled to the row's length."""
    responses = np.flatnonzero(columns.rng.random(len(columns.length_S)) < share)
    partner_S = np.arange(len(columns.length_S))
    partner_S[responses] = np.roll(responses, 1)
    partner_R = partner_S[columns.sequence_R]
    there_R = columns.position_R < columns.length_S[partner_R]
    at_R = np.where(there_R, columns.start_S[partner_R] + columns.position_R, 0)
    return replace(columns, pi_R=np.where(there_R, columns.pi_R[at_R], 0.0))


def unrelated(columns: Columns) -> Columns:
    return replace(columns, pi_R=columns.rng.permutation(columns.pi_R))


def tempered(columns: Columns, temperature: float) -> Columns:
    """μ samples at the temperature and says so; π's logits are undivided."""
    rng = columns.rng
    logit_R = np.abs(columns.logit_R)
    drawn_R = np.where(rng.random(len(logit_R)) < 1 / (1 + np.exp(-logit_R / temperature)), 1.0, -1.0)
    return replace(
        columns,
        mu_R=as_float32(logp_of(drawn_R * logit_R / temperature)),
        pi_R=as_float32(logp_of(drawn_R * (logit_R + rng.normal(0, 0.03, len(logit_R))))),
    )


def truncated(columns: Columns, top_p: float) -> Columns:
    """μ keeps a token that has so much mass alone, and elsewhere a mass above that; π does not know of it."""
    alone_R = np.abs(columns.logit_R) > np.log(top_p / (1 - top_p))
    likelier_R = np.abs(columns.logit_R) + columns.rng.normal(0, 0.03, len(alone_R))
    return replace(
        columns,
        mu_R=np.where(
            alone_R, 0.0, np.minimum(columns.mu_R - np.log(columns.rng.uniform(top_p, 1, len(alone_R))), 0)
        ),
        pi_R=np.where(alone_R, as_float32(logp_of(likelier_R)), columns.pi_R),
    )


def raw_behavior(columns: Columns, temperature: float) -> Columns:
    """μ's log-probs are raw though its tokens were drawn at a temperature, which π applies."""
    tempered_ = tempered(columns, temperature)
    return replace(tempered_, mu_R=tempered_.pi_R, pi_R=tempered_.mu_R)


def filled(columns: Columns, side: str, value: float, share: float) -> Columns:
    column_R = getattr(columns, side)
    return replace(columns, **{side: np.where(columns.rng.random(len(column_R)) < share, value, column_R)})


def padded(columns: Columns, pad: int) -> Columns:
    """Responses are filled up to the longest of four with zeros on both sides, and no mask says so."""
    longest_S = np.repeat(np.maximum.reduceat(columns.length_S, np.arange(0, len(columns.length_S), 4)), 4)
    longest_S = longest_S[: len(columns.length_S)]
    stored_S = np.cumsum(longest_S) - longest_S
    at_R = stored_S[columns.sequence_R] + columns.position_R
    filled_R = {"mask_R": True, "token_id_R": pad}
    by_R = {}
    for name in ("logit_R", "mu_R", "pi_R", "mask_R", "token_id_R"):
        value_R = getattr(columns, name)
        by_R[name] = np.full(longest_S.sum(), filled_R.get(name, 0), dtype=value_R.dtype)
        by_R[name][at_R] = value_R
    return replace(columns, length_S=longest_S, **by_R)


def first_tokens_worse(columns: Columns) -> Columns:
    noise_R = columns.rng.normal(0, 3.0, len(columns.pi_R)) * (columns.position_R < 4)
    return replace(columns, pi_R=np.minimum(columns.pi_R - np.abs(noise_R), 0.0))


def last_token_unscored(columns: Columns) -> Columns:
    last_R = columns.position_R == columns.length_S[columns.sequence_R] - 1
    return replace(columns, mu_R=np.where(last_R, columns.mu_R - 3.0, columns.mu_R))


def ranks_twice(columns: Columns, share: float) -> Columns:
    responses = len(columns.length_S)
    again = np.flatnonzero(columns.rng.random(responses) < share)
    both = columns.responses(np.concatenate([np.arange(responses), again]))
    return replace(both, rank_S=np.append(np.zeros(responses, dtype=np.int64), np.ones(len(again), dtype=np.int64)))


def tokens_rejected(columns: Columns) -> Columns:
    """The mask drops tokens whose ratio leaves a band."""
    d_R = columns.pi_R - columns.mu_R
    return replace(columns, mask_R=columns.mask_R & (d_R > np.log(0.5)) & (d_R < np.log(2.0)))


def responses_rejected(columns: Columns) -> Columns:
    """The mask drops the twentieth of the responses with the largest mean |Δ log p|."""
    mean_S = np.add.reduceat(np.abs(columns.pi_R - columns.mu_R), columns.start_S) / columns.length_S
    return replace(columns, mask_R=columns.mask_R & (mean_S < np.quantile(mean_S, 0.95))[columns.sequence_R])


FAULTS: dict[str, Design] = {
    "a quarter shifted by +1": _fault(lambda c: shifted(c, 1, 0.25), "shift"),
    "a quarter shifted by −1": _fault(lambda c: shifted(c, -1, 0.25), "shift"),
    "a quarter shifted by +2": _fault(lambda c: shifted(c, 2, 0.25), "shift"),
    "a quarter shifted by +1, fp8-like noise": _fault(lambda c: shifted(c, 1, 0.25), "shift", error=0.3),
    "all shifted by +1, short responses": _fault(lambda c: shifted(c, 1, 1.0), "shift", size=Size(64, (4, 10))),
    "all rows permuted": _fault(lambda c: permuted(c, 1.0), "row_order"),
    "a fifth of the rows permuted": _fault(lambda c: permuted(c, 0.2), "row_order"),
    "all rows permuted, 5,000 responses": _fault(lambda c: permuted(c, 1.0), "row_order", size=Size(5000), cost=10),
    "unrelated columns": _fault(unrelated, "related"),
    **{f"μ at temperature {t}": _fault(lambda c, t=t: tempered(c, t), "temperature") for t in (0.6, 0.8, 0.9, 1.2)},
    "μ keeps top-p 0.9": _fault(lambda c: truncated(c, 0.9), "mean_ratio", "one_sided", size=Size(200)),
    "raw μ drawn at 0.6": _fault(lambda c: raw_behavior(c, 0.6), "temperature"),
    "π all zeros": _fault(lambda c: filled(c, "pi_R", 0.0, 1.0), "filled_values"),
    "−1 in 1 % of μ": _fault(lambda c: filled(c, "mu_R", -1.0, 0.01), "repeated_value"),
    "−5 in 5 % of π": _fault(lambda c: filled(c, "pi_R", -5.0, 0.05), "repeated_value"),
    "−9999 in 0.5 % of μ": _fault(lambda c: filled(c, "mu_R", -9999.0, 0.005), "filled_values"),
    "−100 in 1 % of π": _fault(lambda c: filled(c, "pi_R", -100.0, 0.01), "filled_values"),
    **{
        f"0 in {percent} % of {name}": _fault(
            lambda c, s=side, p=percent: filled(c, s, 0.0, p / 100), "zeros", size=Size(400)
        )
        for percent in (1, 5, 30)
        for name, side in (("μ", "mu_R"), ("π", "pi_R"))
    },
    "0 in 1 % of μ, certain tokens": _fault(
        lambda c: filled(surer(c, 0.03), "mu_R", 0.0, 0.01), "zeros", size=Size(400)
    ),
    "padding without a mask": _fault(lambda c: padded(c, 0), "padding"),
    "padding without a mask, certain tokens": _fault(lambda c: padded(surer(c, 0.03), 0), "padding"),
    "μ in bfloat16": _fault(lambda c: replace(c, mu_R=rounded(c.mu_R, 8)), "precision"),
    "π in base 10": _fault(lambda c: replace(c, pi_R=c.pi_R / np.log(10)), "unit"),
    "μ in base 2": _fault(lambda c: replace(c, mu_R=c.mu_R / np.log(2)), "unit"),
    "a tenth written by two ranks": _fault(lambda c: ranks_twice(c, 0.1), "duplicates", size=Size(200, (64, 256))),
    "first four tokens worse": _fault(first_tokens_worse, "first_tokens"),
    "last token unscored": _fault(last_token_unscored, "last_token"),
    "tokens outside a band masked": _fault(tokens_rejected, "selection", size=Size(200), error=1.0),
    "largest responses masked": _fault(responses_rejected, "selection", size=Size(200), error=0.3),
}
