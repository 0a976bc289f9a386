"""Two versions of one sequence with different tokens: what happened, in words that lead to the cause.

Shapes: P prompt tokens, T response tokens; the lengths of the two sides may differ.
"""

from __future__ import annotations

import numpy as np


def describe(mu_P: np.ndarray, mu_T: np.ndarray, pi_P: np.ndarray, pi_T: np.ndarray) -> tuple[str, str]:
    """What differs between the behaviour's prompt and response and the reference's, and what to look at.

    The known ways for tokens to go astray are recognised; anything else is the first differing position.
    """
    same_prompt, same_response = np.array_equal(mu_P, pi_P), np.array_equal(mu_T, pi_T)
    if not same_prompt and not same_response and np.array_equal(_joined(mu_P, mu_T), _joined(pi_P, pi_T)):
        moved = len(pi_P) - len(mu_P)
        return (
            f"the reference's response begins {abs(moved)} tokens {'later' if moved > 0 else 'earlier'} than the "
            "behaviour's, of the same text",
            "both sides must count the same tokens as the response",
        )
    if same_response:
        return _describe_prompts(mu_P, pi_P)
    shorter = min(len(mu_T), len(pi_T))
    if len(mu_T) != len(pi_T) and np.array_equal(mu_T[:shorter], pi_T[:shorter]):
        longer, extra_T = ("behaviour", mu_T[shorter:]) if len(mu_T) > len(pi_T) else ("reference", pi_T[shorter:])
        if len(extra_T) == 1:
            return (
                f"only the {longer} has the last token of the response, {extra_T[0]}",
                "an end-of-sequence or stop token must be scored on both sides or on none",
            )
        return (
            f"only the {longer} has the last {len(extra_T)} tokens of the response",
            "one side was cut: by its maximum length, or by a mask that ends in zeros: give that to both sides",
        )
    for shift in (1, -1):
        if _shifted(mu_T, pi_T, shift):
            return (
                f"the reference's token ids are the behaviour's shifted by {shift:+d}",
                "log p of token t comes from the logits at t − 1; one side is off by one",
            )
    at = int(np.argmax(mu_T[:shorter] != pi_T[:shorter]))
    return (
        f"at position {at} the behaviour has token {mu_T[at]}, the reference {pi_T[at]}",
        "text that was tokenised again gives other tokens: pass token ids between the two sides",
    )


def _describe_prompts(mu_P: np.ndarray, pi_P: np.ndarray) -> tuple[str, str]:
    """The responses agree, the prompts do not."""
    longer, long_P, short_P = ("behaviour", mu_P, pi_P) if len(mu_P) > len(pi_P) else ("reference", pi_P, mu_P)
    if len(long_P) == len(short_P) + 1 and np.array_equal(long_P[1:], short_P):
        return (
            f"only the {longer}'s prompt begins with token {long_P[0]}",
            "a missing beginning-of-sequence token: pass token ids, or tokenise both sides alike",
        )
    both = min(len(mu_P), len(pi_P))
    differs_P = mu_P[:both] != pi_P[:both]
    at = int(np.argmax(differs_P)) if differs_P.any() else both
    return (
        f"the prompts differ from position {at} on ({len(mu_P)} and {len(pi_P)} tokens)",
        "another chat template or system prompt: pass token ids between the two sides",
    )


def _shifted(mu_T: np.ndarray, pi_T: np.ndarray, shift: int) -> bool:
    """Whether pi[t + shift] is mu[t] wherever both exist, which takes more than one token to tell."""
    mu_T, pi_T = (mu_T, pi_T[1:]) if shift == 1 else (mu_T[1:], pi_T)
    overlap = min(len(mu_T), len(pi_T))
    return overlap > 1 and abs(len(mu_T) - len(pi_T)) <= 1 and np.array_equal(mu_T[:overlap], pi_T[:overlap])


def _joined(prompt_P: np.ndarray, response_T: np.ndarray) -> np.ndarray:
    return np.concatenate([prompt_P, response_T])
