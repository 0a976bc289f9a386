"""Two aligned traces -> one row of figures a state, in bounded memory.

Only columns of one float a state survive a chunk; the distributions they came from do not.

Shapes: N states (response tokens, ordered by sequence and position), S sequences, M states of a chunk with full
distributions, K observed ids, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..alignment.matching import AlignedChunk, Alignment
from ..errors import NotComparableError
from ..measures.full import divergences
from ..measures.sampled import SampledEstimators, sampled_estimators
from ..measures.support import renormalise_on_support
from ..measures.topk import topk_interval
from ..records import EvidenceLevel, Policy

# Figures that need a whole distribution; NaN at states where only part of it was observed.
EXACT_COLUMNS = (
    "tv",
    "kl",
    "reverse_kl",
    "chi2",
    "js",
    "leak",
    "max_abs_dlogp",
    "top1_agree",
    "entropy_mu",
    "entropy_pi",
)
# Figures that bound their namesakes from observed ids and the two tails.
BOUND_COLUMNS = ("kl_lower", "reverse_kl_lower", "js_lower")

# A kept set this close to the whole of μ is the whole of μ: float32 log-probs cannot say more.
_WHOLE_MASS = 1e-5


@dataclass(frozen=True, eq=False)
class StateMeasures:
    """Everything measured of one pair of policies, one entry a state.

    `tv_lower_N` is certified at every evidence level; `tv_upper_N` is NaN where nothing bounds TV from above.
    `exact_N` marks the states whose whole distributions were seen; `columns` are NaN elsewhere.
    """

    evidence: EvidenceLevel
    sequence_id_N: np.ndarray
    prompt_id_N: np.ndarray
    position_N: np.ndarray
    token_id_N: np.ndarray
    logp_mu_N: np.ndarray
    logp_pi_N: np.ndarray
    sampled: SampledEstimators
    tv_lower_N: np.ndarray
    tv_upper_N: np.ndarray
    columns: dict[str, np.ndarray]

    @property
    def exact_N(self) -> np.ndarray:
        return ~np.isnan(self.columns["tv"])

    @property
    def bounded(self) -> bool:
        """Whether every state's TV is known from both sides."""
        return not np.isnan(self.tv_upper_N).any()

    @property
    def offsets_S1(self) -> np.ndarray:
        """Where each sequence begins, with N at the end."""
        starts = np.flatnonzero(np.diff(self.sequence_id_N, prepend=self.sequence_id_N[0] - 1))
        return np.append(starts, self.sequence_id_N.size)

    @property
    def tv_best_N(self) -> np.ndarray:
        """The exact TV where it is known, else its certified lower bound: what a list of worst states sorts by."""
        return np.where(self.exact_N, self.columns["tv"], self.tv_lower_N)

    @property
    def identical(self) -> bool:
        """Whether no recorded log-prob differs in a single bit."""
        seen = np.nan_to_num(self.columns["max_abs_dlogp"], nan=0.0)
        return bool(np.array_equal(self.logp_mu_N, self.logp_pi_N) and not seen.any() and not self.tv_lower_N.any())


class _Columns:
    """Columns of N values, filled from the front, made when first seen: what no chunk has takes no memory."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._filled = 0
        self._arrays: dict[str, np.ndarray] = {}

    def add(self, rows: int, arrays: dict[str, np.ndarray]) -> None:
        part = slice(self._filled, self._filled + rows)
        for name, values in arrays.items():
            if name not in self._arrays:
                missing = np.nan if values.dtype.kind == "f" else 0
                self._arrays[name] = np.full(self._length, missing, dtype=values.dtype)
            self._arrays[name][part] = values
        self._filled = part.stop

    def __getitem__(self, name: str) -> np.ndarray:
        unseen = np.broadcast_to(np.float64(np.nan), self._length)
        return self._arrays.get(name, unseen)


def measure_states(
    alignment: Alignment,
    policy: Policy,
    on_rows: Callable[[int], None] | None = None,
    *,
    behavior_topk: bool = True,
) -> StateMeasures:
    """Measure every aligned state. `on_rows` is told how many states each chunk had, for a progress bar.

    `behavior_topk` says that the observed ids are the behaviour's own top-k. Where a third policy chose them, what
    was not observed can be large, and the tail overlap that narrows the interval does not hold.

    Raises `NotComparableError` when policy "support" is asked for and μ's support was not seen at every state, and
    for numbers that no policy has: a log-prob above 0, a distribution that does not sum to one, a token of μ that μ
    gives no probability.
    """
    try:
        return _measured(alignment, policy, on_rows, behavior_topk)
    except ValueError as error:
        raise NotComparableError(
            f"The log-probs are not those of a policy: {error}.",
            hint="an importer or an engine wrote something else than normalised natural log-probs",
        ) from error


def _measured(
    alignment: Alignment, policy: Policy, on_rows: Callable[[int], None] | None, behavior_topk: bool
) -> StateMeasures:
    columns = _Columns(alignment.counts.tokens)
    has_topk = False
    for chunk in alignment.chunks():
        has_topk = has_topk or chunk.logp_mu_NK is not None
        rows = len(chunk.token_id_N)
        columns.add(rows, _measure_chunk(chunk, policy, behavior_topk))
        if on_rows is not None:
            on_rows(rows)
    sampled = sampled_estimators(columns["logp_mu"], columns["logp_pi"])
    lower_N = columns["tv_lower"]
    # Where no distribution was recorded, the sampled token alone still certifies a lower end.
    lower_N = np.where(np.isnan(lower_N), sampled.binary_tv, lower_N)
    has_full = not np.isnan(columns["tv"]).all()
    return StateMeasures(
        evidence="full" if has_full else "topk" if has_topk else "sampled",
        sequence_id_N=columns["sequence_id"],
        prompt_id_N=columns["prompt_id"],
        position_N=columns["position"],
        token_id_N=columns["token_id"],
        logp_mu_N=columns["logp_mu"],
        logp_pi_N=columns["logp_pi"],
        sampled=sampled,
        tv_lower_N=lower_N,
        tv_upper_N=columns["tv_upper"],
        columns={name: columns[name] for name in (*EXACT_COLUMNS, *BOUND_COLUMNS)},
    )


def _measure_chunk(chunk: AlignedChunk, policy: Policy, behavior_topk: bool) -> dict[str, np.ndarray]:
    """The columns of one chunk; those that its evidence does not give are left out."""
    n = len(chunk.token_id_N)
    out = {
        "sequence_id": chunk.sequence_id_N,
        "prompt_id": chunk.prompt_id_N,
        "position": chunk.position_N,
        "token_id": chunk.token_id_N,
        "logp_mu": chunk.logp_mu_N,
        "logp_pi": chunk.logp_pi_N,
    }
    kept_logmass_N = np.full(n, np.nan)  # log π(support of μ), where the support is known
    if chunk.logp_mu_NK is not None:
        logp_pi_NK = chunk.logp_pi_NK
        if policy == "support":
            kept_logmass_N = _topk_support_logmass(chunk.logp_mu_NK, logp_pi_NK)
            _require_support(kept_logmass_N)
            logp_pi_NK = _on_support(logp_pi_NK, chunk.logp_mu_NK, kept_logmass_N[:, None])
        overlap_N = chunk.tail_overlap_N if behavior_topk and policy != "support" else None
        bounds = topk_interval(chunk.logp_mu_NK, logp_pi_NK, tail_overlap_T=overlap_N)
        out |= {name: getattr(bounds, name) for name in ("tv_lower", "tv_upper", *BOUND_COLUMNS)}
    if chunk.index_M is not None and len(chunk.index_M):
        logp_pi_MV = chunk.logp_pi_MV
        if policy == "support":
            logp_pi_MV, kept_logmass_N[chunk.index_M] = renormalise_on_support(logp_pi_MV, chunk.logp_mu_MV)
        exact = divergences(chunk.logp_mu_MV, logp_pi_MV, normalised=True)
        for name in EXACT_COLUMNS:
            out[name] = _placed(getattr(exact, name), chunk.index_M, n)
        for name in ("tv_lower", "tv_upper"):
            out[name] = _placed(exact.tv, chunk.index_M, n)
    if policy == "support":
        _require_support(kept_logmass_N)
        out["logp_pi"] = chunk.logp_pi_N - kept_logmass_N
    return out


def _require_support(kept_logmass_N: np.ndarray) -> None:
    if np.isnan(kept_logmass_N).any():
        raise NotComparableError(
            "Policy 'support' needs μ's kept set at every state, and it was not recorded at all of them.",
            hint="--evidence full, or topk:K with K at least the sampler's top-k",
        )


def _placed(value_M: np.ndarray, index_M: np.ndarray, n: int) -> np.ndarray:
    """Values at their rows, NaN at all others."""
    placed_N = np.full(n, np.nan)
    placed_N[index_M] = value_M
    return placed_N


def _topk_support_logmass(logp_mu_NK: np.ndarray, logp_pi_NK: np.ndarray) -> np.ndarray:
    """log π(kept ids), NaN where the observed ids do not hold the whole of μ."""
    kept_NK = np.isfinite(logp_mu_NK)
    with np.errstate(divide="ignore"):
        mass_mu_N = np.where(kept_NK, np.exp(np.where(kept_NK, logp_mu_NK, -np.inf)), 0.0).sum(axis=1)
        mass_pi_N = np.where(kept_NK, np.exp(np.where(kept_NK, logp_pi_NK, -np.inf)), 0.0).sum(axis=1)
        return np.where(mass_mu_N >= 1.0 - _WHOLE_MASS, np.log(mass_pi_N), np.nan)


def _on_support(logp_pi_NK: np.ndarray, logp_mu_NK: np.ndarray, kept_logmass_N1: np.ndarray) -> np.ndarray:
    """π renormalised on μ's kept ids; padding (NaN) stays padding."""
    return np.where(np.isneginf(logp_mu_NK), -np.inf, logp_pi_NK - kept_logmass_N1)
