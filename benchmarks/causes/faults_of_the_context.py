"""Faults of what π sees before a response: its prompt, its neighbours in a row, its padding."""

from __future__ import annotations

import numpy as np
from architectures import EOS, PAD
from bench import Bench
from plants import plant

SYSTEM_TEXT = (
    "Question: Work out the answer carefully.\nAnswer:",
    "Let us think step by step.\n",
    "Question:",
    "Good question, this is a nice one.\n",
)


@plant("BOS on one side", "context")
def bos_on_one_side(bench: Bench, strength: float) -> None:
    rows = bench.rows
    if bench.policy.model.has_bos:
        ids_S = tuple(ids[1:] for ids in rows.ids_S)
        bench.differ(bench.run, rows=type(rows)(ids_S, tuple(start - 1 for start in rows.start_S)))
    else:
        bench.differ(bench.run, rows=rows.behind([[EOS]] * bench.sequences))


@plant("BOS twice", "context", models=("llama", "neox"))
def bos_twice(bench: Bench, strength: float) -> None:
    bench.differ(bench.run, rows=bench.rows.behind([[EOS]] * bench.sequences))


@plant("another template", "context")
def another_template(bench: Bench, strength: float) -> None:
    text = bench.policy.model.ids(str(bench.rng.choice(SYSTEM_TEXT)))
    bench.differ(bench.run, rows=bench.rows.behind([text] * bench.sequences))


@plant("packing without a mask", "packing")
def packing(bench: Bench, strength: float) -> None:
    """Responses share rows in threes; all but the first see the one before them, whose positions are its own."""
    slot_S = np.arange(bench.sequences) % 3
    bench.metadata["slot"] = slot_S
    before = [bench.rows.ids_S[s - 1] if slot else () for s, slot in enumerate(slot_S)]
    bench.differ(bench.run, rows=bench.rows.behind(before, apart=True), on=slot_S > 0)


@plant("left padding attended to", "padding")
def left_padding(bench: Bench, strength: float) -> None:
    """Prompts of a batch are padded to the longest one and the mask is not passed on."""
    start_S = np.array(bench.rows.start_S)
    padding_S = start_S.max() - start_S
    bench.metadata["padding"] = padding_S
    before = [[PAD] * int(count) for count in padding_S]
    bench.differ(bench.run, rows=bench.rows.behind(before), on=padding_S > 0)
