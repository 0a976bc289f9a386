"""A sample of a rollout dump and what the trainer made of it -> a row of the form of `columns`: slime and miles.

Shapes: P prompt tokens, R response tokens, L layers, K experts of a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...measures.prompt_hash import label_of, labels_of_ids
from ..torch_files import Tensor

Values = Mapping[str, Any]

OTHER_TOKENS = "other tokens in the trainer's dump than in the rollout's"
SLICED = "slices of a context-parallel rank, whose order cannot be shown"
_INT64 = 2**63


def array_of(values: Any) -> np.ndarray | None:
    """Numbers of a dump, from a tensor or a flat list; None where there is none, dtype object for anything else."""
    if values is None:
        return None
    if isinstance(values, np.ndarray | Tensor):
        return values if isinstance(values, np.ndarray) else values.numpy()
    if type(values) is list:
        types = set(map(type, values))
        if types <= {int, bool}:
            return np.array(values) if values else np.empty(0)
        if types <= {int, bool, float, type(None)}:
            return np.array(values, dtype=np.float64)
    return np.empty(0, dtype=object)


def tokens_of(sample: Values, trained: Values) -> tuple[np.ndarray | None, int]:
    """Prompt and response, and how many of them are the response's."""
    tokens = array_of(trained.get("tokens", sample.get("tokens")))
    length = trained.get("response_lengths", trained.get("response_length", sample.get("response_length")))
    if type(length) is not int and isinstance(length, Tensor) and length.raw.size == 1:
        length = int(length.numpy().ravel()[0])
    return tokens, length if type(length) is int else -1


def row_of(sample: Values, trained: Values, step: int | None, remarks: Counter[str]) -> dict[str, Any] | str:
    """A row, or the reason why it is none; either dump may be missing, an empty mapping. What else is odd about it
    is counted in `remarks`."""
    tokens, length = tokens_of(sample, trained)
    if tokens is None or tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not 0 <= length <= len(tokens):
        return "no tokens, or fewer than the response has"
    sampled = array_of(sample.get("tokens"))
    if sampled is not None and not np.array_equal(tokens, sampled):
        return OTHER_TOKENS
    start = len(tokens) - length
    behavior = array_of(sample.get("rollout_log_probs"))
    if behavior is None:
        behavior = array_of(trained.get("rollout_log_probs"))
    reference = array_of(trained.get("log_probs"))
    if reference is None:
        reference = array_of(trained.get("old_log_probs"))
    if reference is not None and reference.ndim == 1 and len(reference) < length:
        return SLICED
    mask = array_of(trained.get("loss_masks", sample.get("loss_mask")))
    return {
        "sequence_id": _int(trained.get("sample_index", sample.get("index"))),
        "step": step,
        "prompt": _prompt_label(tokens[:start], sample),
        "policy_version": _version(sample.get("weight_versions") or trained.get("weight_versions"), remarks),
        "environment": _environment(sample, trained),
        "reward": _reward(sample, trained),
        "truncated": _truncated(sample, trained),
        "rank": _int(trained.get("data_parallel_rank", trained.get("rank"))),
        "token_ids": tokens[start:],
        "mask": np.ones(length, dtype=bool) if mask is None else mask,
        "behavior_logprobs": behavior,
        "reference_logprobs": reference,
        "target_logprobs": _by_token(trained.get("train_log_probs"), length),
        "advantages": _by_token(trained.get("advantages"), length),
        "entropy": _by_token(trained.get("entropy"), length),
        "prompt_token_ids": tokens[:start] if start else None,
        "kept_ids": _kept_ids(sample, trained, length, remarks),
        "experts": _experts(sample, trained, start, length, remarks),
    }


def _int(value: Any) -> int | None:
    return value if type(value) is int and -_INT64 <= value < _INT64 else None


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.raw.size == 1:
        value = value.numpy().ravel()[0].item()
    return float(value) if type(value) in (int, float, bool) and abs(value) < 1e308 else None


def _by_token(values: Any, length: int) -> np.ndarray | None:
    found = array_of(values)
    return found if found is not None and found.shape == (length,) else None


def group_of(sample: Values, trained: Values) -> tuple[str, int] | None:
    """What was sampled for one prompt: the samples of a group, or else those that one rollout was cut into."""
    numbers = (
        ("group_index", sample.get("group_index")),
        ("rollout_id", sample.get("rollout_id")),
        ("rollout_id", trained.get("rollout_ids")),
    )
    return next(((name, number) for name, number in numbers if type(number) is int), None)


def _prompt_label(prompt: np.ndarray, sample: Values) -> int | None:
    if len(prompt):
        return int(label_of([prompt])[0])
    group = _int(sample.get("group_index"))
    return None if group is None else int(labels_of_ids(np.array([group]))[0])


def _version(versions: Any, remarks: Counter[str]) -> int | None:
    """The oldest of the versions that sampled a response; each call of the engine adds the text of its own."""
    if type(versions) is not list or not all(type(version) in (str, int) for version in versions):
        return None
    numbers = {int(version) for version in versions if str(version).isdecimal() and len(str(version)) < 19}
    if len(numbers) > 1:
        remarks["were sampled by weights of several versions; the oldest is taken as theirs"] += 1
    return min(numbers, default=None)


def _environment(sample: Values, trained: Values) -> str | None:
    metadata = sample.get("metadata")
    names = (trained.get("source_names"), metadata.get("source_name") if type(metadata) is dict else None)
    return next((name for name in names if type(name) is str and name != "unknown"), None)


def _reward(sample: Values, trained: Values) -> float | None:
    """Before it was normalised within its group, as `rewards` of a train dump is."""
    for value in (trained.get("local_raw_reward"), sample.get("reward")):
        if (number := _number(value)) is not None:
            return number
    return None


def _truncated(sample: Values, trained: Values) -> bool | None:
    found = _number(trained.get("truncated"))
    status = sample.get("status")
    return bool(found) if found is not None else status == "truncated" if type(status) is str else None


def _kept_ids(
    sample: Values, trained: Values, length: int, remarks: Counter[str]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The nucleus of each token: all ids end to end, and where each token's begin."""
    ids, offsets = (
        array_of(sample.get(name) if sample.get(name) is not None else trained.get(name))
        for name in ("rollout_top_p_token_ids", "rollout_top_p_token_offsets")
    )
    if ids is None or offsets is None:
        return None
    fits = ids.ndim == 1 and offsets.shape == (length + 1,) and offsets.dtype.kind in "iu"
    if not fits or offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
        remarks["have kept sets of another length, which are left out"] += 1
        return None
    return ids, offsets


def _experts(sample: Values, trained: Values, start: int, length: int, remarks: Counter[str]) -> np.ndarray | None:
    """Experts [R, L·K] at the states that the response was sampled from. The dump has one row [L, K] for each token
    that was read, the last token of all was not."""
    routed = array_of(sample.get("rollout_routed_experts"))
    if routed is None:
        routed = array_of(trained.get("rollout_routed_experts"))
    if routed is None or not start:
        return None
    if routed.ndim != 3 or len(routed) != start + length - 1 or routed.dtype.kind not in "iu":
        remarks["have routing of another length, which is left out"] += 1
        return None
    chosen = routed[start - 1 :].reshape(length, routed.shape[1] * routed.shape[2])
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < 2**15:
        remarks["have experts numbered beyond 16 bits, which are left out"] += 1
        return None
    return chosen
