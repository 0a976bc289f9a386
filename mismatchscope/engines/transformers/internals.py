"""What is inside a model as transformers runs it, of whole sequences; also with another side's values put in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...records import Task
from ..common.internals import Injection, Recorder
from ..common.stage_files import internals_path, write_internals
from ..common.stages import LOGITS, asked_for
from ..common.tokenized import ScoreRequest
from .causal_lm import CausalLM
from .prefilling import hidden_states, lay_out


def record_internals(lm: CausalLM, requests: Sequence[ScoreRequest], task: Task, padding: str) -> None:
    """Read the sequences in one forward, and write a file of each into `task.parts`."""
    prompts = [request.prompt_token_ids for request in requests]
    layout = lay_out(prompts, [request.response_token_ids for request in requests], padding)
    values = other_values(Path(task.inputs), requests) if task.inputs else {}
    injection = Injection(lm.network, "transformers", values) if values else nullcontext()
    with Recorder(lm.network, "transformers", task.stages) as recorder, injection:
        hidden_BTH = hidden_states(lm, layout)
    stages = recorder.stages(layout.input_ids_BT.size)
    hidden_NH = hidden_BTH.reshape(-1, hidden_BTH.shape[-1])
    for request, rows in zip(requests, _rows(layout.mask_BT, prompts, requests), strict=True):
        own = {stage: value[rows] for stage, value in stages.items()}
        if asked_for(LOGITS, task.stages):
            with torch.inference_mode():
                own[LOGITS] = lm.logits(hidden_NH[rows.to(hidden_NH.device)]).cpu()
        write_internals(Path(task.parts), request.sequence_id, own, recorder.unmatched)


def other_values(directory: Path, requests: Sequence[ScoreRequest]) -> dict[str, Tensor]:
    """The values of another side, of one sequence: what `write_internals` wrote of it."""
    from safetensors.torch import load_file

    [request] = requests
    return load_file(internals_path(directory, request.sequence_id))


def _rows(
    mask_BT: np.ndarray | None, prompts: Sequence[np.ndarray], requests: Sequence[ScoreRequest]
) -> Iterator[Tensor]:
    """Which of the rows [B·T] are each sequence's."""
    if mask_BT is None:  # one after the other
        lengths = [
            len(prompt) + len(each.response_token_ids) for prompt, each in zip(prompts, requests, strict=True)
        ]
        yield from torch.arange(sum(lengths)).split(lengths)
    else:
        for row, mask_T in enumerate(mask_BT):
            yield torch.from_numpy(np.flatnonzero(mask_T)) + row * mask_BT.shape[1]
