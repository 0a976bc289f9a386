"""An alignment read to its end, and everything that it says of full evidence."""

from __future__ import annotations

from typing import Any

import numpy as np

from mismatchscope.alignment.alignment import Alignment
from mismatchscope.traces import Trace


def align(behavior: Trace, reference: Trace) -> Alignment:
    """The alignment after all of its rows were read: only then has it seen everything."""
    alignment = Alignment(behavior, reference)
    for block in alignment.blocks():
        for _ in block.full_pieces():
            pass
    return alignment


Rows = dict[tuple[int, int], dict[str, Any]]


def by_row(alignment: Alignment, rows: int = 65536, max_bytes: int = 2**26) -> Rows:
    """Everything the blocks say of full evidence, one entry a row."""
    found: Rows = {}
    for block in alignment.blocks(rows):
        full = {
            int(row): (logp_mu_MV[at], logp_pi_MV[at])
            for index_M, logp_mu_MV, logp_pi_MV in block.full_pieces(max_bytes)
            for at, row in enumerate(index_M)
        }
        sequence_id_N, prompt_id_N = (
            np.repeat(ids_S, block.length_S) for ids_S in (block.sequence_id_S, block.prompt_id_S)
        )
        for n in range(len(block.token_id_N)):
            key = (int(sequence_id_N[n]), int(block.position_N[n]))
            assert key not in found
            found[key] = {
                "prompt": int(prompt_id_N[n]),
                "token": int(block.token_id_N[n]),
                "logp": (block.logp_mu_N[n], block.logp_pi_N[n]),
                "full": full.get(n),
            }
    assert list(found) == sorted(found)
    return found
