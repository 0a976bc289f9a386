"""One finding after another: what a finding explains is taken out, and what is left is measured again.

So two causes at once are both found, where a list of rules would stop at the first one that fits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .detector import Detector, Finding, Need, detectors, lacking
from .evidence import TokenEvidence
from .sample import Sample
from .statistics.size import gap
from .statistics.stat import Stat

MOST_FINDINGS = 4
AT_FLOOR = 1.25
"""R up to which a gap is one that rounding makes."""
FEWEST_TOKENS = 30
"""With p < 0.9: fewer have no gap worth a name."""


@dataclass(frozen=True, eq=False)
class Peeled:
    """What was found, in order, the sample at the beginning, and what is left of it at the end; `left` is None
    where a finding is of everything, and nothing is left to be measured.

    `shares` has of each finding the part of Σ|Δ| at the beginning that is of its tokens. `facts` are findings that
    are no fault. `unasked` are detectors that could not be asked, with what they lack; `short` those that had too
    few tokens.
    """

    sample: Sample
    findings: tuple[Finding, ...]
    facts: tuple[Finding, ...]
    shares: tuple[float, ...]
    left: Sample | None
    unasked: tuple[tuple[Detector, tuple[Need, ...]], ...]
    short: tuple[Detector, ...]

    @property
    def left_gap(self) -> Stat | None:
        """R of what is left; None where too little is."""
        if self.left is None or np.count_nonzero(self.left.scaled_N) < FEWEST_TOKENS:
            return None
        return gap(self.left)


def peel(evidence: TokenEvidence) -> Peeled:
    """Ask all detectors in order, take out what the first one explains, and begin again with what is left."""
    sample = Sample.of(evidence)
    findings: list[Finding] = []
    facts: list[Finding] = []
    left: Sample | None = sample
    asked = [each for each in detectors() if not lacking(evidence, each.needs)]
    spoken: set[str] = set()
    while left is not None and len(findings) < MOST_FINDINGS and not (findings and _is_sound(left)):
        found = _first(left, [each for each in asked if each.name not in spoken])
        if found is None:
            break
        spoken.add(found.detector)
        if found.harmless:
            facts.append(found)
        else:
            findings.append(found)
        left = found.rest if found.rest is not None or not found.harmless else left
    total = float(np.nansum(np.abs(sample.delta_N)))
    shares = tuple(_share(sample, each, total) for each in findings)
    unasked = tuple((each, need) for each in detectors() if (need := lacking(evidence, each.needs)))
    live = int(np.count_nonzero(sample.live_N))
    short = tuple(each for each in asked if each.tokens > live)
    return Peeled(sample, tuple(findings), tuple(facts), shares, left, unasked, short)


def _is_sound(left: Sample) -> bool:
    """Whether nothing is left to explain: a course of what rounding makes means nothing."""
    size, no_numbers_N = gap(left).value, ~left.out_N & ~left.live_N
    return size is not None and size < AT_FLOOR and not no_numbers_N.any()


def _first(sample: Sample, asked: list[Detector]) -> Finding | None:
    live = int(np.count_nonzero(sample.live_N))
    for each in asked:
        if live < each.tokens and each.stage != "values":
            continue
        found = each.find(sample)
        if found is not None:
            return replace(found, detector=each.name)
    return None


def _share(sample: Sample, finding: Finding, total: float) -> float:
    return float(np.nansum(np.abs(sample.delta_N[finding.explained_N]))) / total if total > 0 else 0.0
