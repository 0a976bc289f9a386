"""The four levels of evidence, each with what the one before it has."""

from __future__ import annotations

from mismatchscope.diagnosis.evidence import TokenEvidence

LEVELS = ("sampled", "metadata", "top-64", "full")
TITLES = {
    "sampled": "sampled tokens",
    "metadata": "and metadata",
    "top-64": "and the top 64",
    "full": "and full rows",
}


def at(evidence: TokenEvidence, level: str) -> TokenEvidence:
    """What is seen of a case at a level."""
    rank = LEVELS.index(level)
    if rank < 3:
        evidence = evidence.but(full=None, head_VH=None)
    if rank < 2:
        evidence = evidence.but(top=None)
    if rank < 1:
        evidence = evidence.but(metadata={})
    return evidence
