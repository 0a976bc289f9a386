"""Faults of how log-probs are written down: their values, and which token they stand at."""

from __future__ import annotations

import numpy as np
from bench import Bench, Columns
from plants import plant

TOOL_RUN = (4, 14)


@plant("16-bit column", "stored_precision", kind="log")
def stored_in_16_bits(bench: Bench, strength: float) -> None:
    import torch

    side, dtype = bench.rng.choice(["mu", "pi"]), [torch.bfloat16, torch.float16][bench.rng.integers(2)]

    def edit(columns: Columns) -> None:
        column_N = columns.side(side)
        column_N[:] = torch.from_numpy(column_N).to(dtype).double().numpy()

    bench.edits.append(edit)


@plant("numbers that are none", "not_finite", kind="log")
def not_finite(bench: Bench, strength: float) -> None:
    side, value = bench.rng.choice(["mu", "pi"]), bench.rng.choice([np.nan, -np.inf, np.inf])
    share = float(np.exp(bench.rng.uniform(np.log(0.002), np.log(0.1))))

    def edit(columns: Columns) -> None:
        column_N = columns.side(side)
        column_N[bench.rng.choice(len(column_N), max(1, round(share * len(column_N))), replace=False)] = value

    bench.edits.append(edit)


@plant("filled with zeros", "filler", kind="log")
def filler(bench: Bench, strength: float) -> None:
    """Missing log-probs became 0, or another number that stands for nothing: the last tokens of turns, or any."""
    share = float(np.exp(bench.rng.uniform(np.log(0.01), np.log(0.3))))
    value = bench.rng.choice([0.0, 0.0, 0.0, -100.0, -9999.0])
    at_ends = bench.rng.random() < 0.5

    def edit(columns: Columns) -> None:
        if at_ends:
            last_N = np.append(np.diff(columns.sequence_N) > 0, True)
            chosen_N = last_N | np.append(last_N[1:], False)
        else:
            chosen_N = bench.rng.random(len(columns.mu_N)) < share
        columns.mu_N[chosen_N] = value

    bench.edits.append(edit)


@plant("tool output in the mask", "mask", "filler", kind="log")
def tool_output(bench: Bench, strength: float) -> None:
    """Runs of text that nobody sampled. π finds them all but impossible; μ has zeros there, or figures of other
    tokens."""
    zeros = bench.rng.random() < 0.5
    affected_S = bench.some(0.2, 0.7)

    def edit(columns: Columns) -> None:
        usual_N = columns.mu_N.copy()
        for sequence in np.flatnonzero(affected_S):
            tokens = columns.tokens_of(int(sequence))
            length = min(int(bench.rng.integers(*TOOL_RUN)), len(tokens) - 2)
            if length < 2:
                continue
            first = int(bench.rng.integers(1, len(tokens) - length))
            run = tokens[first : first + length]
            foreign = bench.rng.choice(columns.token_N, length)
            columns.token_N[run] = foreign
            columns.previous_N[run[1:]] = foreign[:-1]
            columns.pi_N[run] = columns.pi_NV[run, foreign]
            columns.mu_N[run] = 0.0 if zeros else bench.rng.choice(usual_N, length)

    bench.edits.append(edit)


@plant("the likeliest token's", "top1_logprob", kind="log")
def top1(bench: Bench, strength: float) -> None:
    side = bench.rng.choice(["mu", "pi"])

    def edit(columns: Columns) -> None:
        rows_NV = columns.mu_NV if side == "mu" else columns.pi_NV
        columns.side(side)[:] = rows_NV.max(1)

    bench.edits.append(edit)


@plant("probabilities", "probabilities", kind="log")
def probabilities(bench: Bench, strength: float) -> None:
    side, negated = bench.rng.choice(["mu", "pi"]), bench.rng.random() < 0.5

    def edit(columns: Columns) -> None:
        column_N = columns.side(side)
        column_N[:] = -column_N if negated else np.exp(column_N)

    bench.edits.append(edit)


@plant("off by one", "off_by_one", kind="log")
def off_by_one(bench: Bench, strength: float) -> None:
    """A column is moved by a token or two, in all responses or in some; what has no partner is left out."""
    side, shift = bench.rng.choice(["mu", "pi"]), int(bench.rng.choice([-2, -1, -1, 1, 1, 2]))
    affected_S = np.ones(bench.sequences, bool) if bench.rng.random() < 0.5 else bench.some(0.1, 0.6)

    def edit(columns: Columns) -> None:
        source_N, kept_N = np.arange(len(columns.mu_N)), np.ones(len(columns.mu_N), bool)
        for sequence in np.flatnonzero(affected_S):
            tokens = columns.tokens_of(int(sequence))
            if len(tokens) <= abs(shift):
                continue
            within = tokens[max(0, -shift) : len(tokens) - max(0, shift)]
            source_N[within] = within + shift
            kept_N[np.setdiff1d(tokens, within)] = False
        columns.move(side, source_N)
        columns.keep(kept_N)

    bench.edits.append(edit)


@plant("retokenised", "retokenised", kind="log")
def retokenised(bench: Bench, strength: float) -> None:
    """From a token on, one that became two or two that became one, the other side's log-probs are one place off."""
    side = bench.rng.choice(["mu", "pi"])
    affected_S = bench.some(0.3, 0.9)

    def edit(columns: Columns) -> None:
        source_N, kept_N = np.arange(len(columns.mu_N)), np.ones(len(columns.mu_N), bool)
        for sequence in np.flatnonzero(affected_S):
            tokens = columns.tokens_of(int(sequence))
            if len(tokens) < 8:
                continue
            place, step = int(bench.rng.integers(2, len(tokens) - 4)), int(bench.rng.choice([-1, 1]))
            after = tokens[place:] if step < 0 else tokens[place:-1]
            source_N[after] = after + step
            kept_N[tokens[-1]] = step < 0
        columns.move(side, source_N)
        columns.keep(kept_N)

    bench.edits.append(edit)


@plant("rows of other responses", "row_order", kind="log")
def row_order(bench: Bench, strength: float) -> None:
    """Some rows hold each other's log-probs; where they differ in length, the longer one is cut."""
    affected_S = np.ones(bench.sequences, bool) if bench.rng.random() < 0.4 else bench.some(0.1, 0.6)

    def edit(columns: Columns) -> None:
        affected = np.flatnonzero(affected_S)
        order = np.argsort(np.bincount(columns.sequence_N)[affected], kind="stable")
        affected = affected[order] if bench.rng.random() < 0.5 else bench.rng.permutation(affected)
        source_N, kept_N = np.arange(len(columns.mu_N)), np.ones(len(columns.mu_N), bool)
        for sequence, other in zip(affected, np.roll(affected, 1), strict=True):
            tokens, theirs = columns.tokens_of(int(sequence)), columns.tokens_of(int(other))
            shared = min(len(tokens), len(theirs))
            source_N[tokens[:shared]] = theirs[:shared]
            kept_N[tokens[shared:]] = False
        columns.move("mu", source_N)
        columns.keep(kept_N)

    bench.edits.append(edit)
