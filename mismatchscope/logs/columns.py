"""The form in which every log is read: an Arrow table with one row a response.

`ms.Recorder` writes Parquet files of exactly this form; an importer makes it of what its trainer wrote. Lists of a
row are by response token, in order, and those that a row has are equally long: value [t] is of token t, whatever
the trainer's own convention was. A column that a log does not have is absent, or null where some rows lack it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    import pyarrow as pa

PolicyRole = Literal["behavior", "reference", "target"]
ROLES: Final = get_args(PolicyRole)

BY_ROW: Final = {
    "sequence_id": ("int64", "unique in the file"),
    "step": ("int64", "the trainer's step, or rollout, that trained on the response"),
    "prompt": ("int64", "equal where the prompts are: the unit of every interval"),
    "policy_version": ("int64", "version of the weights that sampled the response"),
    "trainer_version": ("int64", "version of the weights that trained on it; less policy_version it is the lag"),
    "worker": ("string", "who sampled it: an engine, a rank, a server"),
    "environment": ("string", "task or data source"),
    "reward": ("double", "of the response"),
    "truncated": ("bool", "whether the response ended because it was too long"),
    "rank": ("int32", "the trainer's rank that wrote the row"),
}
"""Columns with one value a response: their Arrow type and what they are."""

LOGPROBS: Final = {role: f"{role}_logprobs" for role in ROLES}
"""The column of each policy's log-probs: μ, π_old and π_θ."""

BY_TOKEN: Final = {
    "token_ids": ("int32", "response tokens"),
    "mask": (
        "bool",
        "whether the trainer counts the token: false for tool output and padding, and after rejection",
    ),
    **{
        name: ("float", "natural log-prob of the token, as precise as the trainer had it")
        for name in LOGPROBS.values()
    },
    "advantages": ("float", "of each token"),
    "entropy": ("float", "of the trainer's policy at the token's state, in nats"),
    "weights": ("float", "the correction's weight, as the trainer applied it"),
    "versions": ("int32", "version of the weights that sampled the token, where one response has several"),
    "turns": ("int32", "which turn of the conversation the token is in, from 0"),
    "kept_logmass": ("float", "log of the mass that the trainer's policy gives to the sampler's kept set"),
}
"""Columns with a value a token: the Arrow type of the value and what it is. Floats may also be double."""

NESTED: Final = {
    "prompt_token_ids": "list<int32>: the prompt, in its own length",
    "kept_ids": "list<list<int32>> by token: the ids that the sampler kept",
    "experts": "list<list<int16>> by token: chosen experts, layer after layer",
}
"""Columns of other shapes."""

COLUMNS: Final = (*BY_ROW, *BY_TOKEN, *NESTED)


def column_type(name: str, *, double: bool = False) -> pa.DataType:
    """The Arrow type of a column; `double` for floats by token that a source holds in float64."""
    import pyarrow as pa

    if name in BY_ROW:
        return pa.type_for_alias(BY_ROW[name][0])  # type: ignore[call-overload]
    if name in BY_TOKEN:
        kind = BY_TOKEN[name][0]
        alias = "double" if double and kind == "float" else kind
        return pa.list_(pa.type_for_alias(alias))  # type: ignore[call-overload]
    return (
        pa.list_(pa.int32())
        if name == "prompt_token_ids"
        else pa.list_(pa.list_(pa.int32() if name == "kept_ids" else pa.int16()))
    )
