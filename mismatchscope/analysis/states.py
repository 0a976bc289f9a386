"""A block of a log -> figures of every state that counts, from the sampled tokens of two of its policies.

Shapes: N tokens that count, S responses.
"""

from __future__ import annotations

import numpy as np

from ..comparison.states import States
from ..measures.sampled import LOG_TOLERANCE, sampled_estimators
from ..measures.token_sums import TokenFigures
from .block import LogBlock


def states_of(block: LogBlock) -> States:
    """μ against π_old."""
    every_S = np.ones(len(block.length_S), dtype=bool)
    return _states(block, block.logp_mu_N, block.logp_pi_N, every_S, known_figures=block.figures)


def target_states(block: LogBlock) -> tuple[States, States] | None:
    """(π_old against π_θ, μ against π_θ) of the responses that have π_θ at every token; None where none has it.

    μ drew the tokens, so what is estimated of the first pair is weighted by π_old/μ.
    """
    logp_theta_N = block.logp_theta_N
    if logp_theta_N is None:
        return None
    with np.errstate(invalid="ignore"):
        has_S = np.logical_and.reduceat(logp_theta_N <= LOG_TOLERANCE, block.start_S)  # NaN is not
    if not has_S.any():
        return None
    logp_theta_N = np.where(np.repeat(has_S, block.length_S), logp_theta_N, 0.0)
    mu_N, pi_N = block.logp_mu_N, block.logp_pi_N
    # A token that π_old cannot draw has weight 0, whatever π_θ makes of it.
    drawable_N = np.isfinite(pi_N)
    weight_N = np.exp(pi_N - mu_N)
    of_old = _states(
        block, np.where(drawable_N, pi_N, 0.0), np.where(drawable_N, logp_theta_N, 0.0), has_S, weight_N=weight_N
    )
    return of_old, _states(block, mu_N, logp_theta_N, has_S)


def _states(
    block: LogBlock,
    logp_first_N: np.ndarray,
    logp_second_N: np.ndarray,
    chosen_S: np.ndarray,
    *,
    weight_N: np.ndarray | None = None,
    known_figures: TokenFigures | None = None,
) -> States:
    columns = {}
    if weight_N is not None:
        sampled = sampled_estimators(logp_first_N, logp_second_N)
        columns = {"tv_estimate": weight_N * sampled.shortfall, "kl_estimate": weight_N * sampled.k3}
    states = States(
        sequence_id_S=block.sequence_id_S,
        prompt_id_S=block.cluster_S,
        cluster_S=block.cluster_S,
        whole_S=block.whole_S,
        length_S=block.length_S,
        position_N=block.position_N,
        token_id_N=block.token_id_N,
        logp_mu_N=logp_first_N,
        logp_pi_N=logp_second_N,
        recorded_pi_N=logp_second_N,
        certified_lower_N=None,
        tv_upper_N=None,
        columns=columns,
        topk=False,
        known_figures=known_figures,
    )
    return states.only(chosen_S)
