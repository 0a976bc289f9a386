"""Which sequences have the same prompt: the unit of independence is the prompt, and the prompt is its tokens.

Shapes: S sequences, G distinct (prompt id, prompt) pairs among them.
"""

from __future__ import annotations

import numpy as np

from ..measures.prompt_hash import labels_of_ids, labels_of_tokens
from ..traces.reader import BATCH_ROWS, Trace
from .cursors import Responses, SequenceCursor


class PromptClusters:
    """Gives every sequence the label of its prompt, block by block.

    Equal prompt tokens are one cluster under whatever ids; so are the rows of one id, whose prompts may grow turn
    by turn. A row without prompt tokens (a log that has none) goes by its id alone. Labels depend on the tokens, so
    that the same prompt has the same label in any trace.
    """

    def __init__(self) -> None:
        self._of_tokens: dict[int, int] = {}
        self._of_id: dict[int, int] = {}

    @property
    def ids(self) -> int:
        """How many prompt ids have been seen."""
        return len(self._of_id)

    @property
    def prompts(self) -> int:
        """How many clusters have been seen."""
        return len(set(self._of_id.values()))

    def labels(self, responses: Responses) -> np.ndarray:
        """int64 [S]."""
        key_S = prompt_keys(responses)
        pair_G, first_G, inverse_S = np.unique(
            np.column_stack([responses.prompt_id_S, key_S]), axis=0, return_index=True, return_inverse=True
        )
        label_G = np.empty(len(pair_G), dtype=np.int64)
        has_tokens_G = responses.prompt_length_S[first_G] > 0
        for at in np.argsort(first_G).tolist():
            prompt_id, key = pair_G[at].tolist()
            label = self._of_tokens.get(key) if has_tokens_G[at] else None
            label = self._of_id.get(prompt_id, key) if label is None else label
            self._of_id.setdefault(prompt_id, label)
            if has_tokens_G[at]:
                self._of_tokens.setdefault(key, label)
            label_G[at] = label
        return label_G[inverse_S.ravel()]


class PromptsOf(PromptClusters):
    """The prompts of a trace by their ids, for sequences that have something else before their responses."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        own, sequences = PromptClusters(), SequenceCursor(trace, BATCH_ROWS)
        while (responses := sequences.next()) is not None:
            own.labels(responses)
        self._given = own._of_id

    def labels(self, responses: Responses) -> np.ndarray:
        """int64 [S]."""
        ids = responses.prompt_id_S.tolist()
        self._of_id |= {prompt_id: self._given[prompt_id] for prompt_id in ids}
        return np.array([self._of_id[prompt_id] for prompt_id in ids], dtype=np.int64)


def prompt_keys(responses: Responses) -> np.ndarray:
    """The label of the prompt tokens of each sequence, int64 [S]; of its prompt id where it has no tokens."""
    return np.where(
        responses.prompt_length_S > 0,
        labels_of_tokens(responses.prompt_P, responses.prompt_length_S),
        labels_of_ids(responses.prompt_id_S),
    )
