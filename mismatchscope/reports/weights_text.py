"""What the probe `weights` found, in words: on a terminal and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from ..foreign_text import printable
from ..measures.tensor_results import TensorRecord
from .console import show_gates
from .console_log import show_sections
from .logs.section import Line, Section
from .markdown import gates_block, heading, section_blocks
from .text import count, number, share
from .weights_report import WEIGHTS_REPORT, WeightsReport, WeightsStage, verdict_of

BADGE = {"pass": ("SAME", "good"), "fail": ("DIFFERENT", "bad"), "inconclusive": ("CANNOT TELL", "caution")}
_STYLE = {"good": "bold green", "bad": "bold red", "caution": "bold yellow"}
_HEADER = ("tensor", "is", "elements changed", "relative change", "dtype")
_SHOWN_ON_A_TERMINAL = 20
SHOWN_ON_A_PAGE = 500
_NAMED = 3
_REMARKS = {
    "cast": "of them cast to another dtype",
    "transposed": "transposed by the engine",
    "reordered": "in an order of the engine's own, which was not checked",
}
_NOT_HELD = {"missing": "not found there", "extra": "not in the checkpoint"}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def show(report: WeightsReport, console: Console) -> None:
    badge, tone = BADGE[report.verdict]
    console.print(Text.assemble((badge, _STYLE[tone]), "  ", (printable(report.sentence), "bold")))
    show_gates(report.gates, console)
    show_sections(weights_sections(report, shown=_SHOWN_ON_A_TERMINAL), console)


def render(report: WeightsReport) -> str:
    badge, tone = BADGE[report.verdict]
    blocks = [heading(badge, tone, report.sentence), gates_block(report.gates)]
    return "\n\n".join(filter(None, [*blocks, *section_blocks(weights_sections(report))])) + "\n"


def weights_sections(report: WeightsReport, shown: int | None = None) -> Iterator[Section]:
    """A section a stage, with its first tensors; then what was left out."""
    for stage in report.stages:
        rows = tuple(map(_row, stage.tensors[:shown]))
        lines = list(_sentences(stage))
        if hidden := len(stage.tensors) - len(rows):
            lines.append(Line(f"The table leaves out {count(hidden, 'tensor')}; {WEIGHTS_REPORT} has them."))
        title = stage_title(report, stage)
        yield Section(title, f"{stage.found}, against {stage.checkpoint} on disk", tuple(lines), _HEADER, rows)
    if report.left_out:
        yield Section("not looked at", "", tuple(map(Line, report.left_out)))


def stage_title(report: WeightsReport, stage: WeightsStage) -> str:
    """What tells a stage apart from the others of its report."""
    if stage.side == "disk":
        return "on disk"
    title = "after the update" if stage.after_update else "loaded"
    sides = {each.side for each in report.stages}
    return title if len(sides) == 1 else f"{title}, {stage.side}"


def sentence_of(stages: Sequence[WeightsStage]) -> str:
    """The line a person reads first."""
    verdict, on_disk = verdict_of(stages), stages[0].side == "disk"
    checkpoint = stages[0].checkpoint
    if verdict == "pass":
        if on_disk:
            return "Both checkpoints have the same weights."
        packed = any(stage.counts.get("reordered") for stage in stages)
        unknown = "; the order of the values that an engine has packed was not checked" if packed else ""
        taken = [stage.checkpoint for stage in stages if stage.after_update]
        also = f" and, after the update, have what is in {taken[0]}" if taken else ""
        return f"Both sides have loaded what is in {checkpoint}{also}{unknown}."
    if verdict == "fail" and on_disk:
        return "The two checkpoints do not have the same weights."
    if verdict == "fail":
        loaded = [stage for stage in stages if not stage.after_update]
        if wrong := " and ".join(stage.found for stage in loaded if stage.verdict == "fail"):
            alike = ", both in the same way" if _alike(loaded) else ""
            return f"What {wrong} has loaded is not what is in {checkpoint}{alike}."
        updated = [stage for stage in stages if stage.verdict == "fail"]
        wrong = " and ".join(stage.found for stage in updated)
        return f"After the update {wrong} does not have what is in {updated[0].checkpoint}{_stale(updated)}."
    return "Not every tensor could be compared, so it cannot be told whether the weights are the same."


def _stale(stages: Sequence[WeightsStage]) -> str:
    """`: 4 tensors are as they were`, of the side that has most of them."""
    stale = max(sum(record.kind == "stale" for record in stage.tensors) for stage in stages)
    return f": {count(stale, 'tensor')} {'is' if stale == 1 else 'are'} as before it" if stale else ""


def _alike(stages: Sequence[WeightsStage]) -> bool:
    """Whether both sides have the same tensors other than the checkpoint, with the same values."""
    differing = [{(each.name, each.sha256) for each in stage.tensors if each.sha256} for stage in stages]
    return len(differing) == 2 and differing[0] == differing[1] and bool(differing[0])


def _sentences(stage: WeightsStage) -> Iterator[Line]:
    tone = {"pass": "good", "fail": "bad", "inconclusive": "caution"}[stage.verdict]
    if stage.reason is not None:
        yield Line(stage.reason, tone)
        return
    same = stage.counts.get("same", 0)
    number_of = (
        f"All {count(same, 'tensor')}" if same == stage.total else f"{same:,} of {count(stage.total, 'tensor')}"
    )
    yield Line(f"{number_of} are the same{_but(stage)}.", tone)
    differing = [record for record in stage.tensors if record.status == "differs"]
    if where := _layers(differing):
        yield Line(f"All that differ are of {where}.")
    names: dict[str, list[str]] = {}
    for record in stage.tensors:
        names.setdefault(what_it_is(record), []).append(record.name)
    for what, group in names.items():
        yield Line(
            f"{what}: {', '.join(group[:_NAMED])}{f' and {len(group) - _NAMED:,} more' * (len(group) > _NAMED)}"
        )
    if any(record.kind == "low_rank" for record in differing):
        yield Line(
            "Merging an adapter makes changes of low rank: one side may have merged one that the other has not."
        )


def _but(stage: WeightsStage) -> str:
    """What "the same" passes over."""
    remarks = [f"{n:,} {remark}" for kind, remark in _REMARKS.items() if (n := stage.counts.get(kind))]
    return f" ({'; '.join(remarks)})" if remarks else ""


def _layers(differing: list[TensorRecord]) -> str | None:
    """The layers of all of them, where each has one and they are neighbours."""
    matches = [_LAYER.search(record.name) for record in differing]
    layers = sorted({int(match[1]) for match in matches if match})
    if len(matches) < 2 or not all(matches) or layers != list(range(layers[0], layers[-1] + 1)):
        return None
    return f"layer {layers[0]}" if len(layers) == 1 else f"the layers {layers[0]} to {layers[-1]}"


def what_it_is(record: TensorRecord) -> str:
    """What is told of one tensor, in a few words."""
    match record.kind:
        case "scaled":
            return f"scaled by {record.ratio:.4g}"
        case "low_rank":
            return f"a matrix of rank {record.rank} added"
        case "rounded" | "eight_bits":
            return f"rounded to {record.reason}"
        case "stale":
            return "stale, as before the update"
        case "transposed":
            return "transposed"
        case "shape":
            return f"other shape, {record.reason}"
        case "tied":
            return "tied to the embeddings"
        case "values":
            return "other values"
    return _NOT_HELD.get(record.status) or f"not compared, {record.reason}"


def _row(record: TensorRecord) -> tuple[str, ...]:
    dtypes = dict.fromkeys(filter(None, (record.dtype, record.dtype_found)))
    return (
        record.name,
        "not compared" if record.status == "not_compared" else what_it_is(record),
        share(record.differing),
        number(record.relative),
        " → ".join(dtypes),
    )
