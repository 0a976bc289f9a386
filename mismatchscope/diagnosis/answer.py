"""From findings to an answer: one cause, a set and the experiment that decides, rounding, or "cannot tell".

A cause is named alone where what is left of the gap is at the floor, or where its detector was right in at least
85 % of planted cases at this level of evidence. Below 70 % a finding names nothing. Between them the causes that
there were when the detector was wrong join the set. Settings that differ order a set; they never name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .catalogue import ROUNDING, UNKNOWN, causes, experiments
from .detector import MOST_IN_A_SET, Finding
from .evidence import Array
from .peeling import AT_FLOOR, FEWEST_TOKENS, Peeled
from .records import Record, Records, level_of, record_of
from .statistics.size import gap
from .statistics.stat import Stat

Code = Literal["cause", "set", "ordinary_rounding", "unknown", "cannot_tell", "identical"]

TRUSTED, DOUBTED = 0.85, 0.7
BEYOND = 1.5
"""R from which on kernels alone are no answer; sound pairs reached 1.46."""


@dataclass(frozen=True, eq=False)
class Named:
    """A finding that counts, with the causes that it leaves."""

    finding: Finding
    causes: tuple[str, ...]
    record: Record | None
    share: float

    @property
    def detector(self) -> str:
        return self.finding.detector

    @property
    def experiment(self) -> str:
        """The cheapest experiment that singles one of the causes out."""
        return min((causes()[each].experiment for each in self.causes), key=lambda name: experiments()[name].cost)


@dataclass(frozen=True, eq=False)
class Answer:
    """What the evidence says. `size` is R of all tokens, `left` that of what no finding explains, None where it was
    not or could not be measured; `doubted` are findings whose detectors are too often wrong to name anything."""

    code: Code
    peeled: Peeled
    named: tuple[Named, ...]
    doubted: tuple[Finding, ...]
    size: Stat
    left: Stat | None


def answer_of(peeled: Peeled, records: Records | None = None) -> Answer:
    """With the committed records of detectors, or others. Raises nothing: too little evidence is an answer."""
    size, left = gap(peeled.sample), peeled.left_gap
    named: list[Named] = []
    doubted: list[Finding] = []
    settings = peeled.sample.evidence.settings
    level = level_of(peeled.sample.evidence)
    for number, finding in enumerate(peeled.findings):
        record = record_of(finding.detector, level, records)
        precision = None if record is None else record.precision.value
        last = number == len(peeled.findings) - 1
        clean = last and left is not None and left.value is not None and left.value < BEYOND
        if precision is not None and precision < DOUBTED:
            doubted.append(finding)
            continue
        left_over = finding.causes
        if precision is not None and precision < TRUSTED and not clean and record is not None:
            joining = [each for each in record.confused if each in causes() and each not in left_over]
            left_over += tuple(joining[: max(0, MOST_IN_A_SET - len(left_over))])
        named.append(Named(finding, _ordered(left_over, settings), record, peeled.shares[number]))
    code = _code(peeled, named, doubted, size)
    return Answer(code, peeled, tuple(named), tuple(doubted), size, left)


def _ordered(left_over: tuple[str, ...], settings: Mapping[str, object]) -> tuple[str, ...]:
    """Causes whose settings differ first, the others in their order."""
    names = " ".join(settings).lower()
    return tuple(sorted(left_over, key=lambda cause: not any(word in names for word in _WORDS.get(cause, ()))))


_WORDS: dict[str, tuple[str, ...]] = {
    "rope": ("rope",),
    "window": ("window",),
    "chunked_prefill": ("chunk",),
    "attention_scale": ("softcap", "soft_cap", "logit_cap", "scaling", "sink"),
    "fp8_cache": ("kv_cache",),
    "fp8_weights": ("quantization",),
    "adapter": ("adapter", "lora"),
    "stale_weights": ("weights_sha256",),
    "norm": ("eps",),
    "dropout": ("dropout", "train_mode"),
    "temperature": ("temperature",),
    "truncation": ("top_p", "top_k", "min_p"),
    "penalty": ("penalty",),
    "head_precision": ("lm_head",),
    "context": ("chat_template", "tokenizer", "bos"),
    "reductions": ("parallel", "tp_size", "ep_size"),
    "padding": ("padding",),
    "batch": ("batch", "max_num_seqs"),
}
"""Parts of the names of settings that go with a cause."""


def _code(peeled: Peeled, named: list[Named], doubted: list[Finding], size: Stat) -> Code:
    if named:
        return "cause" if all(len(each.causes) == 1 for each in named) else "set"
    if not doubted and _identical(peeled):
        return "identical"
    if int(np.count_nonzero(peeled.sample.scaled_N)) < FEWEST_TOKENS or size.value is None:
        return "cannot_tell"
    floor = peeled.sample.floor
    least, most = (each or floor.value for each in (floor.least, floor.most))
    if size.value * floor.value < AT_FLOOR * least and not doubted:
        return "ordinary_rounding"
    low = size.value if size.low is None else size.low
    if size.value * floor.value < BEYOND * most or low * floor.value < AT_FLOOR * most:
        return "cannot_tell"
    return "unknown"


def _identical(peeled: Peeled) -> bool:
    live_N: Array = peeled.sample.live_N
    return bool(live_N.any()) and not peeled.sample.delta_N[live_N].any()


__all__ = ["ROUNDING", "UNKNOWN", "Answer", "Code", "Named", "answer_of"]
