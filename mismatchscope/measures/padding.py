"""Tokens at the ends of responses that look as if an array was filled up: one id, and log-prob 0 on both sides.

A certain token has log-prob 0 too. One that is repeated to the end grows certain step by step; what was filled in
follows another token, or the one end-of-sequence token whose id pads.

Shapes: N tokens, S responses of them.
"""

from __future__ import annotations

import numpy as np

LEAST = 4
"""So many tokens at an end, and more, are taken for padding."""
_SAME_ID_BEFORE = 1
USUAL = 0.01
"""So large a share of responses may end like this unpadded."""
_CHANCE = 1e-3
"""Of responses of which that share does to be called padded."""


def padding_tokens(
    logp_mu_N: np.ndarray, logp_pi_N: np.ndarray, token_id_N: np.ndarray, start_S: np.ndarray, end_S: np.ndarray
) -> np.ndarray:
    """How many tokens at both ends of each response look like padding, int64 [S]; it is tokens `start_S` up to
    `end_S`."""
    found_S = np.zeros(len(start_S), dtype=np.int64)
    long_S = np.flatnonzero(end_S - start_S >= LEAST)
    for ends, step in ((end_S[long_S] - 1, -1), (start_S[long_S], 1)):
        at_LW = ends[:, None] + step * np.arange(LEAST)
        zero_LW = (
            (logp_mu_N[at_LW] == 0) & (logp_pi_N[at_LW] == 0) & (token_id_N[at_LW] == token_id_N[at_LW[:, :1]])
        )
        for response in long_S[zero_LW.all(axis=1)]:
            inwards = np.arange(start_S[response], end_S[response])[::step]
            zero = (logp_mu_N[inwards] == 0) & (logp_pi_N[inwards] == 0)
            found_S[response] += _run(zero, token_id_N[inwards] == token_id_N[inwards[0]])
    return np.minimum(found_S, end_S - start_S)  # of one that is padding throughout both ends are the same


def looks_padded(padding_S: np.ndarray) -> bool:
    """Whether more responses have padding than are likely to end like this by themselves."""
    from scipy.special import bdtrc

    padded = int(np.count_nonzero(padding_S))
    return padded > 0 and bool(bdtrc(padded - 1, len(padding_S), USUAL) < _CHANCE)


def _run(zero: np.ndarray, same_id: np.ndarray) -> int:
    """How long the run at the front is, 0 where tokens of the same id lead into it."""
    of_id = _leading(same_id)
    run = _leading(zero[:of_id])
    return run if run >= LEAST and of_id - run <= _SAME_ID_BEFORE else 0


def _leading(true: np.ndarray) -> int:
    return len(true) if true.all() else int(np.argmin(true))
