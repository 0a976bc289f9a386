"""What an experiment has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ...reports.confirmation_fields import Proof

NONE, MOST, UNCLEAR = "none", "most", "unclear"


class Found(NamedTuple):
    """`result` is one that `diagnosis.decisions` knows, or `UNCLEAR`; `command` does the same again, where one
    does; `proof` is the change that closes the gap."""

    result: str
    sentence: str
    command: str | None = None
    proof: Proof | None = None
