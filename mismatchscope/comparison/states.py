"""Two aligned traces -> figures of every state, a block of whole sequences at a time.

Nothing of size V, or of the length of a trace, outlives its block: `statistics` keeps sums.

Shapes: N states (response tokens) of a block, S its sequences, M states with full distributions, K observed ids, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..alignment.alignment import Alignment
from ..alignment.block import Block
from ..errors import NotComparableError
from ..measures.alpha import check_ends
from ..measures.full import EXACT, divergences
from ..measures.illegal_row import IllegalRowError
from ..measures.sampled import SampledEstimators, sampled_estimators
from ..measures.support import renormalise_on_support
from ..measures.token_sums import TokenFigures, token_figures
from ..measures.topk import rao_blackwellised, topk_interval
from ..records import Policy
from ..traces.reader import Trace
from .kept_sets import on_support, require_support, topk_support_logmass
from .sampled_logprobs import SampledLogprobs

# Figures that bound their namesakes from observed ids and the two tails.
LOWER_BOUNDS = ("kl_lower", "reverse_kl_lower", "js_lower")
# Single values of them are no figure of their state: their means over tokens are unbiased for those of TV and of KL
# less leak. They are there where something better is known than the sampled token's (1−ρ)₊ and k3, or where another
# policy drew the tokens.
ESTIMATES = ("tv_estimate", "kl_estimate")


@dataclass(frozen=True, eq=False)
class States:
    """Everything measured of the states of some whole sequences, in order.

    `cluster_S` labels the prompt, the unit of every interval; `whole_S` says that no row of the response that
    counts was rejected. `recorded_pi_N` is `logp_pi_N` as the trace has it, before policy "support".
    `certified_lower_N` and `tv_upper_N` bound TV by what was seen of distributions, NaN at states where none was;
    None where none was at any, and for the upper end where nothing bounds TV from above. `columns` has what the
    evidence gives, by the names of `EXACT`, `LOWER_BOUNDS` and `ESTIMATES`: a figure that no state has is absent,
    and NaN at states that do not have it.
    """

    sequence_id_S: np.ndarray
    prompt_id_S: np.ndarray
    cluster_S: np.ndarray
    whole_S: np.ndarray
    length_S: np.ndarray
    position_N: np.ndarray
    token_id_N: np.ndarray
    logp_mu_N: np.ndarray
    logp_pi_N: np.ndarray
    recorded_pi_N: np.ndarray
    certified_lower_N: np.ndarray | None
    tv_upper_N: np.ndarray | None
    columns: dict[str, np.ndarray]
    topk: bool
    known_figures: TokenFigures | None = None
    """`figures`, where they have been computed."""

    @cached_property
    def figures(self) -> TokenFigures:
        """What the sampled tokens say, by token and summed by sequence."""
        if self.known_figures is not None:
            return self.known_figures
        return token_figures(self.logp_mu_N, self.logp_pi_N, self.offsets_S1)

    @cached_property
    def sampled(self) -> SampledEstimators:
        """What the sampled tokens say, each figure as an array: slow."""
        return sampled_estimators(self.logp_mu_N, self.logp_pi_N)

    @cached_property
    def tv_lower_N(self) -> np.ndarray:
        """Certified at every evidence level: where no distribution was recorded, by the sampled token alone."""
        binary_N = np.abs(self.figures.prob_diff_N)
        known_N = self.certified_lower_N
        return binary_N if known_N is None else np.where(np.isnan(known_N), binary_N, known_N)

    @cached_property
    def start_S(self) -> np.ndarray:
        """Where the states of each sequence begin."""
        return np.cumsum(self.length_S) - self.length_S

    @cached_property
    def offsets_S1(self) -> np.ndarray:
        return np.append(self.start_S, len(self.position_N))

    @cached_property
    def sequence_id_N(self) -> np.ndarray:
        return np.repeat(self.sequence_id_S, self.length_S)

    @cached_property
    def cluster_N(self) -> np.ndarray:
        return np.repeat(self.cluster_S, self.length_S)

    @cached_property
    def exact_N(self) -> np.ndarray | None:
        """Which states were seen whole on both sides; None where none was."""
        return ~np.isnan(self.columns["tv"]) if "tv" in self.columns else None

    @cached_property
    def all_exact(self) -> bool:
        return self.exact_N is not None and bool(self.exact_N.all())

    @cached_property
    def all_bounded(self) -> bool:
        """Whether every state's TV is known from both sides."""
        return self.tv_upper_N is not None and not np.isnan(self.tv_upper_N).any()

    @property
    def tv_known_N(self) -> np.ndarray:
        """The exact TV where it is known, else its certified lower bound: what a list of worst states sorts by."""
        return (
            self.tv_lower_N if self.exact_N is None else np.where(self.exact_N, self.columns["tv"], self.tv_lower_N)
        )

    def only(self, chosen_S: np.ndarray) -> States:
        """Those of the sequences at which the boolean [S] is true."""
        if chosen_S.all():
            return self
        chosen_N = np.repeat(chosen_S, self.length_S)
        by_state = ("position_N", "token_id_N", "logp_mu_N", "logp_pi_N", "recorded_pi_N")
        by_sequence = ("sequence_id_S", "prompt_id_S", "cluster_S", "whole_S", "length_S")
        return States(
            **{name: getattr(self, name)[chosen_S] for name in by_sequence},
            **{name: getattr(self, name)[chosen_N] for name in by_state},
            certified_lower_N=None if self.certified_lower_N is None else self.certified_lower_N[chosen_N],
            tv_upper_N=None if self.tv_upper_N is None else self.tv_upper_N[chosen_N],
            columns={name: value_N[chosen_N] for name, value_N in self.columns.items()},
            topk=self.topk,
        )

    @property
    def identical(self) -> bool:
        """Whether no recorded log-prob differs in a single bit."""
        seen = np.nan_to_num(self.columns.get("max_abs_dlogp", np.zeros(0)), nan=0.0)
        equal = not self.figures.sums.largest_abs_logprob_diff.any()
        certified_N = self.certified_lower_N
        return bool(equal and not seen.any() and (certified_N is None or not np.nan_to_num(certified_N).any()))


def measured(
    alignment: Alignment, policy: Policy, *, ids_of_behavior: bool = True, drawn_by: Trace | None = None
) -> Iterator[States]:
    """Every aligned state, measured.

    `drawn_by` is the trace of the policy that drew the tokens, where that is not the alignment's behaviour: what is
    estimated from sampled tokens is weighted by μ(a)/that policy's probability of a.

    `ids_of_behavior` says that the observed ids are the behaviour's own top-k. Where a third policy chose them,
    what was not observed can be large, and the tail overlap that narrows the interval does not hold.

    Raises what `Alignment.blocks` does; `NotComparableError` when policy "support" is asked for and μ's support was
    not seen at every state, and for numbers that no policy has: a log-prob above 0, a distribution that does not
    sum to one, a token of μ that μ gives no probability.
    """
    drawn = None if drawn_by is None else SampledLogprobs(drawn_by)
    for block in alignment.blocks():
        yield _measured(block, policy, ids_of_behavior, drawn)


def _measured(block: Block, policy: Policy, ids_of_behavior: bool, drawn: SampledLogprobs | None) -> States:
    n = len(block.token_id_N)
    columns: dict[str, np.ndarray] = {}
    of_support = policy == "support"
    kept_logmass_N = np.full(n, np.nan) if of_support else None  # log π(support of μ), where the support is known

    def place(name: str, where: slice | np.ndarray, values: np.ndarray) -> None:
        if name not in columns:
            columns[name] = np.full(n, np.nan)
        columns[name][where] = values

    topk, beyond_topk_N = False, np.ones(n, dtype=bool)
    for where, observed in block.topk_pieces():
        topk = True
        logp_pi_NK = observed.logp_pi_NK
        if kept_logmass_N is not None:
            kept_logmass_N[where] = topk_support_logmass(observed.logp_mu_NK, logp_pi_NK)
            require_support(kept_logmass_N[where])
            logp_pi_NK = on_support(logp_pi_NK, observed.logp_mu_NK, kept_logmass_N[where][:, None])
        overlap_N = observed.tail_overlap_N if ids_of_behavior and not of_support else None
        with _policies_at(block, range(n)[where]):
            bounds = topk_interval(observed.logp_mu_NK, logp_pi_NK, tail_overlap_T=overlap_N)
        for name in ("tv_lower", "tv_upper", *LOWER_BOUNDS):
            place(name, where, getattr(bounds, name))
        for name in ("observed_tv", "observed_kl"):
            place(name, where, np.where(observed.whole_N, getattr(bounds, name), np.nan))
        beyond_topk_N[where] = observed.beyond_topk_N
    for index_M, logp_mu_MV, logp_pi_MV in block.full_pieces():
        with _policies_at(block, index_M):
            if kept_logmass_N is not None:
                logp_pi_MV, kept_logmass_N[index_M] = renormalise_on_support(logp_pi_MV, logp_mu_MV)
            exact = divergences(logp_mu_MV, logp_pi_MV, normalised=True)
        for name in EXACT:
            place(name, index_M, getattr(exact, name))
        for name in ("tv_lower", "tv_upper"):
            place(name, index_M, exact.tv)
    if not of_support and (found := block.exact()):
        columns |= found | dict.fromkeys(("tv_lower", "tv_upper"), found["tv"])
    logp_pi_N = block.logp_pi_N
    if kept_logmass_N is not None:
        require_support(kept_logmass_N)
        logp_pi_N = logp_pi_N - kept_logmass_N
    weight_N = None if drawn is None else np.exp(block.logp_mu_N - drawn.at(block.sequence_id_N, block.position_N))
    over_topk = columns.pop("observed_tv", None), columns.pop("observed_kl", None)
    states = States(
        sequence_id_S=block.sequence_id_S,
        prompt_id_S=block.prompt_id_S,
        cluster_S=block.cluster_S,
        whole_S=block.whole_S,
        length_S=block.length_S,
        position_N=block.position_N,
        token_id_N=block.token_id_N,
        logp_mu_N=block.logp_mu_N,
        logp_pi_N=logp_pi_N,
        recorded_pi_N=block.logp_pi_N,
        certified_lower_N=columns.pop("tv_lower", None),
        tv_upper_N=columns.pop("tv_upper", None),
        columns=columns,
        topk=topk,
    )
    with _policies_at(block, range(n)):
        lower_N = states.tv_lower_N
    if topk or weight_N is not None:
        columns |= _estimates(block.logp_mu_N, states.sampled, columns, over_topk, beyond_topk_N, weight_N)
    check_ends(lower_N, states.tv_upper_N)
    return states


@contextmanager
def _policies_at(block: Block, row_M: Sequence[int] | np.ndarray) -> Iterator[None]:
    """What measures refuse at one of these rows of a block, as a sentence that names its place."""
    try:
        yield
    except IllegalRowError as error:
        row = int(row_M[error.row])
        sequence_id = block.sequence_id_S[np.searchsorted(np.cumsum(block.length_S), row, side="right")]
        raise NotComparableError(
            f"The log-probs are not those of a policy: position {block.position_N[row]} of sequence "
            f"{sequence_id}{error.text}.",
            hint="an importer or an engine wrote something else than normalised natural log-probs",
        ) from error


def _estimates(
    logp_mu_N: np.ndarray,
    sampled: SampledEstimators,
    columns: dict[str, np.ndarray],
    over_topk: tuple[np.ndarray | None, np.ndarray | None],
    beyond_topk_N: np.ndarray,
    weight_N: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """`ESTIMATES`: exact where a state was seen whole; summed over the top-k where π was seen at all of it, with
    the sampled token for the rest; else the sampled token alone."""
    found = {}
    for name, observed_N, sampled_N in (
        ("tv", over_topk[0], sampled.shortfall),
        ("kl", over_topk[1], sampled.k3),
    ):
        estimate_N = sampled_N if weight_N is None else np.where(sampled_N == 0, 0.0, weight_N * sampled_N)
        if observed_N is not None:
            partly_N = rao_blackwellised(
                observed_N,
                sampled_N,
                logp_mu_T=logp_mu_N,
                beyond_T=beyond_topk_N,
                weight_T=1.0 if weight_N is None else weight_N,
            )
            estimate_N = np.where(np.isnan(observed_N), estimate_N, partly_N)
        if name in columns:
            estimate_N = np.where(np.isnan(columns[name]), estimate_N, columns[name])
        found[f"{name}_estimate"] = estimate_N
    return found
