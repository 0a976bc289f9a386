"""The same models in bfloat16 of the machine's own, with the attention of transformers: a kernel nobody here wrote.

It makes sound pairs of the held-out part alone, since it is slow, and shows whether rounding by hand is like it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from architectures import PAD, load
from kernels import Kernel, Precision, rounded
from policy import Rows

NATIVE = Kernel("native", "stored")
BATCH = 24


def native_logp(model: str, cache: Path, rows: Rows, head: Precision) -> np.ndarray:
    """[N, V] float32: log-probs of every id at every response token."""
    network = load(model, cache).network.to(torch.bfloat16)
    weight = network.get_output_embeddings().weight.float()
    blocks = []
    with torch.inference_mode():
        for first in range(0, len(rows.ids_S), BATCH):
            ids_S, start_S = rows.ids_S[first : first + BATCH], rows.start_S[first : first + BATCH]
            ids_BT = torch.full((len(ids_S), max(map(len, ids_S))), PAD)
            for b, ids in enumerate(ids_S):
                ids_BT[b, : len(ids)] = torch.tensor(ids)
            hidden_BTH = network.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state.float()
            for states, ids, start in zip(hidden_BTH, ids_S, start_S, strict=True):
                blocks.append(rounded(states[start - 1 : len(ids) - 1] @ weight.T, head).log_softmax(-1))
    return torch.cat(blocks).numpy()
