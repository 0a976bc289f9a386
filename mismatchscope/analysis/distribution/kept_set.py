"""Where a log has the sampler's kept set: the exact TV of the truncation, and what mismatch remains on the set.

A sampler with top-p or top-k draws from the ids that it keeps, so π has 1 − S of its mass elsewhere, S = π(kept
set). On the set, π / S is held against μ.

Shapes: N tokens that count and have a kept mass, S responses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...measures.accumulators import Clusters, ClusterSums
from ...measures.intervals import NONNEGATIVE, UNIT
from ...measures.log_results import DistributionCheck, KeptSupport
from ...measures.results import Interval
from ...measures.sampled import LOG_TOLERANCE, k3, shortfall
from ...reports.text import estimate, share
from ..block import LogBlock

if TYPE_CHECKING:
    import pyarrow as pa

_FIX_MASS = "kept_logmass is the log of π(kept set): at most 0"
_NAMES = ("truncation", "tv", "kl", "ratio", "size", "outside")


class KeptSet:
    """Keeps to `LogStatistic`."""

    def __init__(self) -> None:
        self._clusters = Clusters()
        self._sums = {name: ClusterSums() for name in _NAMES}
        self.illegal = 0
        """Tokens whose kept mass is above 1."""
        self.empty = 0
        """Tokens whose kept set has no id, not even theirs."""

    def add(self, block: LogBlock) -> None:
        mass_N = block.of_tokens("kept_logmass")
        if mass_N is not None:
            self._add_mass(block, mass_N)
        if "kept_ids" in block.batch.rows.schema.names:
            self._add_ids(block)

    def _add_mass(self, block: LogBlock, mass_N: np.ndarray) -> None:
        known_N = ~np.isnan(mass_N)
        with np.errstate(invalid="ignore"):
            legal_N = known_N & (mass_N <= LOG_TOLERANCE)
        self.illegal += int((known_N & ~legal_N).sum())
        self._add("truncation", block, -np.expm1(np.minimum(mass_N, 0.0)), legal_N)
        drawable_N = legal_N & np.isfinite(mass_N) & np.isfinite(block.logp_pi_N)
        d_N = np.where(drawable_N, block.logp_pi_N - mass_N - block.logp_mu_N, 0.0)
        for name, value_N in (("tv", shortfall(d_N)), ("kl", k3(d_N)), ("ratio", np.exp(d_N))):
            self._add(name, block, value_N, drawable_N)

    def _add_ids(self, block: LogBlock) -> None:
        """How many ids are kept, and whether the sampled token is among them."""
        column = cast("pa.ListArray[Any]", block.batch.rows.column("kept_ids"))
        if column.null_count:
            return
        by_token = cast("pa.ListArray[Any]", column.flatten())
        if len(by_token) != len(block.token_id_R):
            return
        size_R = by_token.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        ids = by_token.flatten().to_numpy(zero_copy_only=False)
        found = ids == np.repeat(block.token_id_R, size_R)
        upto = np.append(0, np.cumsum(found))
        end_R = np.cumsum(size_R)
        inside_R = upto[end_R] > upto[end_R - size_R]
        size_N = block.kept(size_R)
        given_R = by_token.is_valid().to_numpy(zero_copy_only=False)
        self.empty += int((block.kept(given_R) & (size_N == 0)).sum())
        self._add("size", block, size_N.astype(np.float64), size_N > 0)
        self._add("outside", block, (~block.kept(inside_R)).astype(np.float64), size_N > 0)

    def _add(self, name: str, block: LogBlock, value_N: np.ndarray, of_N: np.ndarray) -> None:
        if not of_N.any():
            return
        sum_S = np.add.reduceat(np.where(of_N, value_N, 0.0), block.start_S)
        count_S = np.add.reduceat(of_N.astype(np.int64), block.start_S)
        self._sums[name].add(self._clusters.rows(block.cluster_S), sum_S, count_S, value_N[of_N])

    def merge(self, other: KeptSet) -> None:
        row_C = self._clusters.rows(other._clusters.labels) if len(other._clusters) else np.zeros(0, dtype=np.int64)
        for name, sums in other._sums.items():
            self._sums[name].merge(sums, row_C)
        self.illegal += other.illegal
        self.empty += other.empty

    def result(self, *, tokens: int, confidence: float) -> KeptSupport | None:
        """None where the log has no kept mass; `tokens` is how many count in all."""
        sums = self._sums
        if not sums["truncation"].n:
            return None
        return KeptSupport(
            truncation=sums["truncation"].interval(confidence=confidence, bounds=UNIT),
            tv=sums["tv"].interval(confidence=confidence, bounds=UNIT) if sums["tv"].n else None,
            kl=sums["kl"].interval(confidence=confidence, bounds=NONNEGATIVE) if sums["kl"].n else None,
            ratio=sums["ratio"].interval(confidence=confidence) if sums["ratio"].n else None,
            kept_ids=sums["size"].mean if sums["size"].n else None,
            tokens=sums["truncation"].n,
            unknown=tokens - sums["truncation"].n,
        )

    def ratio(self, *, tokens: int, confidence: float) -> Interval | None:
        """The mean ratio of π renormalised on the kept sets; None where not all of these tokens have one."""
        ratio = self._sums["ratio"]
        return ratio.interval(confidence=confidence) if ratio.n == tokens else None

    def check(self) -> DistributionCheck:
        """Is every sampled token among the ids that its sampler kept?"""
        outside = self._sums["outside"]
        if not outside.n:
            truncation = self._sums["truncation"]
            if not truncation.n:
                return self._check_of_none()
            interval = truncation.interval(bounds=UNIT)
            return DistributionCheck(
                code="kept_set",
                status="fail" if self.illegal else "pass",
                sentence=f"The kept sets leave {estimate(interval.value, interval.low, interval.high)} of the "
                f"reference's mass out; {self.illegal:,} of them hold more than all of it.",
                count=self.illegal,
                of=truncation.n + self.illegal,
                fix=_FIX_MASS if self.illegal else None,
            )
        missing = round(outside.mean * outside.n)
        illegal = f" {self.illegal:,} kept masses are above 1." if self.illegal else ""
        fix = "see whether the kept sets belong to these tokens: off by one, or of another response"
        return DistributionCheck(
            code="kept_set",
            status="fail" if missing or self.illegal else "pass",
            sentence=f"{missing:,} of {outside.n:,} sampled tokens ({share(missing / outside.n)}) are not among "
            f"the ids that their sampler kept.{illegal}",
            count=missing,
            of=outside.n,
            evidence={"illegal_masses": self.illegal},
            fix=fix if missing else _FIX_MASS if self.illegal else None,
        )

    def _check_of_none(self) -> DistributionCheck:
        """The check of a log where no token has a kept set with an id, or with a mass of at most 1."""
        if self.illegal:
            return DistributionCheck(
                code="kept_set",
                status="fail",
                sentence=f"Of {self.illegal:,} kept masses none is read: each is above 1.",
                count=self.illegal,
                of=self.illegal,
                fix=_FIX_MASS,
            )
        if self.empty:
            sentence = f"Of {self.empty:,} kept sets none is read: each is empty, without even the sampled token."
            return DistributionCheck(code="kept_set", status="unknown", sentence=sentence)
        return DistributionCheck(code="kept_set", status="unknown", sentence="The log has no sampler's kept set.")
