"""A 64-bit label of a prompt, made of its tokens: equal prompts have equal labels in every trace and every log.

Shapes: S prompts, P all their tokens end to end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Odd multipliers of a polynomial hash over 64 bits; SplitMix64's own constants.
_TOKEN, _PLACE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


def label_of(prompt_token_ids: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """The label of each prompt of a list, int64 [S]; an empty prompt is a prompt too, and has the label 0."""
    length_S = np.array([len(tokens) for tokens in prompt_token_ids], dtype=np.int64)
    if not length_S.sum():
        return np.zeros(len(length_S), dtype=np.int64)
    return labels_of_tokens(np.concatenate([np.asarray(t, dtype=np.int64) for t in prompt_token_ids]), length_S)


def labels_of_tokens(prompt_P: np.ndarray, length_S: np.ndarray) -> np.ndarray:
    """The same of prompts that lie end to end, the first `length_S`[0] tokens being the first prompt; int64 [S]."""
    start_S = np.cumsum(length_S) - length_S
    place_P = np.arange(len(prompt_P)) - np.repeat(start_S, length_S)
    mixed_P = _mixed(prompt_P.astype(np.uint64) * _TOKEN + (place_P.astype(np.uint64) + 1) * _PLACE)
    label_S = np.zeros(len(length_S), dtype=np.uint64)
    filled_S = length_S > 0
    if filled_S.any():
        sum_S = np.add.reduceat(mixed_P, start_S[filled_S])
        label_S[filled_S] = _mixed(sum_S + length_S[filled_S].astype(np.uint64))
    return label_S.view(np.int64)


def labels_of_ids(prompt_id_S: np.ndarray) -> np.ndarray:
    """Labels for prompts whose tokens are not known, of an integer that tells them apart, int64 [S]."""
    return _mixed(prompt_id_S.astype(np.uint64)).view(np.int64)


def _mixed(key: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    key = (key ^ (key >> np.uint64(30))) * _PLACE
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
