"""Draw the plots of docs/causes, and write down what is in each.

    python scripts/draw_cause_plots.py [CAUSE …]

Most are of planted cases of benchmarks/causes, the others of pairs in measured_pairs.py. What is not in the
benchmark's cache is made; needs the extras torch and report. plots.json has what scripts/generate_cause_pages.py
says of them. The same cases give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / each) for each in ("scripts", "benchmarks", "benchmarks/causes")]

import cause_pictures as pictures  # noqa: E402
import make  # noqa: E402
import numpy as np  # noqa: E402
import store  # noqa: E402
from cases import Key  # noqa: E402
from measured_pairs import MEASURED, pair  # noqa: E402

from mismatchscope.diagnosis.answer import answer_of  # noqa: E402
from mismatchscope.diagnosis.catalogue import causes  # noqa: E402
from mismatchscope.diagnosis.detector import Picture  # noqa: E402
from mismatchscope.diagnosis.evidence import TokenEvidence  # noqa: E402
from mismatchscope.diagnosis.peeling import peel  # noqa: E402
from mismatchscope.diagnosis.results import summary  # noqa: E402
from mismatchscope.diagnosis.sample import Sample  # noqa: E402
from mismatchscope.measures.diagnosis_results import DiagnosisPicture  # noqa: E402
from mismatchscope.reports.diagnosis_chart import picture_svg  # noqa: E402

PLOTS = ROOT / "docs" / "causes" / "plots"
_SIZE = 'width="560" height="260"'
_POINTS = 300
_COLORS = """<style>
svg { --grid: #dfe3e8; --series: #2563eb; --second: #c2570c; --floor: #6b7280; --paper: #ffffff; color: #161b22;
      font-family: system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --grid: #29303a; --series: #6ea8fe; --second: #f2a65a; --floor: #9aa4b2; --paper: #0f1317; color: #e4e8ee; }
}
</style><rect width="560" height="260" fill="var(--paper)"/>"""
"""Those of the report's style sheet: a picture in a page of Markdown has no other."""

Said = dict[str, str | float | int]


class Drawn(NamedTuple):
    """A case of the development part, and how it is drawn where it is not the picture of the finding."""

    plant: str
    number: int
    model: str = "dense"
    stack: str = "bf16"
    draw: Callable[[Sample], Picture] | None = None


DRAWN = {
    "not_finite": Drawn("numbers that are none", 0, draw=pictures.without_a_number),
    "filler": Drawn("filled with zeros", 0),
    "probabilities": Drawn("probabilities", 0, draw=pictures.two_columns),
    "mask": Drawn("tool output in the mask", 0),
    "top1_logprob": Drawn("the likeliest token's", 0),
    "off_by_one": Drawn("off by one", 0),
    "row_order": Drawn("rows of other responses", 0),
    "retokenised": Drawn("retokenised", 0),
    "temperature": Drawn("temperature of the trainer", 0, "llama"),
    "truncation": Drawn("top-p", 1),
    "penalty": Drawn("repetition penalty", 2, "llama", "fp32", draw=pictures.before_and_again),
    "padded_vocabulary": Drawn("padded vocabulary", 1),
    "stored_precision": Drawn("16-bit column", 0, stack="fp32", draw=pictures.over_log_prob),
    "head_precision": Drawn("bf16 head", 0, stack="fp32", draw=pictures.over_log_prob),
    "fp8_weights": Drawn("fp8 weights", 0, stack="fp32", draw=pictures.at_each_position),
    "fp8_cache": Drawn("fp8 cache", 0, stack="fp32", draw=pictures.at_each_position),
    "stale_weights": Drawn("stale weights", 1),
    "staleness": Drawn("staleness", 0),
    "worker": Drawn("one worker", 1),
    "weights_changed_in_response": Drawn(
        "weights that changed in the response", 1, "moe", draw=pictures.over_the_response
    ),
    "stale_prefix": Drawn("stale prefix cache", 0),
    "adapter": Drawn("adapter", 1),
    "head": Drawn("stale head", 0, draw=pictures.token_again),
    "vocabulary_rows": Drawn("rows of the vocabulary", 0, "moe", draw=pictures.ids_by_gap),
    "norm": Drawn("norm epsilon", 0, draw=pictures.along_the_sequence),
    "dropout": Drawn("dropout", 0, draw=pictures.token_again),
    "rope": Drawn("rope base", 0),
    "attention_scale": Drawn("attention scale", 0, "moe", draw=pictures.along_the_sequence),
    "window": Drawn("sliding window", 1),
    "chunked_prefill": Drawn("chunk boundary", 1),
    "context": Drawn("another template", 2, "moe", draw=pictures.along_the_sequence),
    "packing": Drawn("packing without a mask", 0),
    "padding": Drawn("left padding attended to", 1),
    "routing": Drawn("routing flips", 2, "moe", draw=pictures.gap_of_tokens),
    "routing_replay": Drawn("routes of another row", 0, "moe", draw=pictures.one_response_each),
    "expert": Drawn("one wrong expert", 1, "moe", "fp32", draw=pictures.gap_of_tokens),
}


def case(drawn: Drawn) -> tuple[TokenEvidence, float]:
    """The sampled tokens and metadata of a case, made first where it is not in the cache, and its severity."""
    key = Key("development", drawn.model, drawn.stack, drawn.plant, drawn.number)
    make.make([key], make.CACHE, 1)
    evidence, truth = store.read(key, make.CACHE)
    return evidence.but(top=None, full=None, head_VH=None), truth.severity


def draw(cause: str) -> Said:
    """Write the plot of a cause. What is returned is what can be said of it."""
    evidence, picture, said = measured(cause) if cause in MEASURED else planted(cause)
    svg = picture_svg(thinned(picture), cause, causes()[cause].title)
    (PLOTS / f"{cause}.svg").write_text(alone(svg) + "\n", encoding="utf-8")
    of_both = {
        "tokens": evidence.tokens,
        "responses": evidence.sequences,
        "x": picture.x_label,
        "y": picture.y_label,
    }
    return of_both | said


def planted(cause: str) -> tuple[TokenEvidence, Picture, Said]:
    drawn = DRAWN[cause]
    evidence, severity = case(drawn)
    answer = answer_of(peel(evidence))
    if drawn.draw is not None:
        picture = drawn.draw(Sample.of(evidence))
    else:
        shown = [named.finding.picture for named in answer.named if cause in named.causes and named.finding.picture]
        if not shown:
            raise SystemExit(f"{cause}: no detector draws a picture of it any more; choose how it is drawn")
        picture = shown[0]
    said = summary(answer)
    of_case: Said = {
        "plant": drawn.plant,
        "model": drawn.model,
        "stack": drawn.stack,
        "number": drawn.number,
        "severity": float(f"{severity:.3g}"),
        "of_the_finding": drawn.draw is None,
        "what": said.what,
        "why": said.why,
    }
    return evidence, picture, of_case


def measured(cause: str) -> tuple[TokenEvidence, Picture, Said]:
    evidence = pair(cause, make.CACHE)
    gap_N = np.abs(evidence.logp_pi_N - evidence.logp_mu_N)
    shown = {"differing": np.mean(gap_N > 0), "mean": gap_N.mean(), "largest": gap_N.max()}
    of_pair: Said = {"measured": MEASURED[cause].what}
    of_pair |= {name: float(f"{value:.3g}") for name, value in shown.items()}
    return evidence, MEASURED[cause].draw(Sample.of(evidence)), of_pair


def thinned(picture: Picture) -> DiagnosisPicture:
    """As a report has it, with no more points than a small file can hold, evenly chosen."""
    most = _POINTS // max(1, len(picture.series))
    step = {name: max(1, -(-len(x) // most)) for name, x, _ in picture.series}
    series = tuple((name, x[:: step[name]], y[:: step[name]]) for name, x, y in picture.series)
    fields = dataclasses.asdict(picture) | {"series": series}
    return DiagnosisPicture(finding=0, **fields)


def alone(svg: str) -> str:
    """An SVG of a report's page as a file of its own."""
    opening, _, content = svg.partition(">")
    opening = opening.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" {_SIZE}', 1)
    return f"{opening}>{_COLORS}{content}"


def main(wanted: Sequence[str]) -> None:
    file = PLOTS / "plots.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for cause in wanted or (*DRAWN, *MEASURED):
        known[cause] = draw(cause)
    ordered = {cause: known[cause] for cause in causes() if cause in known}
    file.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
