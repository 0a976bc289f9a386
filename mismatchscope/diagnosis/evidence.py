"""What a diagnosis is made from: the log-probs of sampled tokens on both sides, and whatever else was seen of them.

Shapes: N tokens, S sequences, K observed ids, M tokens whose whole distributions are known, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

Array = np.ndarray
Level = Literal["sampled", "top-k", "full"]


@dataclass(frozen=True)
class Floor:
    """What ordinary rounding does to this pair of policies: the rms of z = Δ / (1 − p) over tokens with p < 0.9.

    `source` says where it comes from: "repeat" and "third party" are measured, "prior" is what the dtypes usually
    do, and "quiet part" what the quieter responses of the comparison have, which are sound or less off.
    """

    value: float
    source: Literal["repeat", "third party", "prior", "quiet part"]
    least: float | None = None
    """Up to which a gap is rounding for certain, and from `most` on it is none; None of both is `value`."""
    most: float | None = None

    @property
    def measured(self) -> bool:
        return self.source in ("repeat", "third party")


@dataclass(frozen=True)
class OwnGap:
    """Between two scores of the same tokens by one side, where it is more than rounding makes: the rms of z, and
    what it is at the most where the side is sound."""

    side: Literal["behavior", "reference"]
    value: float
    most: float


@dataclass(frozen=True, eq=False)
class TopK:
    """Log-probs under both policies at the K ids that were observed at each token; an id of −1 is none, and a
    log-prob that was not seen is NaN. Ids need not be the same on both sides."""

    ids_mu_NK: Array
    logp_mu_NK: Array
    ids_pi_NK: Array
    logp_pi_NK: Array


@dataclass(frozen=True, eq=False)
class FullRows:
    """The whole normalised distributions of some tokens, float32; `row_M` has their places among the tokens,
    rising. Where they are those of every token, `row_M` is 0 … N − 1."""

    row_M: Array
    logp_mu_MV: Array
    logp_pi_MV: Array


@dataclass(frozen=True, eq=False)
class TokenEvidence:
    """Two policies on the same response tokens; those of a sequence are contiguous and in order.

    `logp_mu_N` and `logp_pi_N` are float64 and as they were found: NaN and infinities are kept. `sequence_N` counts
    the sequences, 0 … S − 1, `position_N` the tokens of the response, from 0. `prompt_S` says which prompt each
    sequence is of, `prompt_length_S` how many tokens are before its response, `previous_N` the token before each
    one. `metadata` has a value for each sequence, by name: worker, policy_version, lag, step, slot (place in a
    packed row), padding, and what else a log tells; a number is an amount, any other value names a group.
    `settings` has the settings that differ, by name, as (μ's, π's) in words. `head_VH` is the output matrix of the
    model. None is what is not known.
    """

    logp_mu_N: Array
    logp_pi_N: Array
    sequence_N: Array
    position_N: Array
    prompt_S: Array
    token_N: Array | None = None
    previous_N: Array | None = None
    prompt_length_S: Array | None = None
    metadata: Mapping[str, Array] = field(default_factory=dict)
    top: TopK | None = None
    full: FullRows | None = None
    floor: Floor | None = None
    settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    head_VH: Array | None = None
    version_N: Array | None = None
    """Of the weights that sampled each token, where a log says it by token."""
    name_S: Array | None = None
    """What the sequences are called where they come from; their numbers where it is None."""
    own_gap: OwnGap | None = None
    """Of the side that is farther from itself; None where neither is, or where nobody asked."""
    in_order: bool = False
    """Whether the sequences are in the order of a log, which is about that in which they were drawn."""
    tokens_seen: int | None = None
    """How many tokens there are, where these are a sample of whole sequences."""

    def __post_init__(self) -> None:
        """Raises ValueError where shapes contradict one another, or tokens are not in the order of sequences."""
        tokens, sequences = len(self.sequence_N), len(self.prompt_S)
        by_token = ("logp_mu_N", "logp_pi_N", "position_N", "token_N", "previous_N", "version_N")
        by_sequence = ("prompt_length_S", "name_S")
        for names, count in ((by_token, tokens), (by_sequence, sequences)):
            for name in names:
                value = getattr(self, name)
                if value is not None and value.shape != (count,):
                    raise ValueError(f"{name} has shape {value.shape}, not ({count},)")
        for name, value_S in self.metadata.items():
            if len(value_S) != sequences:
                raise ValueError(f"metadata {name!r} has {len(value_S)} values for {sequences} sequences")
        if tokens and (self.sequence_N[0] < 0 or self.sequence_N[-1] >= sequences):
            raise ValueError(f"sequence_N is not within 0 … {sequences - 1}")
        if (np.diff(self.sequence_N) < 0).any():
            raise ValueError("the tokens are not in the order of their sequences")

    @property
    def level(self) -> Level:
        """The most that was seen of a distribution."""
        return "full" if self.full is not None else "top-k" if self.top is not None else "sampled"

    @property
    def tokens(self) -> int:
        return len(self.sequence_N)

    @property
    def sequences(self) -> int:
        return len(self.prompt_S)

    @cached_property
    def offsets_S1(self) -> Array:
        """Where the tokens of each sequence begin, and where the last one ends."""
        return np.searchsorted(self.sequence_N, np.arange(self.sequences + 1))

    @cached_property
    def length_S(self) -> Array:
        return np.diff(self.offsets_S1)

    def but(self, **changes: Any) -> TokenEvidence:
        """The same with other values of some fields."""
        return replace(self, **changes)
