"""What a person sees of the probe `weights` beside its sentences: gates, and a page with a picture."""

from __future__ import annotations

import re

import pytest

from mismatchscope.errors import ConfigError
from mismatchscope.measures.tensor_results import TensorRecord
from mismatchscope.probes import weights_gates
from mismatchscope.reports import weights_html, weights_text
from mismatchscope.reports.weights_report import Side, WeightsReport, WeightsStage, layer_and_part, verdict_of
from mismatchscope.reports.weights_text import sentence_of

LAYER = "model.layers.{}.{}.weight"
UNREAD = TensorRecord("model.layers.1.mlp.up_proj.weight", "not_compared", (4, 4), "bfloat16", reason="quantised")


def records(*others: TensorRecord) -> list[TensorRecord]:
    named = {record.name: record for record in others}
    names = ["model.embed_tokens.weight"]
    names += [LAYER.format(layer, part) for layer in range(3) for part in ("self_attn.q_proj", "mlp.up_proj")]
    names += [LAYER.format(layer, f"mlp.experts.{n}.down_proj") for layer in range(3) for n in range(4)]
    return [named.get(name, TensorRecord(name, "same", (4, 4), "bfloat16", "bfloat16")) for name in names]


def differs(name: str, kind: str, **told: float) -> TensorRecord:
    return TensorRecord(name, "differs", (4, 4), "bfloat16", "bfloat16", kind, **told)  # type: ignore[arg-type]


def report(*others: TensorRecord, side: Side = "both", reason: str | None = None) -> WeightsReport:
    stage = WeightsStage.of(records(*others), checkpoint="demo:moe", found="vllm", side=side)
    stages = [stage if reason is None else WeightsStage(checkpoint="m", found="vllm", side=side, reason=reason)]
    return WeightsReport(
        verdict=verdict_of(stages),
        sentence=sentence_of(stages),
        stages=stages,
        left_out=[],
        command="mismatchscope probe weights -o out",
        created="2026-01-02T03:04:05+00:00",
        tool_version="0.1.0",
    )


SCALED = differs(LAYER.format(1, "self_attn.q_proj"), "scaled", ratio=1.01, relative=0.01)
STALE = differs(LAYER.format(2, "mlp.experts.3.down_proj"), "stale")


@pytest.mark.parametrize(
    ("others", "expression", "verdict"),
    [
        ((SCALED, STALE), "stages.both.kinds.stale > 0", "fail"),
        ((SCALED,), "stages.behavior.kinds.stale > 0", "pass"),
        ((SCALED,), "stages.reference.counts.differs >= 1", "fail"),
        ((UNREAD,), "stages.both.counts.differs > 0", "inconclusive"),
        ((UNREAD, SCALED), "stages.both.counts.differs > 0", "fail"),
        ((UNREAD,), "stages.both.counts.differs > 1", "pass"),
        ((UNREAD,), "stages.both.counts.not_compared > 0", "fail"),
        ((), "stages.both_updated.kinds.stale > 0", "inconclusive"),
    ],
)
def test_a_gate_decides_on_what_was_counted(
    others: tuple[TensorRecord, ...], expression: str, verdict: str
) -> None:
    decided = weights_gates.decide(report(*others), [expression])
    assert (decided.gates[0].verdict, decided.outcome) == (verdict, verdict)
    assert decided.verdict == report(*others).verdict, "what the weights are is no gate's to say"
    assert "stages." in weights_text.render(decided)


def test_an_engine_that_could_not_be_asked_passes_no_gate() -> None:
    decided = weights_gates.decide(report(reason="it died"), ["stages.both.counts.differs > 0"])
    assert (decided.outcome, decided.gates[0].reason) == ("inconclusive", "it died")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("token.tv.mean > 0.1", "no figure at"),
        ("stages.behavior.kinds.stall > 0", "no figure at"),
        ("stages.behavior.kinds.stale > +1", "relative to a baseline"),
        ("stale", "is not a gate"),
    ],
)
def test_what_is_no_gate_on_weights_is_refused(expression: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        weights_gates.check([expression])


def test_where_a_tensor_is() -> None:
    assert layer_and_part("model.layers.12.mlp.experts.7.up_proj.weight") == (12, "mlp.experts.up_proj")
    assert layer_and_part("transformer.h.3.attn.c_attn.bias") == (3, "attn.c_attn.bias")
    assert layer_and_part("model.embed_tokens.weight") == (None, "embed_tokens")


def test_the_picture_has_a_row_a_part_and_a_mark_a_kind() -> None:
    page = weights_html.render(report(SCALED, STALE))
    picture = page[page.index("<svg") : page.index("</svg>")]
    written = re.findall(r"<text[^>]*>([^<]+)</text>", picture)
    for text in ("same", "stale", "scaled", "embed_tokens", "mlp.experts.down_proj", "none", "layer", "2"):
        assert text in written, text
    assert "other values" not in written
    assert "2 tensors of 19: scaled, stale." in picture
    assert "<script" not in page and "DIFFERENT" in page


def test_where_all_are_the_same_there_is_no_picture() -> None:
    page = weights_html.render(report())
    assert "<svg" not in page and "All 19 tensors are the same." in page


def test_one_place_stands_for_the_experts_of_a_layer() -> None:
    [stage] = report(STALE).stages
    found = next(place for place in stage.places if place.others)
    assert (found.layer, found.part, found.tensors, found.others) == (2, "mlp.experts.down_proj", 4, {"stale": 1})
    assert sum(place.tensors for place in stage.places) == stage.total
