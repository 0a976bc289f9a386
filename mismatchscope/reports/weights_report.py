"""The report of the probe `weights`, which has no tokens, and so no figure of any other report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..foreign_text import printable_json
from ..measures.tensor_results import TensorRecord

WEIGHTS_REPORT, WEIGHTS_MARKDOWN = "weights.json", "weights.md"
Verdict = Literal["pass", "fail", "inconclusive"]
Side = Literal["disk", "behavior", "reference", "both"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class WeightsStage(_Frozen):
    """Tensors held against those of a checkpoint on disk: another checkpoint's, or what an engine has loaded."""

    checkpoint: str
    found: str
    """The other checkpoint, or the SPEC of the engine."""
    side: Side
    engine_version: str | None = None
    after_update: bool = False
    """Whether the engine had loaded another checkpoint and was told to take this one's weights."""
    counts: dict[str, int] = {}
    """By `status`; and how many of the same are "reordered", "transposed", and "cast" to another dtype."""
    tensors: list[TensorRecord] = []
    """All that are not the same."""
    reason: str | None = None
    """Why nothing was compared."""

    @property
    def total(self) -> int:
        return sum(self.counts.get(status, 0) for status in ("same", "differs", "missing", "extra", "not_compared"))

    @property
    def verdict(self) -> Verdict:
        """An engine may keep a tensor under a name that is not known here; two checkpoints have the same names."""
        names = () if self.side != "disk" else ("missing", "extra")
        if any(self.counts.get(status) for status in ("differs", *names)):
            return "fail"
        return "pass" if self.reason is None and self.counts.get("same") == self.total else "inconclusive"

    @classmethod
    def of(
        cls,
        records: list[TensorRecord],
        *,
        checkpoint: str,
        found: str,
        side: Side,
        engine_version: str | None = None,
        after_update: bool = False,
    ) -> WeightsStage:
        counts = Counter(record.status for record in records)
        same = [record for record in records if record.status == "same"]
        details = {
            "reordered": sum(record.kind == "reordered" for record in same),
            "transposed": sum(record.kind == "transposed" for record in same),
            "cast": sum(record.dtype != record.dtype_found for record in same),
        }
        others = [record for record in records if record.status != "same"]
        return cls(
            checkpoint=checkpoint,
            found=found,
            side=side,
            engine_version=engine_version,
            after_update=after_update,
            counts=dict(counts) | details,
            tensors=others,
        )


def verdict_of(stages: Sequence[WeightsStage]) -> Verdict:
    """Different if any stage is, else the same if all are."""
    verdicts = {stage.verdict for stage in stages}
    return next(verdict for verdict in ("fail", "inconclusive", "pass") if verdict in verdicts)


class WeightsReport(_Frozen):
    schema_version: Literal[1] = 1
    verdict: Verdict
    sentence: str
    stages: list[WeightsStage]
    left_out: list[str]
    """What was not looked at, a sentence each."""
    command: str
    created: str
    tool_version: str

    def to_json(self) -> str:
        return printable_json(self.model_dump_json(indent=1)) + "\n"
