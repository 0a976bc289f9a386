"""SkyRL's training batches: `dumped_data/global_step_N_training_input.pkl`, written with trainer.dump_data_batch.

Source: `skyrl/backends/skyrl_train/training_batch.py` and `skyrl/train/dataset/preprocess.py`.

Shapes: B rows of a batch, S tokens of a row, padded on the left; A of its longest response, values at its end.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...input_files import open_regular
from ...measures.prompt_hash import label_of
from ..checked_rows import CheckedRows
from ..restricted_pickle import ForeignObjectError, RefusedFileError, parse
from ..source import ColumnOrigin, LogBatch, LogFormat, Part
from ..torch_files import Tensor, read_torch_bytes

_MODULE = "skyrl.backends.skyrl_train.training_batch"
STAND_INS = {
    f"{_MODULE} _rebuild_tensor_batch": lambda batch, state: state,
    f"{_MODULE} TrainingInputBatch": "TrainingInputBatch",
    "torch device": lambda *name: None,
}
"""The three names of such a file, and what each is here."""

_NAME = re.compile(r"global_step_\d+_training_input\.pkl")
_STEP = re.compile(r"global_step_(\d+)")
_INTEGERS = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_DTYPES = ("bool", *_INTEGERS, "float16", "float32", "float64")
_MAX_DIMENSIONS = 8
_BATCH_TOKENS = 2**20


def recognises(path: Path, head: bytes) -> bool:
    """Whether a file is a pickle of a batch of SkyRL's, of any version."""
    return head.startswith(b"\x80") and b"skyrl" in head and b"training_batch" in head


def refused(path: Path) -> str | None:
    """Why a file that is called as a batch is none: it names what no batch does, and nothing of it is run."""
    if _NAME.fullmatch(path.name):
        with suppress(ValueError, OSError):  # what is no pickle is no batch either, and does no harm
            try:
                _batch(path)
            except ForeignObjectError as error:
                return str(error)
    return None


def holds(path: Path) -> str | None:
    found = _STEP.search(path.name)
    return f"Step {found[1]}" if found else None


def parts_of(path: Path) -> list[Part]:
    """A batch is read at once."""
    return [Part(path)]


def read(part: Part) -> Iterator[LogBatch]:
    """The rows of a step's batch."""
    tensors, metadata = _batch(part.path)
    found = _STEP.search(part.path.name)
    step = int(found[1]) if found else _int(metadata.get("global_step"))
    sequences_BS, attention_BS, response_BA = (_needed(tensors, name) for name in _LAYOUT)
    if (
        len({len(sequences_BS), len(attention_BS), len(response_BA)}) > 1
        or sequences_BS.shape != attention_BS.shape
    ):
        raise RefusedFileError("its tensors are of other shapes")
    copies = min(max(_int(metadata.get("pad_size")) or 0, 0), len(sequences_BS))
    builder, tokens = CheckedRows(), 0
    groups = _groups(metadata, len(sequences_BS))
    labels: dict[int, int] = {}
    remarks = (f"{copies:,} rows of {part.path.name} fill the batch up and are left out.",) if copies else ()
    for row in range(len(sequences_BS) - copies):
        prompt, response = _lengths(attention_BS[row], response_BA[row])
        if response < 0:
            builder.rejected["a response that is not at the end of its row"] += 1
            continue
        values = _values(tensors, row, prompt, response)
        if values["prompt"] is not None and row in groups:
            values["prompt"] = labels.setdefault(groups[row], values["prompt"])
        builder.add({"sequence_id": row, "step": step} | values)
        tokens += prompt + response
        if tokens > _BATCH_TOKENS:
            yield LogBatch(builder.batch(), part, builder.rejected)
            builder, tokens = CheckedRows(), 0
    yield LogBatch(builder.batch(), part, builder.rejected, remarks)


_LAYOUT = ("sequences", "attention_mask", "response_mask")
_BY_TOKEN = {
    "behavior_logprobs": "rollout_logprobs",
    "reference_logprobs": "action_log_probs",
    "advantages": "advantages",
}


def _batch(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a batch by their name, views of the file; and its metadata."""
    with open_regular(path) as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    state, _ = parse(data, STAND_INS)
    stored = state.get("batch_dict") if type(state) is dict else None
    if type(stored) is not dict:
        raise RefusedFileError("it holds no batch of tensors")
    tensors = {}
    for name, value in stored.items():
        # Lists of tensors are images, of which nothing is needed.
        if value is not None and not (type(value) is dict and value.get("format") == "tensor_list"):
            tensors[str(name)] = _tensor(value)
    metadata = state.get("metadata")
    return tensors, metadata if type(metadata) is dict else {}


def _tensor(value: Any) -> np.ndarray:
    if type(value) is not dict or not isinstance(value.get("data"), bytes | memoryview):
        raise RefusedFileError("one of its tensors is none")
    if value.get("format") == "torch":  # what numpy has no type for: bfloat16
        found = read_torch_bytes(value["data"])
        if not isinstance(found, Tensor):
            raise RefusedFileError("one of its tensors is none")
        return found.numpy()
    shape, dtype = value.get("shape"), value.get("dtype")
    if type(shape) is not tuple or not all(type(length) is int and length >= 0 for length in shape):
        raise RefusedFileError("one of its tensors has no shape")
    if dtype not in _DTYPES or len(shape) > _MAX_DIMENSIONS:
        raise RefusedFileError("one of its tensors has values that are no numbers")
    if math.prod(shape) * np.dtype(dtype).itemsize != len(value["data"]):
        raise RefusedFileError("the shape of one of its tensors is not that of its bytes")
    return np.frombuffer(value["data"], dtype).reshape(shape)


def _needed(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    found = tensors.get(name)
    if found is None or found.ndim != 2 or found.dtype.kind not in "biu":
        raise RefusedFileError(f"it has no {name}")
    return found


def _lengths(attention_S: np.ndarray, response_A: np.ndarray) -> tuple[int, int]:
    """Of prompt and response; -1 where one of them is not where it should be."""
    whole, response = int(np.count_nonzero(attention_S)), int(np.count_nonzero(response_A))
    fits = attention_S[len(attention_S) - whole :].all() and response_A[len(response_A) - response :].all()
    return (whole - response, response) if fits and response <= whole else (0, -1)


def _groups(metadata: Mapping[str, Any], rows: int) -> dict[int, int]:
    """Of each row the first row of its prompt, as far as the batch says it: where turns of a conversation are rows,
    a later one has the earlier ones in its prompt."""
    boundaries = metadata.get("policy_prompt_boundaries")
    groups: dict[int, int] = {}
    for bounds in boundaries if type(boundaries) is list else ():
        if type(bounds) is tuple and len(bounds) == 2 and all(type(bound) is int for bound in bounds):
            first, end = max(bounds[0], 0), min(bounds[1], rows)
            groups |= dict.fromkeys(range(first, end), first)
    return groups


def _values(tensors: Mapping[str, np.ndarray], row: int, prompt: int, response: int) -> dict[str, Any]:
    sequence_S = tensors["sequences"][row]
    start = len(sequence_S) - response
    prompt_P = sequence_S[start - prompt : start]
    rewards_A = _of_row(tensors.get("rewards"), row, response)
    return {
        "prompt": int(label_of([prompt_P])[0]) if prompt else None,
        "prompt_token_ids": prompt_P if prompt else None,
        "token_ids": sequence_S[start:],
        "mask": _of_row(tensors.get("loss_mask"), row, response),
        "reward": None if rewards_A is None else float(rewards_A.sum()),
        "experts": _experts(tensors, row, start, response),
        **{column: _of_row(tensors.get(name), row, response) for column, name in _BY_TOKEN.items()},
    }


def _of_row(values_BA: np.ndarray | None, row: int, response: int) -> np.ndarray | None:
    """The values of a response, which are at the end of the row."""
    if values_BA is None or values_BA.ndim != 2 or row >= len(values_BA):
        return None
    return values_BA[row, max(0, values_BA.shape[1] - response) :]


def _experts(tensors: Mapping[str, np.ndarray], row: int, start: int, response: int) -> np.ndarray | None:
    """Experts [R, L·K] at the states that the response was sampled from; None where some were not captured."""
    routed, missing = tensors.get("rollout_expert_indices"), tensors.get("router_padding_mask")
    if routed is None or routed.ndim != 4 or not start or routed.shape[:2] != tensors["sequences"].shape:
        return None
    states = slice(start - 1, start - 1 + response)
    if missing is not None and missing.shape == routed.shape[:2] and missing[row, states].any():
        return None
    chosen = routed[row, states].reshape(response, routed.shape[2] * routed.shape[3])
    return chosen if not chosen.size or 0 <= chosen.min() <= chosen.max() < 2**15 else None


def _int(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 2**63 else None


FORMAT = LogFormat(
    name="skyrl",
    looks_for="global_step_N_training_input.pkl, which trainer.dump_data_batch writes",
    recognises=recognises,
    parts=parts_of,
    read=read,
    holds=holds,
    refused=refused,
    columns=(
        ColumnOrigin("behavior_logprobs", "rollout_logprobs", "behavior"),
        ColumnOrigin(
            "reference_logprobs",
            "action_log_probs",
            "reference",
            remark="of the forward before the update; the file has none where the loss does without",
        ),
    ),
    selects="loss_mask is 0 for responses that the filter of overlong ones removed, and for output of tools",
)
