"""What the result of an experiment says of the causes: a table of result × cause, read in both directions.

A result rules causes out, or leaves a few and rules all others out. What it says nothing of stays as it is. The
names of experiments and causes are those of the catalogue.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import NamedTuple

from .catalogue import ROUNDING

_OLDER = frozenset({"stale_weights", "staleness", "worker"})
"""Older weights, of all responses or some: which ones a comparison of two engines does not say."""
_OF_PROJECTIONS = _OLDER | {"adapter", "fp8_weights"}
_TENSORS = frozenset({"stale_weights", "head", "vocabulary_rows", "expert", "adapter", "fp8_weights"})
_OF_ROUNDING = frozenset({ROUNDING, "head_precision", "routing", "reductions", "batch"})
_SEEN_BY_ATTENTION = frozenset({"rope", "window", "chunked_prefill", "packing", "stale_prefix"})
_OF_THE_PATH = frozenset(
    {
        *("fp8_cache", "recurrent_state", "chunked_prefill", "stale_prefix", "window", "attention_scale"),
        *(ROUNDING, "routing", "batch"),
    }
)
"""What one engine can compute otherwise a token at a time than all at once: by its cache or its state, by a fault
of one of its kernels, and by sums in another order, in other batches."""
_OF_A_STATE_ALONE = frozenset(
    {
        *("stale_weights", "head", "vocabulary_rows", "expert", "fp8_weights", "norm", "dropout"),
        *("head_precision", "padded_vocabulary"),
    }
)
RESCORE = "rescore"
RESCORED = frozenset(
    {
        *("temperature", "truncation", "norm", "rope", "attention_scale", "window", "context"),
        *("adapter", "fp8_weights", "fp8_cache", "stale_weights"),
    }
)
"""Causes that a candidate stands for, under which the tokens can be scored again."""


_NONE_OF_THEM = 0.1
"""Chance that none of the causes that are left is the one: detectors are wrong now and then."""


class Decision(NamedTuple):
    """`excluded` are ruled out. Where `kept` is not None, so are all that it does not have."""

    excluded: frozenset[str] = frozenset()
    kept: frozenset[str] | None = None

    def over(self, causes: Iterable[str]) -> list[str]:
        """Those that are left, in their order."""
        return [
            cause for cause in causes if cause not in self.excluded and (self.kept is None or cause in self.kept)
        ]


# A query and its key are turned by the same angle where they are the same token, and a softmax over one key is 1:
# what only attention sees of other tokens cannot show there. A sink, a token that one side adds, an adapter and an
# fp8 cache may show or not.
DECISIONS: Mapping[tuple[str, str], Decision] = {
    ("weights", "same"): Decision(excluded=_TENSORS),
    ("weights", "head"): Decision(kept=frozenset({"head"})),
    ("weights", "embedding"): Decision(kept=frozenset({"head", *_OLDER})),
    ("weights", "rows"): Decision(kept=frozenset({"vocabulary_rows"})),
    ("weights", "expert"): Decision(kept=frozenset({"expert"})),
    ("weights", "experts"): Decision(kept=frozenset({"expert", *_OLDER})),
    ("weights", "low_rank"): Decision(kept=frozenset({"adapter"})),
    ("weights", "eight_bits"): Decision(kept=frozenset({"fp8_weights"})),
    ("weights", "rounded"): Decision(kept=_OF_ROUNDING),
    ("weights", "projections"): Decision(kept=frozenset({"adapter", *_OLDER})),
    ("weights", "values"): Decision(kept=_OLDER),
    ("context", "vanishes"): Decision(excluded=_OF_A_STATE_ALONE | {ROUNDING}),
    ("context", "stays"): Decision(excluded=_SEEN_BY_ATTENTION),
    ("context", "beginning"): Decision(kept=frozenset({"context"})),
    ("repeat", "none"): Decision(excluded=frozenset({"dropout", "reductions"})),
    ("repeat", "most"): Decision(kept=frozenset({"dropout", "reductions", "batch", "routing"})),
    ("repeat", "same_batches"): Decision(kept=frozenset({"dropout", "reductions", "routing"})),
    # An engine can read keys and values of the prompt from its fp8 cache in prefill, too, as vLLM does on a CPU.
    ("path", "none"): Decision(excluded=frozenset({"recurrent_state"})),
    ("path", "most"): Decision(kept=_OF_THE_PATH),
    ("alone", "none"): Decision(excluded=frozenset({"batch", "packing", "padding"})),
    ("alone", "most"): Decision(kept=frozenset({"batch", "packing", "padding"})),
    ("float32", "most"): Decision(kept=_OF_ROUNDING),
    ("float32", "none"): Decision(excluded=_OF_ROUNDING - {"routing"}),
    ("layers", "pattern"): Decision(kept=frozenset({"rope", "attention_scale", "window", "chunked_prefill"})),
    ("layers", "attention"): Decision(
        kept=frozenset({"attention_scale", "fp8_cache", "dropout", *_OF_PROJECTIONS}),
    ),
    ("layers", "norm"): Decision(kept=frozenset({"norm", *_OLDER})),
    ("layers", "mlp"): Decision(kept=frozenset({"dropout", "expert", "routing", *_OF_PROJECTIONS})),
    ("layers", "router"): Decision(kept=frozenset({"routing", "routing_replay", *_OLDER})),
    ("layers", "head"): Decision(kept=frozenset({"head", "vocabulary_rows", "head_precision", *_OLDER})),
    ("routes", "most"): Decision(kept=frozenset({"routing", "routing_replay", "expert"})),
    ("routes", "none"): Decision(excluded=frozenset({"routing", "routing_replay"})),
    **{(RESCORE, cause): Decision(kept=frozenset({cause})) for cause in sorted(RESCORED)},
}
"""By experiment and result. "none" and "most" are the share of the gap that an experiment changes, or sees. Of
`layers` it is the one kind of stage that creates more than rounding on the same input, of scoring again the cause
whose candidate closes the gap, or several with " or " between them."""

_KEYS: tuple[tuple[str, frozenset[str]], ...] = (
    ("kv_cache_dtype", frozenset({"fp8_cache"})),
    ("*quantization", frozenset({"fp8_weights"})),
    ("adapter", frozenset({"adapter"})),
    ("*lm_head*", frozenset({"head_precision"})),
    ("dtype", frozenset({ROUNDING, "head_precision", "routing"})),
    ("router", frozenset({"routing"})),
    ("*rope*", frozenset({"rope"})),
    ("*sliding_window*", frozenset({"window"})),
    ("*norm_eps*", frozenset({"norm"})),
    ("*softcap*", frozenset({"attention_scale"})),
    ("*attention_multiplier*", frozenset({"attention_scale"})),
    ("attention_scale", frozenset({"attention_scale"})),
    ("*prefix_cach*", frozenset({"stale_prefix"})),
    ("*chunked_prefill*", frozenset({"chunked_prefill"})),
    ("max_num_batched_tokens", frozenset({"chunked_prefill", "batch"})),
    ("*tensor_parallel_size", frozenset({"reductions"})),
    ("train_mode", frozenset({"dropout"})),
    ("padding", frozenset({"padding", "packing"})),
    ("path", _OF_THE_PATH),
    ("attn*", frozenset({ROUNDING, "attention_scale"})),
    ("enforce_eager", frozenset({ROUNDING})),
    ("compile", frozenset({ROUNDING})),
    ("*batch_size", frozenset({"batch"})),
    ("max_num_seqs", frozenset({"batch"})),
)


def decision(experiment: str, result: str) -> Decision:
    """What a result says; one that the table does not have says nothing."""
    if experiment == RESCORE and " or " in result:
        return Decision(kept=frozenset(result.split(" or ")))
    return DECISIONS.get((experiment, result), Decision())


def ruled_out_on_average(experiment: str, weights: Mapping[str, float]) -> float:
    """The share of these causes, each with its weight, that an experiment rules out on average: each is the one
    that is there with the chance of its weight, and any result that leaves it is then as likely as another. Nothing
    is ruled out where no result leaves it. In a tenth of all cases it is none of them, and any result may come. 0
    where no result rules out any of them."""
    total = sum(weights.values())
    left = [set(of.over(weights)) for (name, _), of in DECISIONS.items() if name == experiment]
    if not left or not total:
        return 0.0
    lost = [1 - sum(weights[cause] for cause in kept) / total for kept in left]
    one_of_them = 0.0
    for cause, weight in weights.items():
        parts = [part for kept, part in zip(left, lost, strict=True) if cause in kept]
        one_of_them += weight / total * (sum(parts) / len(parts) if parts else 0.0)
    return (1 - _NONE_OF_THEM) * one_of_them + _NONE_OF_THEM * sum(lost) / len(lost)


def causes_of_setting(key: str, value: str | None) -> frozenset[str]:
    """What a setting that makes the gap is the cause of. A table of values is asked for each of its keys."""
    names = [key]
    with suppress(TypeError, ValueError):
        table = json.loads(value or "")
        names += [] if not isinstance(table, dict) else list(table)
    return frozenset().union(
        *(causes for name in names for pattern, causes in _KEYS if fnmatchcase(name.lower(), pattern))
    )
