"""What a trainer's mask over a whole sequence says of prompt, response and turns.

Shapes: T tokens of a sequence.
"""

from __future__ import annotations

import numpy as np

NOTHING_GENERATED = "no token that was generated"


def first_kept(mask_T: np.ndarray) -> int:
    """Where the response begins: at the first token that the mask keeps. `ValueError` where it keeps none."""
    first = int(mask_T.argmax()) if len(mask_T) else 0
    if not len(mask_T) or not mask_T[first]:
        raise ValueError(NOTHING_GENERATED)
    return first


def turns_of(mask_T: np.ndarray) -> np.ndarray | None:
    """Turn of each token of a response that begins with a kept one, int32: what follows a run of tokens that others
    wrote is another turn. None where there is one."""
    begins_T = np.flatnonzero(mask_T[1:] > mask_T[:-1]) + 1
    if not len(begins_T):
        return None
    turn_T = np.zeros(len(mask_T), dtype=np.int32)
    turn_T[begins_T] = 1
    return np.cumsum(turn_T, dtype=np.int32)
