"""The report of the probe `weights`, which has no tokens, and so no figure of any other report."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..foreign_text import printable_json
from ..measures.tensor_results import TensorRecord
from .document import GateResult

WEIGHTS_REPORT, WEIGHTS_MARKDOWN, WEIGHTS_PAGE = "weights.json", "weights.md", "weights.html"
Verdict = Literal["pass", "fail", "inconclusive"]
_WORST_FIRST: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")
Side = Literal["disk", "behavior", "reference", "both"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


_IN_A_LAYER = re.compile(r"(?:^|.*\.)(?:layers|h|blocks)\.(?P<layer>\d+)\.(?P<part>.+)")
_NUMBERED = re.compile(r"\.\d+(?=\.)")


def layer_and_part(name: str) -> tuple[int | None, str]:
    """Where a tensor is: its layer, None outside of them, and what it is there, the same for all experts."""
    found = _IN_A_LAYER.fullmatch(name)
    layer, part = (int(found["layer"]), found["part"]) if found else (None, name.removeprefix("model."))
    return layer, _NUMBERED.sub("", part).removesuffix(".weight")


class WeightsPlace(_Frozen):
    """The tensors of one part of one layer: one, or those of its experts."""

    layer: int | None
    """None: of no layer, as the embeddings."""
    part: str
    tensors: int
    others: dict[str, int] = {}
    """Of those that are not the same: by `kind`, else by `status`."""


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
    kinds: dict[str, int] = {}
    """Of those that differ: by `kind`."""
    places: list[WeightsPlace] = []
    """Of all tensors, in the order of the layers."""
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

    def with_tensors(self, tensors: list[TensorRecord]) -> WeightsStage:
        """The same stage, with more told of those that are not the same."""
        others = {(each.layer, each.part): each.others for each in _places(tensors)}
        places = [
            place.model_copy(update={"others": others.get((place.layer, place.part), {})}) for place in self.places
        ]
        return self.model_copy(update={"tensors": tensors, "kinds": kinds_of(tensors), "places": places})

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
            kinds=kinds_of(others),
            places=_places(records),
            tensors=others,
        )


def kinds_of(records: Sequence[TensorRecord]) -> dict[str, int]:
    """Of those that differ, how many by `kind`."""
    return dict(Counter(str(record.kind) for record in records if record.status == "differs"))


def _places(records: Sequence[TensorRecord]) -> list[WeightsPlace]:
    groups: dict[tuple[int | None, str], list[TensorRecord]] = defaultdict(list)
    for record in records:
        groups[layer_and_part(record.name)].append(record)
    places = sorted(groups.items(), key=lambda item: (item[0][0] is not None, item[0][0] or 0, item[0][1]))
    return [
        WeightsPlace(
            layer=layer,
            part=part,
            tensors=len(group),
            others=dict(Counter(each.kind or each.status for each in group if each.status != "same")),
        )
        for (layer, part), group in places
    ]


def verdict_of(stages: Sequence[WeightsStage]) -> Verdict:
    """Different if any stage is, else the same if all are."""
    verdicts = {stage.verdict for stage in stages}
    return next(verdict for verdict in _WORST_FIRST if verdict in verdicts)


class WeightsReport(_Frozen):
    schema_version: Literal[1] = 1
    verdict: Verdict
    """Of the weights, whatever the gates say."""
    gates: list[GateResult] = []
    sentence: str
    stages: list[WeightsStage]
    left_out: list[str]
    """What was not looked at, a sentence each."""
    command: str
    created: str
    tool_version: str

    @property
    def outcome(self) -> Verdict:
        """What the run ends with: the verdict of the gates where there are some, and else of the weights."""
        if not self.gates:
            return self.verdict
        verdicts = {gate.verdict for gate in self.gates}
        return next(verdict for verdict in _WORST_FIRST if verdict in verdicts)

    def to_json(self) -> str:
        return printable_json(self.model_dump_json(indent=1)) + "\n"
