"""Fields of the report for single tokens that moved far."""

from __future__ import annotations

from dataclasses import field

from ..measures.results import result


@result
class ContextToken:
    text: str
    tv: float | None = None


@result
class MovedToken:
    """The token whose probability differs most at a state, and its log-probs on the two sides."""

    token_id: int
    logprob_behavior: float
    logprob_reference: float
    text: str | None = None
    """None where the trace does not show how this token reads."""


@result
class WorstToken:
    sequence_id: int
    prompt_id: int
    position: int
    token_id: int
    tv: float
    ratio: float
    logprob_behavior: float
    logprob_reference: float
    moved: MovedToken | None = None
    """Of the tokens that were observed on both sides; the sampled one where it moved most."""
    context: list[ContextToken] = field(default_factory=list)
    """The tokens around it; the worst one is at `focus`."""
    focus: int = 0
