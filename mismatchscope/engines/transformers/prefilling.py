"""Teacher forcing as trainers do it: one forward over whole sequences, log-probs by chunks of positions.

Shapes: B rows and T columns of the micro-batch, N scored positions of all its sequences, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .causal_lm import CausalLM


@dataclass(frozen=True)
class MicroBatch:
    """Sequences laid out for one forward, and where the states of their response tokens ended up in it.

    `spans` has where each sequence lies in the rows put end to end.
    """

    input_ids_BT: np.ndarray
    mask_BT: np.ndarray | None  # None when packed: sequences are told apart by their positions alone
    position_ids_BT: np.ndarray
    row_N: np.ndarray
    column_N: np.ndarray
    sequence_N: np.ndarray
    position_N: np.ndarray
    spans: Sequence[slice]


def lay_out(prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], padding: str) -> MicroBatch:
    """One row a sequence, padded `right` or `left`; or all in one row, `packed`, with positions that restart."""
    sequences = [np.concatenate(pair) for pair in zip(prompts, responses, strict=True)]
    lengths = np.array([len(sequence) for sequence in sequences])
    packed = padding == "packed"
    width = lengths.sum() if packed else lengths.max()
    shape_BT = (1 if packed else len(sequences), width)
    input_ids_BT = np.zeros(shape_BT, dtype=np.int64)
    mask_BT = np.zeros(shape_BT, dtype=np.int64)
    position_ids_BT = np.zeros(shape_BT, dtype=np.int64)
    places, spans = [], []
    for index, (sequence, response) in enumerate(zip(sequences, responses, strict=True)):
        row = 0 if packed else index
        start = {"packed": lengths[:index].sum(), "left": width - len(sequence), "right": 0}[padding]
        span = slice(start, start + len(sequence))
        spans.append(slice(row * width + span.start, row * width + span.stop))
        input_ids_BT[row, span] = sequence
        mask_BT[row, span] = 1
        position_ids_BT[row, span] = np.arange(len(sequence))
        # The state that predicts a token is the one before it.
        columns = np.arange(span.stop - len(response), span.stop) - 1
        places.append([np.full_like(columns, row), columns, np.full_like(columns, index), np.arange(len(response))])
    row_N, column_N, sequence_N, position_N = np.concatenate(places, axis=1)
    return MicroBatch(
        input_ids_BT, None if packed else mask_BT, position_ids_BT, row_N, column_N, sequence_N, position_N, spans
    )


def prefill(model: CausalLM, batch: MicroBatch, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """The logits of the scored positions, `chunk` of them at a time (0: all at once), as (slice of N, [n, V])."""
    hidden_NH = hidden_states(model, batch)[torch.from_numpy(batch.row_N), torch.from_numpy(batch.column_N)]
    for start in range(0, len(hidden_NH), chunk or len(hidden_NH)):
        part = slice(start, start + (chunk or len(hidden_NH)))
        with torch.inference_mode():
            logits = model.logits(hidden_NH[part])
        yield part, logits


def hidden_states(model: CausalLM, batch: MicroBatch) -> Tensor:
    """The last hidden states [B, T, H] of all tokens, as a trainer's forward computes them."""

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(model.device)

    mask_BT = None if batch.mask_BT is None else on_device(batch.mask_BT)

    # A trainer's training forward builds the autograd graph, and gradient checkpointing acts in it alone.
    with torch.set_grad_enabled(model.train_mode), model.training():
        return model.hidden(on_device(batch.input_ids_BT), mask_BT, on_device(batch.position_ids_BT)).detach()
