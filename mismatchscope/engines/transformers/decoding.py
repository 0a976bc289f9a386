"""Autoregressive decoding in dynamic batches: left-padded prompts, one token a step through a key-value cache.

A row that is finished leaves the batch at once, so the others do not pay for it. Sampling and forced decoding go
through this one loop: given the same prompts and tokens they see the same batch compositions, step by step.

Shapes: B rows still in the batch, P longest prompt, T states of a sequence, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import ModelError
from .causal_lm import CausalLM

Step = tuple[np.ndarray, int, Tensor]
"""Row numbers [B], position, logits [B, V]."""

Choose = Callable[[np.ndarray, int, Tensor], tuple[Tensor, np.ndarray]]
"""From a step, the next token of each row [B] and whether the row is finished [B]."""

Steps = Generator[Step, tuple[Tensor, np.ndarray], None]
"""Is sent what `Choose` returns."""


@torch.inference_mode()
def decode(model: CausalLM, prompts: Sequence[np.ndarray], choose: Choose) -> Iterator[tuple[int, int]]:
    """Decode until `choose` has finished every row; yields (row number, response length) as the rows finish."""
    steps = decoding_steps(model, prompts)
    step: Step | None = next(steps)
    while step is not None:
        rows_B, position, _ = step
        token_B, finished_B = choose(*step)
        yield from ((row, position + 1) for row in rows_B[finished_B].tolist())
        step = _next(steps, token_B, finished_B)


def forced(
    model: CausalLM, prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, int, Tensor, Tensor]]:
    """Decode given responses: at each step (row numbers [B], position, logits [B, V], the rows' tokens [B])."""
    length_B = np.array([len(response) for response in responses])
    token_BT = np.zeros((len(responses), length_B.max()), dtype=np.int64)
    for token_T, response in zip(token_BT, responses, strict=True):
        token_T[: len(response)] = response
    steps = decoding_steps(model, prompts)
    step: Step | None = next(steps)
    while step is not None:
        rows_B, position, logits_BV = step
        token_B = torch.from_numpy(token_BT[rows_B, position]).to(logits_BV.device)
        yield rows_B, position, logits_BV, token_B
        step = _next(steps, token_B, position + 1 >= length_B[rows_B])


@torch.inference_mode()
def decoding_steps(model: CausalLM, prompts: Sequence[np.ndarray]) -> Steps:
    """The loop itself, which ends when every row has been said to be finished."""
    longest = max(len(prompt) for prompt in prompts)
    input_ids_BP = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask_BP = torch.zeros_like(input_ids_BP)
    for row, prompt in enumerate(prompts):
        input_ids_BP[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask_BP[row, longest - len(prompt) :] = 1
    input_ids, mask = input_ids_BP.to(model.device), mask_BP.to(model.device)
    position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
    rows_B = np.arange(len(prompts))
    cache = model.new_cache()
    position = 0
    while True:
        # Recurrent layers put the mask on the columns of this step, not on all that the cache has seen.
        step_mask = mask if position == 0 or model.has_attention else None
        hidden = model.hidden(input_ids, step_mask, position_ids, cache)
        token_B, finished_B = yield rows_B, position, model.logits(hidden[:, -1])
        if finished_B.any():
            rows_B = rows_B[~finished_B]
            if not len(rows_B):
                return
            stay = torch.from_numpy(np.flatnonzero(~finished_B)).to(model.device)
            cache.reorder_cache(stay)  # of the two that select rows, the one that recurrent layers have too
            mask, position_ids, token_B = mask[stay], position_ids[stay], token_B.to(model.device)[stay]
        input_ids = token_B.to(model.device)[:, None]
        position_ids = position_ids[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows_B), 1)], dim=1)
        position += 1


def _next(steps: Steps, token_B: Tensor, finished_B: np.ndarray) -> Step | None:
    try:
        return steps.send((token_B, finished_B))
    except StopIteration:
        return None


@torch.inference_mode()
def check_decoding(model: CausalLM) -> None:
    """Decode two sequences of different lengths and compare with the whole forward of each.

    Raises `ModelError` for a model whose cache does not carry the earlier tokens.
    """
    # The first two tokens of each are its prompt.
    sequences = [np.arange(first, 5) % model.vocabulary_size for first in (1, 2)]
    decoded: list[list[Tensor]] = [[], []]

    def choose(rows_B: np.ndarray, position: int, logits_BV: Tensor) -> tuple[Tensor, np.ndarray]:
        for row, logits_V in zip(rows_B, logits_BV, strict=True):
            decoded[row].append(logits_V)
        last_B = np.array([len(sequences[row]) == 2 + position for row in rows_B])
        next_B = [0 if last else sequences[row][2 + position] for row, last in zip(rows_B, last_B, strict=True)]
        return torch.tensor(next_B), last_B

    list(decode(model, [sequence[:2] for sequence in sequences], choose))
    for sequence, logits in zip(sequences, decoded, strict=True):
        input_ids_1T = torch.from_numpy(sequence)[None].to(model.device)
        position_ids_1T = torch.arange(len(sequence), device=model.device)[None]
        whole_TV = model.logits(model.hidden(input_ids_1T, None, position_ids_1T)[0, 1:])
        if not _same_policies(torch.stack(logits), whole_TV):
            raise ModelError(
                f"{type(model.network).__name__} decodes other distributions than its own forward of the whole "
                "sequence has, so transformers does not keep its cache as mismatchscope expects",
                hint="sample from this model with another engine, for example vllm, and score it along prefill",
            )


def _same_policies(left_TV: Tensor, right_TV: Tensor) -> bool:
    """Equal but for rounding, also where that sends a token to another expert: off by half the spread at most."""
    left_TV, right_TV = (logits_TV.float().log_softmax(dim=1) for logits_TV in (left_TV, right_TV))
    spread_TV = right_TV - right_TV.mean(dim=1, keepdim=True)
    return bool((left_TV - right_TV).norm() <= 0.5 * spread_TV.norm())
