"""How each setting can move log-probs: from what changes the distribution itself to what reorders sums.

Prior knowledge, not an attribution: only a run that changes one setting at a time attributes. Every reason says
what the setting *can* do.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple


class Effect(NamedTuple):
    """`pattern` is that of a provenance key. `rounding` says that it can move log-probs by rounding alone."""

    pattern: str
    why: str
    rounding: bool = False


_ORDER_OF_SUMS = "sums can be taken in another order, by other kernels"
_ATTENTION = "attention kernels can differ in the order and precision of their sums"
_COMPILED = "compiled graphs can fuse operations and skip intermediate roundings"
_BATCH = "another batch can pick other kernels and other splits of the sums"
_VERSION = "kernels can change between versions"

# The first row that matches counts.
EFFECTS = (
    Effect("model.weights_sha256", "other weights are another distribution"),
    Effect("model.adapter.weights_sha256", "another adapter, or none, is another distribution"),
    Effect("model.adapter.config.*", "the same adapter can be applied otherwise: scaled, or to other modules"),
    Effect("model.config.*rope*", "other angles turn every position: a difference that can grow along a sequence"),
    Effect("effective.*rope*", "other angles turn every position: a difference that can grow along a sequence"),
    Effect("model.config.quantization_config*", "quantised weights are other weights"),
    Effect("model.config.*dropout*", "dropout acts where a side runs in train mode"),
    Effect("model.config.*", "another network can be built from this key"),
    Effect("effective.hf_overrides*", "it replaces keys of the model's configuration"),
    Effect("effective.json_model_override_args*", "it replaces keys of the model's configuration"),
    Effect("tokenizer_sha256", "text that a side tokenises by itself can become other tokens"),
    Effect("model.files.*", "text that a side tokenises by itself can become other tokens"),
    Effect("model.chat_template_sha256", "a chat that a side templates by itself can become another prompt"),
    Effect("sampling.*", "a sampling transform on one side alone changes the distribution itself"),
    Effect("temperature", "the logits are divided by different temperatures"),
    Effect("model.generation_config.*", "a sampler can take its defaults from here"),
    Effect("effective.attention_scale", "another scale of the scores is another attention"),
    Effect("effective.*quantization", "where one side alone quantises its weights, they are other weights"),
    Effect("effective.kv_cache_dtype", "a cache of lower precision rounds every key and value"),
    Effect("effective.train_mode", "dropout acts in train mode"),
    Effect("effective.dtype", "another dtype rounds every activation differently", rounding=True),
    Effect("effective.lm_head", "a projection of another precision rounds the logits differently", rounding=True),
    Effect("engine", f"two implementations: {_ORDER_OF_SUMS}", rounding=True),
    Effect(
        "path",
        "a token at a time through the cache and a whole sequence at once can use different kernels and shapes",
        rounding=True,
    ),
    Effect("effective.attn", _ATTENTION, rounding=True),
    Effect("effective.attention*", _ATTENTION, rounding=True),
    Effect("effective.compile", _COMPILED, rounding=True),
    Effect("effective.enforce_eager", _COMPILED, rounding=True),
    Effect("effective.disable_cuda_graph", _COMPILED, rounding=True),
    Effect("effective.*parallel*", "partial sums can be reduced across devices in another order", rounding=True),
    Effect("effective.tp_size", "partial sums can be reduced across devices in another order", rounding=True),
    Effect("effective.ep_size", "partial sums can be reduced across devices in another order", rounding=True),
    Effect("effective.batch_size", _BATCH, rounding=True),
    Effect("effective.max_num_seqs", _BATCH, rounding=True),
    Effect("effective.padding", "padding changes shapes, and with them it can change kernels", rounding=True),
    Effect("effective.threads", "sums are split over another number of threads", rounding=True),
    Effect("engine_version", _VERSION, rounding=True),
    Effect("environment.torch", _VERSION, rounding=True),
    Effect("environment.device*", "another device can have other kernels", rounding=True),
    Effect("environment.variables.*", "this variable can change kernels, threads or precision", rounding=True),
    Effect("effective.*", "a setting of the engine", rounding=True),
)

# What differs between any two runs and moves no log-prob of a given token, or repeats what `effective` says.
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

# Keys that no log-prob of a given token depends on: listed, and never ranked.
_WITHOUT_EFFECT = tuple(
    f"model.{file}.{key}"
    for file in ("config", "generation_config")
    for key in (
        "transformers_version",
        "_name_or_path",
        "_from_model_config",
        "_commit_hash",
        "torch_dtype",
        "dtype",
        "use_cache",
        "*_token_id",
        "max_length",
        "max_new_tokens",
        "output_*",
        "return_dict",
        "initializer_range",
        "id2label*",
        "label2id*",
        "auto_map*",
    )
)

_LOW_PRECISION = ("fp8", "float8", "int8", "uint8", "fp4", "nvfp4", "int4", "e4m3", "e5m2", "turboquant")


def is_irrelevant(key: str) -> bool:
    """Whether a difference at this key is left out of a report."""
    return any(fnmatchcase(key, pattern) for pattern in _IRRELEVANT)


def effect_rank(key: str) -> int | None:
    """The place of a key's effect, the largest possible one first; None where none is known."""
    if any(fnmatchcase(key, pattern) for pattern in _WITHOUT_EFFECT):
        return None
    return next((rank for rank, effect in enumerate(EFFECTS) if fnmatchcase(key, effect.pattern)), None)


def effect(rank: int) -> Effect:
    """The effect of a rank."""
    return EFFECTS[rank]


def one_side_says(key: str, value: object, dtype: object) -> bool:
    """Whether a setting of the engine that one side alone reports is a difference from the other side.

    `dtype` is what the other side computes in. A default, or what every engine without the setting does, is none.
    """
    name = key.rpartition(".")[2]
    if value in (None, "auto"):
        return False
    if name in ("kv_cache_dtype", "lm_head"):
        return is_low_precision(value) or (dtype is not None and value != _computed(dtype))
    if name.endswith("quantization"):
        return value != "none"
    if name in ("attention_scale", "tensor_parallel_size", "tp_size", "ep_size"):
        return value != 1
    if name in ("enforce_eager", "disable_cuda_graph"):
        return value is False
    if name in ("compile", "enable_torch_compile", "enable_expert_parallel", "train_mode"):
        return value is True
    return any(part in key for part in ("hf_overrides", "json_model_override_args", "rope"))


def is_low_precision(dtype: object) -> bool:
    """Whether a dtype has 8 bits or fewer."""
    return any(part in str(dtype).lower() for part in _LOW_PRECISION)


def _computed(dtype: object) -> object:
    return "bfloat16" if dtype == "autocast" else dtype
