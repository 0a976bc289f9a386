"""Claims: in columns that a sound sampler and trainer wrote a filler is named in at most 1 % of audits, whether
they are bfloat16, truncated or greedy; planted fillers are named in 95 % or more.

    python benchmarks/calibration_fillers.py [--audits N]

Simulates the columns of both sides. Three tokens in five are nearly certain, in stretches, as responses of trained
models have them; the others have log-probs of exponential law. The two sides differ by noise that is larger at rare
tokens. Writes benchmarks/results/calibration_fillers.md and .json.

Shapes: S responses, T tokens of one.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mismatchscope.comparison.fillers import Fillers
from mismatchscope.comparison.states import States

S, T = 32, 200
STAYS = 0.85  # the probability that a certain token follows a certain one
RESULT = Path(__file__).parent / "results" / "calibration_fillers"

Columns = tuple[np.ndarray, np.ndarray]  # μ and π, [S, T]


class Design(NamedTuple):
    """`sampler_known`: the manifest says that the sampler is neither greedy nor truncated. `kind` is the filler
    that was planted, "rounded" for a column of less precision; None where everything is sound."""

    draw: Callable[[np.random.Generator], Columns]
    kind: str | None = None
    sampler_known: bool = False


def sound(rng: np.random.Generator) -> Columns:
    certain_ST = np.empty((S, T), dtype=bool)
    certain_ST[:, 0] = rng.random(S) < 0.6
    for t in range(1, T):
        stays_S, enters_S = rng.random(S) < STAYS, rng.random(S) < 1.5 * (1 - STAYS)
        certain_ST[:, t] = np.where(certain_ST[:, t - 1], stays_S, enters_S)
    logp_ST = np.where(certain_ST, -(10.0 ** rng.uniform(-6, -2, (S, T))), -rng.exponential(1.0, (S, T)) - 0.01)
    noise_ST = rng.normal(0, 0.03, (S, T)) * -np.expm1(logp_ST)
    return as_float32(logp_ST), as_float32(np.minimum(logp_ST + noise_ST, -1e-9))


def as_float32(logp_ST: np.ndarray) -> np.ndarray:
    return logp_ST.astype(np.float32).astype(np.float64)


def rounded(logp_ST: np.ndarray, bits: int) -> np.ndarray:
    """To so many significant bits."""
    fraction_ST, exponent_ST = np.frexp(logp_ST)
    return np.ldexp(np.rint(np.ldexp(fraction_ST, bits)), exponent_ST - bits)


def truncated(rng: np.random.Generator, top_p: float) -> Columns:
    """A token likelier than `top_p` is kept alone; elsewhere the kept mass lies between `top_p` and 1."""
    mu_ST, pi_ST = sound(rng)
    kept_ST = rng.uniform(top_p, 1.0, mu_ST.shape)
    return np.where(mu_ST > np.log(top_p), 0.0, np.minimum(mu_ST - np.log(kept_ST), 0.0)), pi_ST


def greedy(rng: np.random.Generator, scale: float) -> Columns:
    """The likeliest token has log-prob 0; π gives it what it has."""
    _, pi_ST = sound(rng)
    return np.zeros_like(pi_ST), pi_ST * scale


def bf16_logits(rng: np.random.Generator) -> Columns:
    """A log-softmax in bfloat16, of logits near 20: μ lies on eighths, so that nearly certain tokens have 0."""
    mu_ST, pi_ST = sound(rng)
    return np.rint(mu_ST * 8) / 8, pi_ST


def with_tool_text(rng: np.random.Generator, side: int, share: float) -> Columns:
    """That share of the responses holds 15 to 40 tokens of a tool: 0 on one side, scored on the other."""
    columns = sound(rng)
    for s in np.flatnonzero(rng.random(S) < share):
        length, begin = rng.integers(15, 40), rng.integers(0, T - 40)
        tool = slice(begin, begin + length)
        columns[side][s, tool] = 0.0
        columns[1 - side][s, tool] = -rng.exponential(2.0, length)
    return columns


def with_values(rng: np.random.Generator, value: float, share: float) -> Columns:
    mu_ST, pi_ST = sound(rng)
    return np.where(rng.random(mu_ST.shape) < share, value, mu_ST), pi_ST


def with_tails(rng: np.random.Generator) -> Columns:
    """A third of the responses ends in one value 10 to 60 times."""
    mu_ST, pi_ST = sound(rng)
    for s in np.flatnonzero(rng.random(S) < 1 / 3):
        tail = slice(T - rng.integers(10, 60), T)
        pi_ST[s, tail] = -11.93
    return mu_ST, pi_ST


DESIGNS: dict[str, Design] = {
    "float32 on both sides": Design(sound, sampler_known=True),
    "both sides on the bfloat16 grid": Design(
        lambda rng: tuple(rounded(x, 8) for x in sound(rng)), sampler_known=True
    ),
    "log-softmax in bfloat16": Design(bf16_logits, sampler_known=True),
    "top-p 0.9": Design(lambda rng: truncated(rng, 0.9)),
    "top-p 0.5": Design(lambda rng: truncated(rng, 0.5)),
    "greedy": Design(lambda rng: greedy(rng, 1.0)),
    "greedy, uncertain": Design(lambda rng: greedy(rng, 4.0)),
    "bfloat16 on one side": Design(lambda rng: (rounded((c := sound(rng))[0], 8), c[1]), "rounded"),
    "float16 on one side": Design(lambda rng: ((c := sound(rng))[0], rounded(c[1], 11)), "rounded"),
    "tool text as 0 in μ": Design(lambda rng: with_tool_text(rng, 0, 0.3), "zeros"),
    "tool text as 0 in π": Design(lambda rng: with_tool_text(rng, 1, 0.3), "zeros"),
    "tool text as 0 in μ, most responses": Design(lambda rng: with_tool_text(rng, 0, 0.9), "zeros"),
    "-9999 in 0.1 % of μ": Design(lambda rng: with_values(rng, -9999.0, 0.001), "whole_numbers"),
    "-100 in 1 % of μ": Design(lambda rng: with_values(rng, -100.0, 0.01), "whole_numbers"),
    "a constant to the end of π": Design(with_tails, "tails"),
}


def states_of(mu_ST: np.ndarray, pi_ST: np.ndarray) -> States:
    """What a comparison of these columns measures of them."""
    ids_S, length_S = np.arange(len(mu_ST)), np.full(len(mu_ST), mu_ST.shape[1])
    return States(
        sequence_id_S=ids_S,
        prompt_id_S=ids_S,
        cluster_S=ids_S,
        whole_S=np.ones(len(ids_S), dtype=bool),
        length_S=length_S,
        position_N=np.tile(np.arange(mu_ST.shape[1]), len(ids_S)),
        token_id_N=np.zeros(mu_ST.size, dtype=np.int32),
        logp_mu_N=mu_ST.ravel(),
        logp_pi_N=pi_ST.ravel(),
        recorded_pi_N=pi_ST.ravel(),
        certified_lower_N=None,
        tv_upper_N=None,
        columns={},
        topk=False,
    )


class Row(NamedTuple):
    """In what share of the audits a filler was named, the planted one was, and a rounded column was."""

    design: str
    planted: str | None
    filler: float
    right: float | None
    rounded: float


def simulate(name: str, audits: int, seed: int = 0) -> Row:
    """One row of the table."""
    design, named, right, grids = DESIGNS[name], 0, 0, 0
    for audit in range(audits):
        fillers = Fillers()
        fillers.add(states_of(*design.draw(np.random.default_rng([seed, audit]))))
        kinds = {found.kind for found in fillers.found(zeros_may_be_sampled=not design.sampler_known)}
        on_grid = fillers.rounded() is not None
        named += bool(kinds)
        grids += on_grid
        right += on_grid and not kinds if design.kind == "rounded" else design.kind in kinds
    return Row(name, design.kind, named / audits, right / audits if design.kind else None, grids / audits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audits", type=int, default=500, help="simulated a design")
    audits = parser.parse_args().audits
    rows = [simulate(name, audits) for name in DESIGNS]
    lines = [
        "# Fillers in columns of log-probs",
        "",
        f"Made by `python benchmarks/calibration_fillers.py` on {date.today()}: {audits} audits a design,",
        f"{S} responses of {T} tokens; {platform.machine()}, Python {platform.python_version()},",
        f"numpy {np.__version__}.",
        "",
        "| columns | planted | a filler named | the planted one named | a rounded column named |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row.design} | {row.planted or 'nothing'} | {row.filler:.1%} | "
            f"{'' if row.right is None else f'{row.right:.1%}'} | {row.rounded:.1%} |"
            for row in rows
        ),
        "",
        "Claims: where nothing but rounding was planted, a filler is named in at most 1 % of audits; what was",
        "planted is named in at least 95 %.",
    ]
    RESULT.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    RESULT.with_suffix(".json").write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
