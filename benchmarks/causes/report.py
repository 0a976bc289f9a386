"""The document of the benchmark: a part of it for each part of the cases, kept apart on disk and joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tables
from calibration_tables import made_by
from cases import Part
from levels import EXPERIMENTS, LEVELS, TITLES
from scoring import Scored

PARTS: tuple[Part, ...] = ("held-out", "development")
BEGIN, END = "<!-- {part} begins -->", "<!-- {part} ends -->"
PREAMBLE = """# Causes: what is named of planted cases

A case is a pair of policies on about 1500 tokens of 32 responses, in which one cause was planted, or two,
or none. R is the rms of z = Δ / (1 − p) over that of the same stacks without a fault; below 1.25 "ordinary
rounding" is the right answer, and cases between 1.25 and 1.5 are not counted. A cause that is named alone
and is right counts 1, one of a set of k that has it 1/k, "cannot tell" 0, a wrong one −1, and rounding that
is called a fault −2. Intervals are Wilson's at 95 %; cases share draws, so true ones are somewhat wider.
Of a quarter of the bfloat16 pairs no floor was measured at any level; at the first two there is none of any.
The held-out part has its own prompts, draws, updates of weights and seeds, and a stack (bfloat16 with
float32 heads), a model (`neox`) and a kernel that development does not have. Detectors were made and tuned on the
development part, and their records in `mismatchscope/diagnosis/precision.json` are from it. Each of its models is
judged here by the records of the others; the detectors themselves have seen it, so that its figures are the
better ones of the two. Which causes to work on was chosen with an eye on two of the three held-out cases of each;
the third was made after the last change of a detector.

"And two experiments" is of one held-out case of each cause, model and stack: the package chooses one experiment
after the other, and both policies are computed again, with the fault where it is one of an engine. What `path` and
`alone` see follows from how a fault was put in. Settings that differ, which `--confirm` tries first, are not among
the experiments here, and answers about faults of the log alone are left as they are.
"""


def write(directory: Path, part: Part, scored: Sequence[Scored], seconds: float, cases: int) -> None:
    """Put the tables of a part in its place in causes.md, and print them."""
    file = directory / "causes.md"
    text = file.read_text() if file.exists() else ""
    section = _section(part, scored, seconds, cases)
    print(section)
    kept = {name: section if name == part else _between(text, name) for name in PARTS}
    blocks = [f"{BEGIN.format(part=name)}\n{kept[name]}\n{END.format(part=name)}" for name in PARTS if kept[name]]
    file.write_text("\n".join([PREAMBLE, *blocks]) + "\n")


def _between(text: str, part: str) -> str:
    return text.partition(f"{BEGIN.format(part=part)}\n")[2].partition(f"\n{END.format(part=part)}")[0]


def _section(part: Part, scored: Sequence[Scored], seconds: float, cases: int) -> str:
    count, most = len({each.key for each in scored}), LEVELS[-1]
    made = made_by(f"causes/run.py --part {part} --cases {cases}", 0, seconds).replace(": seed 0,", ":")
    parts = [
        f"## {part.capitalize()}: {count} cases\n\n{made}",
        f"### What is to be reached\n\n{tables.against_bars(scored)}",
        f"### Faults that show, by evidence\n\n{tables.by_level(scored)}",
        f"### Pairs without a fault\n\n{tables.controls(scored)}",
        f"### Stated confidence, all levels\n\n{tables.reliability(scored)}",
    ]
    if any(each.level == EXPERIMENTS for each in scored):
        parts += [
            f"### By what was planted, after two experiments\n\n{tables.by_plant(scored, EXPERIMENTS)}",
            f"### What was said of each cause, after two experiments\n\n{tables.confusions(scored, EXPERIMENTS)}",
        ]
    for level in (LEVELS[1], most):
        title = TITLES[level].removeprefix("and ")
        parts += [
            f"### By severity, with {title}\n\n{tables.by_severity(scored, level)}",
            f"### By stack and model, with {title}\n\n{tables.by_stack(scored, level)}",
            f"### By what was planted, with {title}\n\n{tables.by_plant(scored, level)}",
            f"### What was said of each cause, with {title}\n\n{tables.confusions(scored, level)}",
            f"### Detectors, with {title}\n\n{tables.detectors(scored, level)}",
        ]
    return "\n\n".join(parts)
