"""What an engine has loaded, held against the checkpoint on disk, tensor by tensor, where the model is.

Engines put several tensors of a checkpoint into one (query, key and value; gate and up; the experts of a layer) and
rename what an adapter wraps. A tensor is looked for under its own name first, then where engines put such ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...measures.tensor_difference import Weight, compare, is_same, same_values
from ...measures.tensor_results import TensorRecord
from .stored_weights import EMBEDDING, HEAD, embedding_of

if TYPE_CHECKING:
    import torch

_WRAPPED = re.compile(r"\.base_layer(?=\.)|\.default(?=\.|$)")
"""What peft and vLLM put into the names of the modules that an adapter changes, and of its own tensors."""

_EXPERT = re.compile(r"(?P<block>.*\.experts)\.(?P<number>\d+)\.(?P<part>\w+)\.weight")
_EXPERTS = {
    ("gate_proj", "up_proj"): ("gate_up_proj", "w13_weight", "routed_experts.w13_weight"),
    ("w1", "w3"): ("gate_up_proj", "w13_weight", "routed_experts.w13_weight"),
    ("down_proj",): ("down_proj", "w2_weight", "routed_experts.w2_weight"),
    ("w2",): ("down_proj", "w2_weight", "routed_experts.w2_weight"),
}
_FUSED = {("q_proj", "k_proj", "v_proj"): "qkv_proj", ("gate_proj", "up_proj"): "gate_up_proj"}


class Place(NamedTuple):
    """The loaded tensor, the expert in it where it holds several, and the stored ones that lie there row by row."""

    loaded: str
    expert: int | None
    parts: tuple[str, ...]


def compare_loaded(
    stored: Mapping[str, Weight],
    loaded: Mapping[str, Callable[[], Weight]],
    learned: set[str],
    unread: Mapping[str, str] | None = None,
) -> list[TensorRecord]:
    """A record of every stored tensor, and of each of the `learned` ones that no stored one accounts for.

    `loaded` reads a tensor by the engine's name of it, and `unread` says why a stored one cannot be. One tensor is
    in memory at a time.
    """
    names = {_WRAPPED.sub("", name): name for name in loaded}
    reasons = unread or {}
    places = {name: None if name in reasons else _place(name, stored, names) for name in stored}
    records = [
        TensorRecord(
            name,
            "not_compared" if name in reasons else "missing",
            stored[name].shape,
            stored[name].dtype,
            reason=reasons.get(name),
        )
        for name, place in places.items()
        if place is None
    ]
    found = sorted(set(filter(None, places.values())), key=lambda place: place.loaded)
    for name, group in groupby(found, key=lambda place: place.loaded):
        whole = loaded[name]()
        for place in group:
            records += _compared(place, stored, whole)
    accounted = {_WRAPPED.sub("", place.loaded) for place in found}
    records += [TensorRecord(name, "extra") for name in sorted(learned) if _WRAPPED.sub("", name) not in accounted]
    return list(_as_laid_out(records))


def _place(name: str, stored: Mapping[str, Weight], names: Mapping[str, str]) -> Place | None:
    if name in names:
        return Place(names[name], None, (name,))
    if expert := _EXPERT.fullmatch(name):
        for parts, places in _EXPERTS.items():
            for place in places if expert["part"] in parts else ():
                if (loaded := f"{expert['block']}.{place}") in names:
                    together = [f"{expert['block']}.{expert['number']}.{part}.weight" for part in parts]
                    return Place(names[loaded], int(expert["number"]), tuple(filter(stored.__contains__, together)))
    for parts, fused in _FUSED.items():
        for part in parts:
            head, found, tail = name.rpartition(f".{part}.")
            if found and (loaded := f"{head}.{fused}.{tail}") in names:
                together = [f"{head}.{each}.{tail}" for each in parts]
                return Place(names[loaded], None, tuple(filter(stored.__contains__, together)))
    return None


def _compared(place: Place, stored: Mapping[str, Weight], whole: Weight) -> Iterator[TensorRecord]:
    """Each part against its rows."""
    parts = {name: stored[name] for name in place.parts}
    found = whole if place.expert is None else replace(whole, bits=whole.bits[place.expert])
    if place.expert is not None and _in_an_own_order(list(parts.values()), found):
        for name, part in parts.items():
            yield TensorRecord(name, "same", part.shape, part.dtype, found.dtype, "reordered")
        return
    if len(parts) == 1:
        yield _alone(place.parts[0], stored, found)
        return
    ends = np.cumsum([part.shape[0] for part in parts.values()]).tolist()
    for (name, part), end in zip(parts.items(), ends, strict=True):
        if found.shape[:1] == (ends[-1],):
            yield compare(name, part, replace(found, bits=found.bits[end - part.shape[0] : end]))
        else:
            why = f"{place.loaded} has the shape {list(found.shape)}"
            yield TensorRecord(name, "not_compared", part.shape, part.dtype, found.dtype, reason=why)


def _in_an_own_order(parts: list[Weight], found: Weight) -> bool:
    """Whether an engine keeps the values of these in another order: kernels of experts want them so."""
    if len({part.dtype for part in parts}) > 1 or not (parts[0].has_values and found.has_values):
        return False
    together = replace(parts[0], bits=np.concatenate([part.bits.ravel() for part in parts]))
    return not is_same(together, replace(found, bits=found.bits.ravel())) and same_values(together, found)


def _alone(name: str, stored: Mapping[str, Weight], found: Weight) -> TensorRecord:
    expected, embedding = stored[name], embedding_of(stored)
    if (name == HEAD or name.endswith(EMBEDDING)) and found.shape[1:] == expected.shape[1:]:
        found = replace(found, bits=found.bits[: expected.shape[0]])  # engines add rows up to a round number
    record = compare(name, expected, found)
    if name == HEAD and record.status == "differs" and embedding is not None:
        tied = compare(name, embedding, found).status == "same"
        return replace(record, kind="tied") if tied else record
    return record


def _as_laid_out(records: list[TensorRecord]) -> Iterator[TensorRecord]:
    """What an engine keeps in another shape is no other weight: it could not compute with it otherwise.

    One that keeps matrices transposed does so with square ones too.
    """
    transposes = any(record.kind == "transposed" and len(set(record.shape)) > 1 for record in records)
    for record in records:
        if record.kind == "transposed" and transposes:
            yield TensorRecord(record.name, "same", record.shape, record.dtype, record.dtype_found, "transposed")
        elif record.kind == "shape":
            yield replace(record, status="not_compared", kind=None, sha256=None)
        else:
            yield record


def readers(network: torch.nn.Module) -> dict[str, Callable[[], Weight]]:
    """How each tensor of a network is read, buffers that are saved and tied ones among them."""
    return {name: partial(weight_of, tensor) for name, tensor in network.state_dict().items()}


def weight_of(tensor: torch.Tensor) -> Weight:
    """A tensor of torch's, on the CPU, its bits as numpy has them."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype == "bfloat16":
        return Weight(tensor.view(torch.int16).numpy().view(np.uint16), dtype)
    if dtype.startswith("float8"):
        tensor = tensor.view(torch.uint8)
    return Weight(tensor.numpy(), dtype)
