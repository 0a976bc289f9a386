"""Greedy completions of the same prompts under several settings: are they the same tokens?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ..reports.pair_fields import Completions
from .plan import Setting
from .traces import ProbeTraces


def completions_of(settings: Sequence[Setting], traces: ProbeTraces) -> Completions | None:
    """Of the settings that could be run; None where fewer than two could."""
    made = [setting for setting in settings if setting in traces.traces]
    if len(made) < 2:
        return None
    by_prompt: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for setting in made:
        table = traces.traces[setting].read_sequences(["prompt_id", "response_token_ids"])
        for prompt, response in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
            by_prompt[prompt].append(np.array(response, dtype=np.int64))
    unique = [len({response.tobytes() for response in responses}) for responses in by_prompt.values()]
    first = [place for responses in by_prompt.values() if (place := first_divergence(responses)) is not None]
    return Completions(
        engine=str(made[0].spec),
        settings=[setting.label for setting in made],
        prompts=len(by_prompt),
        of_each=max(map(len, by_prompt.values())),
        diverging_prompts=len(first),
        most_unique=max(unique),
        first_divergence=min(first, default=None),
        median_divergence=float(np.median(first)) if first else None,
    )


def first_divergence(responses: Sequence[np.ndarray]) -> int | None:
    """The first position at which not all responses have the same token, or one has ended; None where all agree."""
    shortest = min(map(len, responses))
    same_T = np.all([response[:shortest] == responses[0][:shortest] for response in responses], axis=0)
    if not same_T.all():
        return int(np.argmin(same_T))
    return None if all(len(response) == shortest for response in responses) else shortest
