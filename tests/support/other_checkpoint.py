"""The transformers engine with another checkpoint than the run's: a side whose weights or configuration are not
those that it should have. It can also put a token of its own before what it scores, as an engine that adds BOS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from mismatchscope.engines.base import Options
from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.records import Request, SequenceRecord, Task


@dataclass(frozen=True)
class OtherOptions(TransformersOptions):
    checkpoint: str = ""
    first: int = -1
    """A token id to put before what is scored; below 0: none."""


class OtherCheckpoint(TransformersEngine):
    name: ClassVar[str] = "other"
    options_type: ClassVar[type[Options]] = OtherOptions
    options: OtherOptions

    def __init__(self, model: str, options: Any) -> None:
        super().__init__(options.checkpoint or model, options)

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        if self.options.first < 0:
            yield from super().score(batch, task)
            return
        prompts = {request.sequence_id: request.prompt_token_ids for request in batch}
        first = np.array([self.options.first], dtype=np.int32)
        longer = [replace(each, prompt_token_ids=np.append(first, each.prompt_token_ids)) for each in batch]
        for record in super().score(longer, task):
            yield replace(record, prompt_token_ids=prompts[record.sequence_id])
