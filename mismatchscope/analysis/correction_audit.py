"""The correction that a log says was applied, held against the ratios of the same log.

The column of weights is compared with every ratio that a trainer could have meant or have taken by mistake: of the
token, of its neighbours, of the response, upside down. A mask that leaves out tokens with log-probs of both
policies is held against a band of their ratios.

Shapes: S responses of a block, R their recorded tokens, N those that count.
"""

from __future__ import annotations

import math

import numpy as np

from ..measures.correction_results import CorrectionAudit
from ..measures.weight_evidence import Edges, Following
from ..reports.text import count, number
from .block import LogBlock
from .settings import AnalysisSettings

_ENOUGH = 30
_AGREES = 0.99
_PUBLISHED_BANDS = ((0.5, 5.0), (0.5, 2.0), (0.8, 1.25), (0.999, 1.002), (0.999, 1.001), (0.99, 1.01))

_RATIOS = {
    "token": "π_old/μ of the token",
    "sequence": "π_old/μ of the response",
    "geometric": "the geometric mean of π_old/μ over the response",
    "inverse": "μ/π_old of the token",
    "before": "π_old/μ of the token before",
    "after": "π_old/μ of the token after",
    "target": "π_θ/μ of the token",
}


class CorrectionAudits:
    """Accumulates whole responses; `results` is the report's `correction_audit`."""

    def __init__(self, settings: AnalysisSettings) -> None:
        self._following = {name: Following() for name in _RATIOS}
        self._weights = self._constant = 0
        self._sum_weight = self._sum_ratio = 0.0
        self._largest = -math.inf
        self._masked, self._mask_edges = 0, Edges()

    def add(self, block: LogBlock) -> None:
        self._add_mask(block)
        weight_N = block.of_tokens("weights")
        if weight_N is None or not np.isfinite(weight_N).any():
            return
        known_N = np.isfinite(weight_N)
        log_ratio_N = block.logp_pi_N - block.logp_mu_N
        self._weights += int(np.count_nonzero(known_N))
        self._constant += int(np.count_nonzero(weight_N[known_N] == 1))
        self._sum_weight += float(weight_N[known_N].sum())
        with np.errstate(over="ignore"):
            self._sum_ratio += float(np.exp(log_ratio_N[known_N]).sum())
        self._largest = max(self._largest, float(weight_N[known_N].max()))
        for name, ratio_N in _ratios(block, log_ratio_N).items():
            self._following[name].add(weight_N, ratio_N)

    def merge(self, other: CorrectionAudits) -> None:
        for name, following in self._following.items():
            following.merge(other._following[name])
        self._weights += other._weights
        self._constant += other._constant
        self._sum_weight += other._sum_weight
        self._sum_ratio += other._sum_ratio
        self._largest = max(self._largest, other._largest)
        self._masked += other._masked
        self._mask_edges.merge(other._mask_edges)

    def results(self) -> tuple[CorrectionAudit, ...]:
        found = [self._of_weights()] if self._weights else []
        return (*found, *([self._of_mask()] if self._masked else []))

    def _add_mask(self, block: LogBlock) -> None:
        """Tokens that the mask leaves out although both policies have a log-prob of them, beside those it keeps."""
        mu_R, pi_R = block.logp_R["behavior"], block.logp_R["reference"]
        left_R = ~block.mask_R & (mu_R < 0) & (pi_R < 0)  # 0 is what stands where there is no log-prob
        if not left_R.any():
            return
        self._masked += int(np.count_nonzero(left_R))
        seen_R = left_R | block.counts_R
        self._mask_edges.add((pi_R - mu_R)[seen_R], block.counts_R[seen_R])

    def _of_weights(self) -> CorrectionAudit:
        def audit(
            code: str,
            status: str,
            sentence: str,
            *,
            rule: str | None = None,
            agree: int | None = None,
            fix: str | None = None,
        ) -> CorrectionAudit:
            return CorrectionAudit(
                column="weights",
                code=code,
                status="pass" if status == "pass" else "fail" if status == "fail" else "unknown",
                sentence=sentence,
                rule=rule,
                count=agree,
                of=self._weights,
                fix=fix,
            )

        if self._constant == self._weights:
            return audit("no_weight", "pass", "Every weight is 1: none corrects.", rule="none", agree=self._weights)
        informative = max(following.informative for following in self._following.values())
        if informative < _ENOUGH:
            return audit(
                "cannot_tell",
                "unknown",
                f"Only {count(informative, 'token')} have a ratio far enough from 1 to tell what weights follow.",
            )
        agreements = {name: following.agreement or 0.0 for name, following in self._following.items()}
        agreeing = [name for name, share in agreements.items() if share >= _AGREES]
        if not agreeing:
            best = max(agreements, key=agreements.__getitem__)
            return audit(
                "not_reproduced",
                "unknown",
                f"No rule that is known gives these weights: the nearest, {_RATIOS[best]}, agrees at "
                f"{agreements[best]:.1%} of the tokens whose ratio is far from 1. Weights that were divided by "
                "their mean over a batch are not recognised.",
                agree=self._following[best].equal,
            )
        if len(agreeing) > 1:
            listed = " and ".join(_RATIOS[name] for name in agreeing)
            return audit("cannot_tell", "unknown", f"The weights fit {listed} alike.")
        name = agreeing[0]
        following = self._following[name]
        agree = following.equal + following.zero + following.other
        if name in ("before", "after"):
            return audit(
                "wrong_token",
                "fail",
                f"The weights are those of a neighbour: {_RATIOS[name]}.",
                agree=agree,
                fix="shift the weights by one token before they multiply the loss",
            )
        if name == "inverse":
            return audit(
                "inverse_ratio",
                "fail",
                "The weights are upside down: μ/π_old instead of π_old/μ.",
                agree=agree,
                fix="exchange the log-probs in the ratio",
            )
        rule, text, inverted = _rule_of(name, following)
        if inverted:
            return audit(
                "inverted_band",
                "fail",
                f"The band is inverted: {text}.",
                rule=rule,
                agree=agree,
                fix="bound the ratio itself: bounds on its negative logarithm swap",
            )
        means = ""
        if following.other or following.zero:
            means = (
                f" Their mean, {number(self._sum_weight / self._weights)}, is not the mean ratio, "
                f"{number(self._sum_ratio / self._weights)}."
            )
        return audit(rule, "pass", f"The weights are {text}.{means}", rule=rule, agree=agree)

    def _of_mask(self) -> CorrectionAudit:
        edges = self._mask_edges
        of = self._masked
        if edges.separates and of >= _ENOUGH:
            text, inverted = _band(edges)
            return CorrectionAudit(
                column="mask",
                code="inverted_band" if inverted else "reduced_by_rejection",
                status="fail",
                sentence=f"The mask was reduced by a rejection: it leaves out {count(of, 'token')}, all of a ratio "
                f"outside {text}. Figures are of what is left, a selection.",
                rule="token_band",
                count=of,
                of=of,
                fix="log the mask as it was before the rejection, or analyze with --mask all",
            )
        return CorrectionAudit(
            column="mask",
            code="cannot_tell",
            status="unknown",
            sentence=f"The mask leaves out {count(of, 'token')} that have log-probs of both policies; no band of "
            "their ratios explains it.",
            count=of,
            of=of,
        )


def _ratios(block: LogBlock, log_ratio_N: np.ndarray) -> dict[str, np.ndarray]:
    """The logarithm of every ratio that a weight could be, at each token; NaN where there is none."""
    sum_S = np.add.reduceat(log_ratio_N, block.start_S)
    before_N, after_N = np.full(len(log_ratio_N), np.nan), np.full(len(log_ratio_N), np.nan)
    before_N[1:], after_N[:-1] = log_ratio_N[:-1], log_ratio_N[1:]
    before_N[block.start_S], after_N[block.offsets_S1[1:] - 1] = np.nan, np.nan
    theta_N = block.logp_theta_N
    return {
        "token": log_ratio_N,
        "sequence": np.repeat(np.where(block.whole_S, sum_S, np.nan), block.length_S),
        "geometric": np.repeat(np.where(block.whole_S, sum_S / block.length_S, np.nan), block.length_S),
        "inverse": -log_ratio_N,
        "before": before_N,
        "after": after_N,
        "target": np.full(len(log_ratio_N), np.nan) if theta_N is None else theta_N - block.logp_mu_N,
    }


def _rule_of(name: str, following: Following) -> tuple[str, str, bool]:
    """(rule, what the weights are, whether a published band is inverted)."""
    what = _RATIOS[name]
    rules = {"token": ("token_tis", "icepop"), "sequence": ("sequence_tis", "sequence_mis")}
    truncated, masked = rules.get(name, (f"{name}_truncated", f"{name}_masked"))
    if following.zero:
        text, inverted = _band(following.edges)
        return masked, f"{what} within {text}, else 0", inverted
    clamps = following.clamps or ()
    if not clamps:
        return f"{name}_ratio", what, False
    if len(clamps) == 2:
        return truncated, f"{what}, between {number(clamps[0])} and {number(clamps[1])}", False
    side = "at most" if following.other_above else "at least"
    return truncated, f"{what}, {side} {number(clamps[0])}", False


def _band(edges: Edges) -> tuple[str, bool]:
    """The band in words, and whether it is a published one upside down and not the right way up."""
    for low, high in _PUBLISHED_BANDS:
        if edges.below and edges.above and edges.allows(low, high):
            return f"{low:g} – {high:g}", False
    for low, high in _PUBLISHED_BANDS:
        asymmetric = not math.isclose(low * high, 1, rel_tol=1e-2)
        if asymmetric and edges.below and edges.above and edges.allows(1 / high, 1 / low):
            return f"{1 / high:.4g} – {1 / low:.4g}, which is {low:g} – {high:g} of the inverse", True
    return (
        f"{_threshold(edges.dropped_below, edges.kept_low)} – {_threshold(edges.kept_high, edges.dropped_above)}",
        False,
    )


def _threshold(low: float, high: float) -> str:
    """Where a threshold lies, between two ratios in their logarithms; one that dropped nothing is not seen."""
    if math.isinf(low) or math.isinf(high):
        return "(none seen)"
    return f"({number(math.exp(low))} to {number(math.exp(high))})"
