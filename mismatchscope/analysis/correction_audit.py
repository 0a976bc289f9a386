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
from ..measures.scattered import Scatter
from ..measures.weight_evidence import INFORMATIVE, Edges, Following
from ..reports.text import count, number
from .block import LogBlock
from .settings import AnalysisSettings
from .weight_rules import RATIOS, inverse_of, outside, rule_of

_ENOUGH = 30
_AGREES = 0.99


class CorrectionAudits:
    """Accumulates whole responses; `results` is the report's `correction_audit`."""

    def __init__(self, settings: AnalysisSettings) -> None:
        self._following = {name: Following() for name in RATIOS}
        self._weights = self._constant = 0
        self._has_column = False
        self._sum_weight = self._sum_ratio = 0.0
        self._smallest, self._largest = math.inf, -math.inf
        self._mask_edges, self._scatter = Edges(), Scatter()

    def add(self, block: LogBlock) -> None:
        self._add_mask(block)
        weight_N = block.of_tokens("weights")
        if weight_N is None:
            return
        self._has_column = True
        known_N = np.isfinite(weight_N)
        if not known_N.any():
            return
        log_ratio_N = block.logp_pi_N - block.logp_mu_N
        self._weights += int(np.count_nonzero(known_N))
        self._constant += int(np.count_nonzero(weight_N[known_N] == 1))
        self._sum_weight += float(weight_N[known_N].sum())
        with np.errstate(over="ignore"):
            self._sum_ratio += float(np.exp(log_ratio_N[known_N]).sum())
        self._smallest = min(self._smallest, float(weight_N[known_N].min()))
        self._largest = max(self._largest, float(weight_N[known_N].max()))
        for name, ratio_N in _ratios(block, log_ratio_N).items():
            self._following[name].add(weight_N, ratio_N)

    def merge(self, other: CorrectionAudits) -> None:
        for name, following in self._following.items():
            following.merge(other._following[name])
        self._has_column |= other._has_column
        self._weights += other._weights
        self._constant += other._constant
        self._sum_weight += other._sum_weight
        self._sum_ratio += other._sum_ratio
        self._smallest, self._largest = min(self._smallest, other._smallest), max(self._largest, other._largest)
        self._mask_edges.merge(other._mask_edges)
        self._scatter.merge(other._scatter)

    def results(self) -> tuple[CorrectionAudit, ...]:
        found = [self._of_weights()] if self._has_column else []
        return (*found, *([self._of_mask()] if self._scatter.left else []))

    def _add_mask(self, block: LogBlock) -> None:
        """Tokens that the mask leaves out although both policies have a log-prob of them, beside those it keeps."""
        mu_R, pi_R = block.logp_R["behavior"], block.logp_R["reference"]
        left_R = ~block.mask_R & (mu_R < 0) & (pi_R < 0)  # 0 is what stands where there is no log-prob
        if not left_R.any():
            return
        seen_R = left_R | block.counts_R
        first_R = np.zeros(len(left_R), dtype=bool)
        first_R[np.cumsum(block.recorded_S) - block.recorded_S] = True
        self._scatter.add(left_R, seen_R, first_R)
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

        if not self._weights:
            sentence = "The log has a column of weights, but no weight in it is a finite number."
            return audit("cannot_tell", "unknown", sentence)
        if self._constant == self._weights:
            return audit("no_weight", "pass", "Every weight is 1: none corrects.", rule="none", agree=self._weights)
        if self._smallest == self._largest:
            sentence = f"Every weight is {number(self._largest)}: it follows no ratio."
            return audit("constant_weight", "unknown", sentence, agree=self._weights)
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
                f"No rule that is known gives these weights: the nearest, {RATIOS[best]}, agrees at "
                f"{agreements[best]:.1%} of the tokens whose ratio is far from 1. Weights that were divided by "
                "their mean over a batch are not recognised.",
                agree=self._following[best].equal,
            )
        if len(agreeing) > 1:
            listed = " and ".join(RATIOS[name] for name in agreeing)
            return audit("cannot_tell", "unknown", f"The weights fit {listed} alike.")
        name = agreeing[0]
        following = self._following[name]
        agree = following.equal + following.zero + following.other
        if name in ("before", "after"):
            return audit(
                "wrong_token",
                "fail",
                f"The weights are those of a neighbour: {RATIOS[name]}.",
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
        if (factor := following.factor) is not None:
            return audit(
                "not_reproduced",
                "unknown",
                f"The weights are {number(factor)} times {RATIOS[name]} on average: they may have been divided by "
                "their mean over a batch, or rounded to one side.",
                agree=agree,
            )
        rule, text = rule_of(name, following)
        if following.zero and following.clamps == (None, None) and (published := inverse_of(following.edges)):
            return audit(
                "inverted_band",
                "fail",
                f"The weights are {text}: that is the band {published} of the inverse. If {published} was meant "
                "for the ratio, the band is upside down.",
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
        edges, of = self._mask_edges, self._scatter.left
        varied = edges.kept_high - edges.kept_low > INFORMATIVE
        if edges.separates and varied and of >= _ENOUGH and self._scatter.is_scattered:
            return CorrectionAudit(
                column="mask",
                code="reduced_by_rejection",
                status="fail",
                sentence=f"The mask leaves out {count(of, 'token')} among those it keeps, all of a ratio "
                f"{outside(edges)}, as a rejection does. Figures are of what is left, a selection.",
                rule="token_band",
                count=of,
                of=of,
                fix="log the mask as it was before the rejection, or analyze with --mask all",
            )
        return CorrectionAudit(
            column="mask",
            code="cannot_tell",
            status="unknown",
            sentence=f"The mask leaves out {count(of, 'token')} that have log-probs of both policies; that "
            "a band of their ratios did is not shown.",
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
