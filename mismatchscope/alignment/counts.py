"""How much two traces have in common, and how much of it is compared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class AlignmentCounts:
    """`prompts` are distinct by their tokens, `prompt_ids` are what the trace calls them. `tokens` are the rows
    that are compared; `masked` are those that a loss mask leaves out, and of the others `rejected` had a NaN or
    +inf log-prob on a side. Of the `matched_sequences` that both traces have, `sequences` have a row that is
    compared, and `partial_sequences` of them have lost another to rejection; `prompts` are those of `sequences`.
    """

    prompts: int = 0
    prompt_ids: int = 0
    matched_sequences: int = 0
    sequences: int = 0
    partial_sequences: int = 0
    tokens: int = 0
    unmatched_behavior: int = 0
    unmatched_reference: int = 0
    rejected: int = 0
    masked: int = 0
