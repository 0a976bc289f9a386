"""The experiments that can be run on the two engines of an audit, all but the last through a probe.

To add one: a function of a case that answers with what was found, and a line in `EXPERIMENTS`. The names are those
of the catalogue of causes; what a result says of each cause is in `diagnosis.decisions`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...engines.spec import parse_spec
from ..weights import WeightsQuestion, probe_weights
from .case import Case
from .found import MOST, NONE, UNCLEAR, Found
from .rescore_audit import rescore
from .stages import result_of

if TYPE_CHECKING:
    from ...measures.results import Interval
    from ...measures.tensor_results import TensorRecord
    from ...reports.pair_fields import Probe, ProbeCell

_LITTLE, _MUCH = 0.1, 0.5
"""Of the gap: what is surely less than the one is none of it, what is surely more than the other is most of it."""

SAME_BATCHES, BATCHES_ARE_GIVEN = "same_batches", "transformers"
"""A result, and the engine whose batches are the ones that it is given."""
_FEW_ROWS = 0.5
"""Share of a matrix's rows, or of a tensor's experts, from which on it is no longer a few of them."""
_EXPERT = re.compile(r"\bexperts?\b(?:\.(\d+))?")
_HEAD, _EMBEDDING = re.compile(r"\b(lm_head|embed_out)\b"), re.compile(r"\b(embed_tokens|embed_in|wte)\b")


def _weights(case: Case) -> Found:
    """Whether both engines have loaded what is on disk."""
    settings = case.settings
    question = WeightsQuestion.of(
        settings.model, settings.behavior, settings.reference, settings.adapter, reference_model=None
    )
    command = case.command("weights")
    report = probe_weights(question, case.directory / "weights", command=command, on_event=case.on_event)
    if report.verdict == "fail":
        differing = [each for stage in report.stages for each in stage.tensors if each.status == "differs"]
        return Found(kind_of(differing), report.sentence, command)
    return Found("same" if report.verdict == "pass" else UNCLEAR, report.sentence, command)


def kind_of(tensors: list[TensorRecord]) -> str:
    """What all of the tensors that differ have in common."""
    for kind in ("low_rank", "rounded", "eight_bits"):
        if all(each.kind == kind for each in tensors):
            return kind
    few = all(each.differing_rows is not None and each.differing_rows < _FEW_ROWS for each in tensors)
    if all(_HEAD.search(each.name) or _EMBEDDING.search(each.name) for each in tensors):
        # The embedding is the head of a model that ties them, whose checkpoint has it alone.
        return "rows" if few else "head" if any(_HEAD.search(each.name) for each in tensors) else "embedding"
    experts = [_EXPERT.search(each.name) for each in tensors]
    if all(experts):
        numbers = {match[1] for match in experts if match}
        return "expert" if few or (len(numbers) == 1 and None not in numbers) else "experts"
    # An adapter is added to projections, never to a norm or to what has one dimension.
    return "projections" if all(len(each.shape) > 1 for each in tensors) else "values"


def _context(case: Case) -> Found:
    """Whether the gap is there where attention has one key."""
    probe, command = _probed(case, "context", ("1", "bos"))
    results = {"vanishes": "vanishes", "stays": "stays", "bos": "beginning"}
    first = probe.conclusion[0]
    return Found(results.get(first.code, UNCLEAR), first.sentence, command)


def _repeat(case: Case) -> Found:
    """How far the same scores are apart when they are computed again, and whether in the same batches: those of an
    engine that is given them, where others make their own."""
    probe, command = _probed(case, "repeat")
    measured = [cell for cell in probe.cells if cell.status == "measured" and cell.pair is not None]
    first = probe.conclusion[0]
    if not probe.complete:
        return Found(UNCLEAR, first.sentence, command)
    given = [cell for cell in measured if parse_spec(cell.engine).name == BATCHES_ARE_GIVEN]
    result = SAME_BATCHES if _largest(given, case.gap) == MOST else _largest(measured, case.gap)
    return Found(result, first.sentence, command)


def _alone(case: Case) -> Found:
    """How far a response in a batch is from the same one alone."""
    probe, command = _probed(case, "batch", ("2", "8"))
    measured = [cell for cell in probe.cells if cell.status == "measured" and cell.pair is not None]
    return Found(_largest(measured, case.gap), probe.conclusion[0].sentence, command)


def _path(case: Case) -> Found:
    """How much of the gap is between decode and prefill of one engine."""
    probe, command = _probed(case, "path")
    cells = {f"{cell.setting} against {cell.against}": cell.pair for cell in probe.cells}
    part, whole = (cells.get(name) for name in ("decode against prefill", "decode against trainer"))
    sentence = " ".join(each.sentence for each in probe.conclusion[:2])
    if part is None or whole is None:
        return Found(UNCLEAR, sentence, command)
    result = NONE if part.identical else share_of(part.alpha.mean, whole.alpha.mean)
    return Found(result, sentence, command)


def _float32(case: Case) -> Found:
    """How much of the gap is gone where both sides compute in float32."""
    probe, command = _probed(case, "dtype", ("float32",))
    across = [cell for cell in probe.cells if cell.setting == "float32" and cell.pair is not None]
    if len(across) != 1 or across[0].status != "measured":
        return Found(UNCLEAR, probe.conclusion[0].sentence, command)
    left = across[0].pair
    assert left is not None
    from ...reports.text import estimate

    mean = left.alpha.mean
    told = f"With float32 on both sides mean TV is {estimate(mean.value, mean.low, mean.high)}"
    before = f"as given it is {estimate(case.gap.value, case.gap.low, case.gap.high)}"
    share = NONE if left.identical else share_of(mean, case.gap)
    gone = {NONE: MOST, MOST: NONE}.get(share, UNCLEAR)
    return Found(gone, f"{told}; {before}.", command)


def _layers(case: Case) -> Found:
    """Which kind of stage creates more than rounding where both sides read the same values."""
    probe, command = _probed(case, "layers")
    return Found(result_of(probe.internals), probe.conclusion[0].sentence, command)


def _largest(cells: list[ProbeCell], gap: Interval) -> str:
    """How much of the gap the largest of these differences could make."""
    if not cells:
        return UNCLEAR
    results = {NONE if cell.pair.identical else share_of(cell.pair.alpha.mean, gap) for cell in cells if cell.pair}
    return MOST if MOST in results else NONE if results == {NONE} else UNCLEAR


def share_of(part: Interval, whole: Interval) -> str:
    """How much of the whole gap another one could make, as far as both intervals tell."""
    high = part.value if part.high is None else part.high
    least = whole.value if whole.low is None else whole.low
    if high is None or least is None or not whole.value:
        return UNCLEAR
    if high <= _LITTLE * least:
        return NONE
    most = None if whole.high is None else _MUCH * whole.high
    return MOST if part.low is not None and most is not None and part.low >= most else UNCLEAR


def _probed(case: Case, name: str, values: Sequence[str] = ()) -> tuple[Probe, str]:
    return case.probe(name, values), case.command(name, values)


EXPERIMENTS: Mapping[str, Callable[[Case], Found]] = {
    "weights": _weights,
    "context": _context,
    "repeat": _repeat,
    "alone": _alone,
    "path": _path,
    "float32": _float32,
    "layers": _layers,
    "rescore": rescore,
}
