"""The errors of two policies against a third one, from the three pairs that they make."""

from __future__ import annotations

import numpy as np

from ..measures.results import ThirdParty
from ..measures.third_party import third_party
from .pair import Pair


def related_errors(setting: Pair, against: Pair, between: Pair) -> ThirdParty | None:
    """Of `setting` and `against`, each a pair with the third policy, and the pair that is `between` the two.

    None where the three are not of the same tokens, or there are no errors to relate.
    """
    pairs = (setting, against, between)
    first = setting.statistics
    prompts = slice(len(first.prompts))  # there may be room for more
    by_prompt = [
        each.statistics.in_rows_of(first, each.statistics.sums["k2"]).by_cluster(prompts.stop) for each in pairs
    ]
    count_3C = np.stack([count_C[prompts] for _, count_C in by_prompt])
    if (count_3C != count_3C[0]).any():
        return None
    square_3C = 2 * np.stack([half_square_C[prompts] for half_square_C, _ in by_prompt])
    return third_party(square_3C, count_3C[0], confidence=setting.context.confidence)
