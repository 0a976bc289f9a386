"""The levels of evidence. The first two are what a log has, where nothing says what rounding does to the pair; the
others have the floor where one was measured, as in most cases, and each has what the one before it has."""

from __future__ import annotations

from mismatchscope.diagnosis.evidence import TokenEvidence

NO_FLOOR = ("sampled, no floor", "metadata, no floor")
LEVELS = (*NO_FLOOR, "sampled", "metadata", "top-64", "full")
TITLES = {
    "sampled, no floor": "sampled tokens, no floor measured",
    "metadata, no floor": "and metadata, no floor measured",
    "sampled": "sampled tokens",
    "metadata": "and metadata",
    "top-64": "and the top 64",
    "full": "and full rows",
}


EXPERIMENTS = "experiments"
"""Not a level of evidence: what is left after whole distributions and two experiments at the most."""
TITLES[EXPERIMENTS] = "and two experiments"


def at(evidence: TokenEvidence, level: str) -> TokenEvidence:
    """What is seen of a case at a level."""
    if level != "full":
        evidence = evidence.but(full=None, head_VH=None)
    if level not in ("full", "top-64"):
        evidence = evidence.but(top=None)
    if level.startswith("sampled"):
        evidence = evidence.but(metadata={})
    return evidence.but(floor=None) if level in NO_FLOOR else evidence
