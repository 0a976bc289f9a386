"""What can be looked at inside a decoder, by names that mean the same in every engine, and where engines have it.

    embedding                 what goes into the first layer
    layers.N.attention_norm   the norm before attention
    layers.N.attention        attention, its output projection included
    layers.N.attention_post_norm   the norm after attention, of models that have one there
    layers.N.mid_residual     the residual stream between attention and MLP
    layers.N.mlp_norm         the norm before the MLP
    layers.N.router           router logits [T, E]; of a mixture of experts, as the next two
    layers.N.expert_ids       the experts of each token [T, k], slot by slot
    layers.N.expert_weights   their weights [T, k] as they are used, renormalised or not
    layers.N.mlp              the MLP, or the sum of the experts
    layers.N.mlp_post_norm    the norm after the MLP, of models that have one there
    layers.N                  the residual stream after the layer; its parts summed, where an engine keeps two
    norm                      the last norm
    logits                    of the head

Shapes: T tokens of prompt and response, E experts, k of them a token. All else is [T, width].
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

ATTENTION_NORM, ATTENTION, ATTENTION_POST_NORM = "attention_norm", "attention", "attention_post_norm"
MID_RESIDUAL, MLP_NORM, MLP, MLP_POST_NORM = "mid_residual", "mlp_norm", "mlp", "mlp_post_norm"
ROUTER, EXPERT_IDS, EXPERT_WEIGHTS = "router", "expert_ids", "expert_weights"
EMBEDDING, NORM, LOGITS = "embedding", "norm", "logits"
LAYER = "layer"
"""What `kind_of` calls the stage `layers.N`."""

IN_A_LAYER = (
    ATTENTION_NORM,
    ATTENTION,
    ATTENTION_POST_NORM,
    MID_RESIDUAL,
    MLP_NORM,
    ROUTER,
    EXPERT_IDS,
    EXPERT_WEIGHTS,
    MLP,
    MLP_POST_NORM,
    LAYER,
)
"""In the order in which they are computed."""
ROUTING = (ROUTER, EXPERT_IDS, EXPERT_WEIGHTS)
_EXPECTED = (ATTENTION_NORM, ATTENTION, MLP_NORM, MLP)
"""What nearly every layer has: where one is not found, that is said."""

_NAMES = {
    ATTENTION_NORM: ("input_layernorm", "ln_1"),
    ATTENTION: ("self_attn", "attn", "attention", "self_attention", "linear_attn"),
    MLP_NORM: ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2"),
    MLP: ("mlp", "block_sparse_moe", "feed_forward"),
}
"""What models call these modules of a layer; the first that is there is it."""
_AFTER_ATTENTION, _BEFORE_MLP, _AFTER_MLP = (
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_FINAL_NORMS = ("norm", "final_layernorm", "ln_f", "norm_f")
_ROUTERS = ("gate", "router")
_LAYERS = re.compile(r"(?P<before>.*\.)?(?P<list>layers|h|blocks)\.(?P<number>\d+)")
_OTHER_TOWERS = re.compile(r"vision|visual|audio|encoder|mtp")

Architecture = Literal["transformers", "vllm", "sglang"]
Part = Literal["input", "output", "stream", "expert_ids", "expert_weights", "selection"]


class Site(NamedTuple):
    """Where an engine has a stage: what goes into a module or comes out of it.

    "stream" is the residual that a norm reads, also where it adds two parts of it first. "expert_ids" and
    "expert_weights" are among several outputs; "selection" is a module that has no output with them.
    """

    module: str
    part: Part


@dataclass(frozen=True)
class Matched:
    """The stages that were found, in the order in which they are computed, and why others were not."""

    sites: dict[str, Site]
    unmatched: dict[str, str]


def kind_of(stage: str) -> str:
    """What is the same in every layer: `attention` of `layers.3.attention`."""
    return stage.split(".")[2] if stage.count(".") == 2 else LAYER if stage.startswith("layers.") else stage


def layer_of(stage: str) -> int | None:
    return int(stage.split(".")[1]) if stage.startswith("layers.") else None


def read_by(stage: str, stages: Collection[str]) -> str | None:
    """Which of these a stage reads; of a layer's output the one before. None: token ids, or a sum of several."""
    number, kind = layer_of(stage), kind_of(stage)
    if number is None:
        layers = [each for each in stages if kind_of(each) == LAYER]
        before = {NORM: in_order(layers)[-1:], LOGITS: [NORM]}.get(kind, [])
    else:
        stream, own = EMBEDDING if number == 0 else f"layers.{number - 1}", f"layers.{number}."
        before = {
            ATTENTION_NORM: [stream],
            ATTENTION: [f"{own}{ATTENTION_NORM}", stream],
            ATTENTION_POST_NORM: [f"{own}{ATTENTION}"],
            MLP_NORM: [f"{own}{MID_RESIDUAL}"],
            ROUTER: [f"{own}{MLP_NORM}"],
            EXPERT_IDS: [f"{own}{ROUTER}"],
            EXPERT_WEIGHTS: [f"{own}{ROUTER}"],
            MLP: [f"{own}{MLP_NORM}"],
            MLP_POST_NORM: [f"{own}{MLP}"],
            LAYER: [stream],
        }.get(kind, [])
    return next((each for each in before if each in stages), None)


def in_order(stages: Iterable[str]) -> list[str]:
    """As a forward computes them."""
    return sorted(stages, key=_place)


def _place(stage: str) -> tuple[float, int]:
    ends = {EMBEDDING: (-1, 0), NORM: (float("inf"), 0), LOGITS: (float("inf"), 1)}
    layer = layer_of(stage)
    return ends[stage] if layer is None else (layer, IN_A_LAYER.index(kind_of(stage)))


def asked_for(stage: str, patterns: Collection[str]) -> bool:
    """Whether a stage is among those that a task names, `layers.*.mlp` naming one of every layer; none: all are."""
    return not patterns or stage in patterns or re.sub(r"\d+", "*", stage) in patterns


def match(modules: Sequence[str], architecture: Architecture, patterns: Collection[str] = ()) -> Matched:
    """Find the stages that are asked for among a model's modules, by their names."""
    here = set(modules)
    prefix, numbers = _layers(here)
    sites: dict[str, Site] = {}
    unmatched: dict[str, str] = {}
    if prefix is None:
        wanted = [pattern for pattern in patterns or (EMBEDDING, "layers.*", NORM) if pattern != LOGITS]
        return Matched({}, dict.fromkeys(wanted, "the model has no list of layers named layers, h or blocks"))
    final_norm = _first(prefix.rpartition(".")[0], _FINAL_NORMS, here)
    for number in numbers:
        found = _in_layer(f"{prefix}.{number}", here, architecture)
        for kind in (*_EXPECTED, *(ROUTING if set(patterns) & {f"layers.*.{kind}" for kind in ROUTING} else ())):
            if kind not in found:
                unmatched[f"layers.{number}.{kind}"] = _why_not(kind, number)
        sites |= {f"layers.{number}.{kind}": site for kind, site in found.items()}
    sites |= _streams(sites, prefix, numbers, final_norm, architecture)
    if final_norm is None:
        unmatched[NORM] = f"no module beside the layers is named {', '.join(_FINAL_NORMS)}"
    else:
        sites[NORM] = Site(final_norm, "output")
    return Matched(
        {stage: sites[stage] for stage in in_order(sites) if asked_for(stage, patterns)},
        {stage: unmatched[stage] for stage in in_order(unmatched) if asked_for(stage, patterns)},
    )


def _layers(modules: set[str]) -> tuple[str | None, list[int]]:
    """The list of the decoder's layers, and their numbers: the longest one that is of no other tower."""
    lists: dict[str, set[int]] = {}
    for name in modules:
        if (found := _LAYERS.fullmatch(name)) and not _OTHER_TOWERS.search(name):
            lists.setdefault(f"{found['before'] or ''}{found['list']}", set()).add(int(found["number"]))
    if not lists:
        return None, []
    prefix = max(sorted(lists), key=lambda name: len(lists[name]))
    return prefix, sorted(lists[prefix])


def _in_layer(layer: str, modules: set[str], architecture: Architecture) -> dict[str, Site]:
    found = {kind: Site(name, "output") for kind in _NAMES if (name := _first(layer, _NAMES[kind], modules))}
    if f"{layer}.{_AFTER_MLP}" in modules:  # norms after each part, with or without those before it
        found[MLP_POST_NORM] = Site(f"{layer}.{_AFTER_MLP}", "output")
        found[ATTENTION_POST_NORM] = Site(f"{layer}.{_AFTER_ATTENTION}", "output")
        if f"{layer}.{_BEFORE_MLP}" not in modules:
            del found[MLP_NORM]
    if MLP in found and (router := _first(found[MLP].module, _ROUTERS, modules)):
        selects = {"transformers": router, "sglang": f"{found[MLP].module}.topk", "vllm": found[MLP].module}
        found[ROUTER] = Site(router, "output")
        if (module := selects[architecture]) in modules:
            own = architecture != "vllm"
            found[EXPERT_IDS] = Site(module, "expert_ids" if own else "selection")
            found[EXPERT_WEIGHTS] = Site(module, "expert_weights" if own else "selection")
    return found


def _streams(
    sites: dict[str, Site], prefix: str, numbers: list[int], final_norm: str | None, architecture: Architecture
) -> dict[str, Site]:
    """The residual stream: in transformers what layers hand on; elsewhere its parts are summed in the next norm."""
    own = architecture == "transformers"
    streams = {EMBEDDING: Site(f"{prefix}.{numbers[0]}", "input")} if own else {}
    reads = {number: sites.get(f"layers.{number}.{ATTENTION_NORM}") for number in numbers}
    if not own and (first := reads[numbers[0]]) is not None:
        streams[EMBEDDING] = Site(first.module, "stream")
    for number, after in zip(numbers, [*numbers[1:], None], strict=True):
        if norm := sites.get(f"layers.{number}.{MLP_NORM}"):
            streams[f"layers.{number}.{MID_RESIDUAL}"] = Site(norm.module, "input" if own else "stream")
        following = None if after is None else reads[after]
        reader = final_norm if after is None else None if following is None else following.module
        if own:
            streams[f"layers.{number}"] = Site(f"{prefix}.{number}", "output")
        elif reader is not None:
            streams[f"layers.{number}"] = Site(reader, "stream")
    return streams


def _first(parent: str, names: Iterable[str], modules: set[str]) -> str | None:
    candidates = (f"{parent}.{name}" if parent else name for name in names)
    return next((name for name in candidates if name in modules), None)


def _why_not(kind: str, number: int) -> str:
    if kind in ROUTING:
        return f"layer {number} has no router named {' or '.join(_ROUTERS)}"
    return f"no module of layer {number} is named {', '.join(_NAMES[kind])}"
