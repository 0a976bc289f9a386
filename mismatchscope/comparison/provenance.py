"""What differs between the two sides, likeliest cause of a mismatch first.

The ranking is prior knowledge about which settings move the numbers, not an attribution: only a run that changes
one setting at a time attributes. Keys are dotted paths into the provenance; the first row that matches counts.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

from ..reports.document import Difference
from ..reports.fields import flatten
from ..traces.reader import Trace

# (pattern, why it can move log-probs), from what changes the distribution itself to what only reorders sums.
KNOWN_CAUSES = (
    ("model.weights_sha256", "the two sides ran different weights"),
    ("model.adapter.weights_sha256", "the two sides ran different adapters, or one side ran without"),
    ("model.adapter.config.*", "the same adapter is applied otherwise: another scaling, or to other modules"),
    ("tokenizer_sha256", "the two sides read different tokens"),
    ("sampling.*", "a sampling transform on one side only changes the distribution itself"),
    ("temperature", "the logits are divided by different temperatures"),
    ("effective.quantization", "quantised weights are other weights"),
    ("effective.kv_cache_dtype", "a cache of lower precision rounds every key and value"),
    ("effective.dtype", "another dtype rounds every activation differently"),
    ("effective.lm_head", "the logits come from a projection of another precision"),
    ("engine", "two implementations sum in different orders with different kernels"),
    ("path", "one token at a time through the cache and a whole sequence at once use different kernels and shapes"),
    ("effective.attn", "attention kernels differ in the order and precision of their sums"),
    ("effective.attention*", "attention kernels differ in the order and precision of their sums"),
    ("effective.compile", "compiled graphs fuse operations and skip intermediate roundings"),
    ("effective.enforce_eager", "compiled graphs fuse operations and skip intermediate roundings"),
    ("effective.*parallel*", "partial sums are reduced across devices in another order"),
    ("effective.batch_size", "another batch size picks other kernels and other splits of the sums"),
    ("effective.max_num_seqs", "another batch size picks other kernels and other splits of the sums"),
    ("effective.padding", "padding changes shapes, and with them kernels"),
    ("effective.threads", "sums are split over another number of threads"),
    ("engine_version", "kernels change between versions"),
    ("environment.torch", "kernels change between versions"),
    ("environment.device*", "another device has other kernels"),
    ("environment.variables.*", "this variable changes kernels, threads or precision"),
    ("effective.*", "a setting of the engine"),
)

# What differs between any two runs and moves nothing, or repeats what `effective` says.
_IRRELEVANT = (
    "role",
    "created",
    "settings.*",
    "environment.executable",
    "environment.hostname",
    "model.name",
    "model.path",
    "model.adapter.name",
    "model.adapter.path",
)


def provenance_of(trace: Trace) -> dict[str, Any]:
    """What the manifest says of how the trace was made; its counts and checksums say nothing of that."""
    return trace.manifest.model_dump(
        mode="json",
        exclude={"counts", "files", "complete", "schema_version", "notes", "inputs", "parent", "evidence", "seeds"},
    )


def differences(behavior: dict[str, Any], reference: dict[str, Any]) -> list[Difference]:
    """The provenance keys on which the sides differ: known causes first, ranked from 1, then the rest at rank 0."""
    ours, theirs = flatten(behavior), flatten(reference)
    found = []
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key) and not any(fnmatch(key, pattern) for pattern in _IRRELEVANT):
            # A setting that only one of two engines has says nothing of what the other does.
            one_sided = key.startswith("effective.") and None in (ours.get(key), theirs.get(key))
            found.append((None if one_sided else _known(key), key))
    found.sort(key=lambda entry: (entry[0] is None, entry[0] or 0, entry[1]))
    return [
        Difference(
            key=key,
            behavior=ours.get(key),
            reference=theirs.get(key),
            rank=0 if order is None else rank,
            why=None if order is None else KNOWN_CAUSES[order][1],
        )
        for rank, (order, key) in enumerate(found, start=1)
    ]


def _known(key: str) -> int | None:
    """The row of `KNOWN_CAUSES` that a key falls under."""
    return next((row for row, (pattern, _) in enumerate(KNOWN_CAUSES) if fnmatch(key, pattern)), None)
