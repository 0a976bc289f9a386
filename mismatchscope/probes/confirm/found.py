"""What an experiment has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ...reports.confirmation_fields import Proof

NONE, MOST, UNCLEAR = "none", "most", "unclear"


class Found(NamedTuple):
    """`result` is one that `diagnosis.decisions` knows, or `UNCLEAR`; `proof` the change that closes the gap."""

    result: str
    sentence: str
    command: str
    proof: Proof | None = None
