"""Claim: the alarms `temperature` and `mean_ratio` are raised by the faults they name, and by no others.

    python benchmarks/calibration_alarms.py

Simulates audits of sampled tokens with one planted fault, or none (`alarm_designs`), and counts how often each
alarm is raised. Prints the table and writes it to benchmarks/results/calibration_alarms.md and .json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from alarm_designs import DESIGNS, INVISIBLE, SOUND, TEMPERATURES, TOKENS, audit

from mismatchscope.comparison.context import Context
from mismatchscope.comparison.law_alarms import ratio_alarm, temperature_alarm
from mismatchscope.comparison.pair import PolicyPair
from mismatchscope.comparison.states import States
from mismatchscope.comparison.statistics import PairStatistics

PROMPTS = (8, 16, 64)


@dataclass(frozen=True)
class Row:
    """The share of `audits` that raised each alarm."""

    design: str
    prompts: int
    audits: int
    temperature: float
    mean_ratio: float


def calibrate(design: str, prompts: int, audits: int, seed: int) -> Row:
    rng = np.random.default_rng([seed, prompts, *design.encode()])
    temperature = mean_ratio = 0
    for _ in range(audits):
        pair = sampled_pair(*audit(design, rng, prompts))
        temperature += any(temperature_alarm(pair))
        mean_ratio += any(ratio_alarm(pair))
    return Row(design, prompts, audits, temperature / audits, mean_ratio / audits)


def sampled_pair(filed: tuple[np.ndarray, np.ndarray], prompt_N: np.ndarray) -> PolicyPair:
    """A pair with the statistics of these columns, one sequence a prompt."""
    prompt_id_S, length_S = np.unique(prompt_N, return_counts=True)
    statistics = PairStatistics()
    statistics.add(
        States(
            sequence_id_S=prompt_id_S,
            prompt_id_S=prompt_id_S,
            cluster_S=prompt_id_S,
            whole_S=np.ones(len(prompt_id_S), dtype=bool),
            length_S=length_S,
            position_N=np.tile(np.arange(TOKENS), len(prompt_id_S)),
            token_id_N=np.zeros(len(prompt_N), dtype=np.int64),
            logp_mu_N=filed[0],
            logp_pi_N=filed[1],
            recorded_pi_N=filed[1],
            certified_lower_N=None,
            tv_upper_N=None,
            columns={},
            topk=False,
        )
    )
    return PolicyPair(Context(), statistics)


def table(rows: list[Row]) -> str:
    sizes = sorted({row.prompts for row in rows})
    by_design = {(row.design, row.prompts): row for row in rows}
    heads = [f"{alarm}, {size} prompts" for alarm in ("`temperature`", "`mean_ratio`") for size in sizes]
    lines = ["| design | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for design in dict.fromkeys(row.design for row in rows):
        found = [by_design[design, size] for size in sizes]
        shares = [row.temperature for row in found] + [row.mean_ratio for row in found]
        lines.append(f"| {design} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")
    return "\n".join(lines)


def document(rows: list[Row], seconds: float) -> str:
    false = max(row.temperature for row in rows if row.design in SOUND)
    found = min(row.temperature for row in rows if row.design in TEMPERATURES)
    others = [row for row in rows if row.design not in {*SOUND, *TEMPERATURES, *INVISIBLE}]
    wrong = max(others, key=lambda row: row.temperature)
    false_ratio = max(row.mean_ratio for row in rows if row.design in SOUND)
    return f"""# How often two alarms are raised

`python benchmarks/calibration_alarms.py`, {date.today()}, Python {platform.python_version()}, numpy
{np.__version__}, {platform.machine()}, {seconds:.0f} s. {rows[0].audits} audits a row, of {TOKENS} tokens a prompt.

The share of audits that raised the alarm. Sound pairs come first, then temperatures, then other faults. The two
last rows cannot be seen in two columns of sampled tokens, or hardly: raw log-probs on both sides agree whatever
the temperature of the sampler was.

- `temperature` on a sound pair: at most {false:.3f}. On a planted temperature: at least {found:.3f}.
- `temperature` on another fault: at most {wrong.temperature:.3f} ({wrong.design}, {wrong.prompts} prompts).
- `mean_ratio` on a sound pair: at most {false_ratio:.3f}.

{table(rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audits", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    started = time.monotonic()
    rows = [calibrate(design, size, options.audits, options.seed) for design in DESIGNS for size in PROMPTS]
    text = document(rows, time.monotonic() - started)
    print(text)
    (options.output / "calibration_alarms.md").write_text(text, encoding="utf-8")
    (options.output / "calibration_alarms.json").write_text(
        json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
