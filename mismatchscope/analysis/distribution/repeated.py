"""Which responses came before in a log: what dropping duplicates leaves out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...errors import UsageError
from ...logs.source import LogBatch
from ..rows import Rejected, blocks_of
from .duplicates import contents, rare


def repeated_ids(batches: Iterable[tuple[int, LogBatch]]) -> np.ndarray:
    """The ids, rising, of all responses of a log but the first of each content that comes more than once, int64.

    A batch comes with the number of its file. Raises `UsageError` for a log whose responses have no ids.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for file, batch in batches:
        if batch.rows.num_rows and "sequence_id" not in batch.rows.schema.names:
            raise UsageError(
                "The responses of this log have no ids by which the repeated ones could be dropped.",
                hint="analyze the files of one rank of each group that holds the same data",
            )
        for block in blocks_of(batch, Rejected(), file):
            content_S, surprise_S = contents(block)
            rare_S = rare(surprise_S)
            found.append((content_S[rare_S], block.sequence_id_S[rare_S]))
    if not found:
        return np.zeros(0, dtype=np.int64)
    content, sequence_id = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((sequence_id, content))
    content, sequence_id = content[order], sequence_id[order]
    return np.sort(sequence_id[1:][content[1:] == content[:-1]])
