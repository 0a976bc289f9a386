"""Which token's probability moved most at a state, in words."""

from __future__ import annotations

import math

from ..foreign_text import printable
from .text import probability, shortened
from .worst_fields import WorstToken

_TOKEN_WIDTH = 12


def moved_most(token: WorstToken) -> str:
    """`p('the') 0.495 → 0.480`; `p('the') 0.495 + 2.1e-6` where the digits that are shown do not differ."""
    moved = token.moved
    token_id, logp_mu, logp_pi = token.token_id, token.logprob_behavior, token.logprob_reference
    text = token.context[token.focus].text if token.context else None
    if moved is not None:
        token_id, logp_mu, logp_pi = moved.token_id, moved.logprob_behavior, moved.logprob_reference
        text = moved.text if moved.text is not None else text if token_id == token.token_id else None
    name = f"id {token_id}" if text is None else f"'{shortened(printable(text), _TOKEN_WIDTH)}'"
    before, after = probability(logp_mu), probability(logp_pi)
    if before == after:
        change = math.exp(logp_pi) - math.exp(logp_mu)
        return f"p({name}) {before} {'-' if change < 0 else '+'} {abs(change):.1e}"
    return f"p({name}) {before} → {after}"
