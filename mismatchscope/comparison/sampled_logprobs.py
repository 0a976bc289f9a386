"""The log-probs of the drawn tokens of one trace, looked up while another is read.

Shapes: N rows that are looked up.
"""

from __future__ import annotations

import numpy as np

from ..traces.reader import Trace


class SampledLogprobs:
    """Reads `logprob` from front to back; memory holds what lies between two look-ups."""

    def __init__(self, trace: Trace) -> None:
        self._batches = trace.iter_tokens(["sequence_id", "position", "logprob"])
        self._place, self._logp = np.zeros(0, dtype=np.int64), np.zeros(0)

    def at(self, sequence_id_N: np.ndarray, position_N: np.ndarray) -> np.ndarray:
        """The log-prob of each row, NaN where the trace has none; rows rise, in a call and from call to call."""
        place_N = place_of(sequence_id_N, position_N)
        places, logps = [self._place], [self._logp]
        while not len(places[-1]) or places[-1][-1] < place_N[-1]:
            batch = next(self._batches, None)
            if batch is None:
                break
            places.append(place_of(*(batch[name].to_numpy() for name in ("sequence_id", "position"))))
            logps.append(batch["logprob"].to_numpy(zero_copy_only=False))
        place, logp = np.concatenate(places), np.concatenate(logps)
        at_N = np.searchsorted(place, place_N)
        found_N = at_N < len(place)
        found_N[found_N] = place[at_N[found_N]] == place_N[found_N]
        logp_N = np.full(len(place_N), np.nan)
        logp_N[found_N] = logp[at_N[found_N]]
        self._place, self._logp = place[at_N[-1] :], logp[at_N[-1] :]
        return logp_N


def place_of(sequence_id_N: np.ndarray, position_N: np.ndarray) -> np.ndarray:
    """Each row as one number that rises; positions are below 2³²."""
    return sequence_id_N.astype(np.int64) << 32 | position_N
