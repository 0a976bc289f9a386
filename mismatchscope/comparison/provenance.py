"""What differs between the two sides: facts, with what each of them can do to log-probs at the size that was found.

Keys are dotted paths into the provenance.
"""

from __future__ import annotations

from typing import Any

from ..reports.difference_fields import Difference, RoundingSize
from ..reports.fields import flatten
from ..traces.reader import Trace
from .known_effects import effect, effect_rank, is_irrelevant, one_side_says


def provenance_of(trace: Trace) -> dict[str, Any]:
    """What the manifest says of how the trace was made; its counts and checksums say nothing of that."""
    return trace.manifest.model_dump(
        mode="json",
        exclude={"counts", "files", "complete", "schema_version", "notes", "inputs", "parent", "evidence", "seeds"},
    )


def differences(
    behavior: dict[str, Any], reference: dict[str, Any], size: RoundingSize | None = None
) -> list[Difference]:
    """The provenance keys on which the sides differ, ranked from 1 by the largest effect that each can have.

    A key has rank 0, and no reason, where no effect is known, or where it is one of rounding and the mismatch of
    this `size` is beyond rounding. An unknown `size` rules nothing out.
    """
    beyond = size is not None and size.beyond
    sides = tuple(_flat(side) for side in _spelled_alike(behavior, reference))
    dtypes = [side.get("effective", {}).get("dtype") for side in (behavior, reference)]
    found = []
    for key in sorted(sides[0].keys() | sides[1].keys()):
        ours, theirs = (side.get(key) for side in sides)
        if ours == theirs or is_irrelevant(key):
            continue
        rank = effect_rank(key)
        if rank is not None and not _is_difference(key, ours, theirs, dtypes):
            rank = None
        if rank is not None and beyond and effect(rank).rounding:
            rank = None
        found.append((rank, key, ours, theirs))
    found.sort(key=lambda entry: (entry[0] is None, entry[0] or 0, entry[1]))
    return [
        Difference(
            key=key,
            behavior=ours,
            reference=theirs,
            rank=0 if rank is None else place,
            why=None if rank is None else effect(rank).why,
        )
        for place, (rank, key, ours, theirs) in enumerate(found, start=1)
    ]


def _is_difference(key: str, ours: Any, theirs: Any, dtypes: list[Any]) -> bool:
    """Whether two values say that the sides did different things.

    A setting, a file or a checksum that one side alone states says nothing of the other, unless it is known what an
    engine without the setting does. A key of a configuration that one file lacks has a default that nobody stated.
    """
    if ours is not None and theirs is not None:
        return True
    if key.startswith("effective."):
        return one_side_says(key, theirs if ours is None else ours, dtypes[0] if ours is None else dtypes[1])
    return key.startswith(("model.config.", "model.adapter."))


def _flat(side: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flatten(side).items() if value is not None}


def _spelled_alike(behavior: dict[str, Any], reference: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides with one spelling of the rotary embedding, which transformers 5 changed.

    Where one config.json has `rope_parameters` and the other `rope_theta` and `rope_scaling`, the older spelling is
    read as the newer one. A side that states no configuration contradicts none: both go without.
    """
    configs = [side.get("model", {}).get("config") for side in (behavior, reference)]
    if None in configs:
        names = ("config", "generation_config", "files")
        return _with_model(behavior, dict.fromkeys(names)), _with_model(reference, dict.fromkeys(names))
    if ("rope_parameters" in configs[0]) != ("rope_parameters" in configs[1]):
        configs = [_renamed(config) for config in configs]
    return _with_model(behavior, {"config": configs[0]}), _with_model(reference, {"config": configs[1]})


def _with_model(side: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    return side | {"model": side.get("model", {}) | fields}


def _renamed(config: dict[str, Any]) -> dict[str, Any]:
    if "rope_parameters" in config:
        return config
    scaling = dict(config.get("rope_scaling") or {})
    scaling["rope_type"] = scaling.pop("type", None) or scaling.get("rope_type") or "default"
    if "rope_theta" in config:
        scaling["rope_theta"] = config["rope_theta"]
    rest = {key: value for key, value in config.items() if key not in ("rope_theta", "rope_scaling")}
    return rest | {"rope_parameters": scaling}
