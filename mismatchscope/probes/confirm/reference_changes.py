"""What the reference's side can be given otherwise, so that it computes what a fault of the other side would.

The candidates that a model and a run have: those that its configuration has a key for, that its prompts have a
token for, that its sampler has a setting for. The engine that scores is transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ...collection.embedded import resolve_model
from ...diagnosis.candidates import Candidate, Family
from ...engines.common.adapter import NO_ADAPTER
from ...engines.spec import EngineSpec
from ...errors import CapabilityError
from ...records import Sampling
from ..other_contexts import AddedBos, Bos, Template
from ..plan import OtherTokens

ENGINE = "transformers"
_OVERRIDES, _SCALE = "hf_overrides", "attention_scale"
_EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")
_BASES = (1e4, 5e5, 1e6, 1e7)
"""Rotary bases that models have."""
_FACTORS = (2.0, 4.0, 8.0)
"""Of an embedding that is scaled where the model's is not."""
_SOFT_CAP = "attn_logit_softcapping"


@dataclass(frozen=True)
class Change:
    """What is otherwise on the reference's side. `overrides` are keys of the model's configuration, `options` of
    the SPEC, `as_sampler` has it cut off what the sampler cuts off. The first token of each response stays as it
    is where `after_first` is true."""

    overrides: Mapping[str, Any] | None = None
    options: tuple[tuple[str, str], ...] = ()
    tokens: OtherTokens | None = None
    temperature: float | None = None
    as_sampler: bool = False
    without_adapter: bool = False
    after_first: bool = False

    def applied(self, spec: EngineSpec) -> EngineSpec:
        """The SPEC that scores under this change."""
        options = spec.options | dict(self.options)
        if self.overrides:
            given = json.loads(options.get(_OVERRIDES, "{}"))
            options[_OVERRIDES] = json.dumps(_over(given, self.overrides))
        if self.without_adapter:
            options["adapter"] = NO_ADAPTER
        return replace(spec, options=options)


class Trial(NamedTuple):
    """A candidate, or a family of them, and what each is on the reference's side."""

    of: Candidate | Family
    change: Callable[[float], Change]

    @property
    def cause(self) -> str:
        return self.of.cause


@dataclass(frozen=True)
class Subject:
    """What candidates depend on: the reference's SPEC, its adapter in it, its model and that model's configuration
    as its file has it, the sampler, what the reference divides its logits by (None: the policy is the raw one), and
    how many tokens the longest sequence has."""

    spec: EngineSpec
    model: str
    config: Mapping[str, Any]
    sampling: Sampling
    temperature: float | None
    longest: int


def check_reference(spec: EngineSpec) -> None:
    """Raise `CapabilityError` for a reference that computes no candidates."""
    if spec.name != ENGINE or spec.served:
        raise CapabilityError(
            f"Candidates are computed by {ENGINE}, and the reference is {spec.name}.", hint=f"--reference {ENGINE}"
        )


def trials(subject: Subject, suspected: Sequence[str] = ()) -> list[Trial]:
    """The candidates of suspected causes first, in their order. Raises `CapabilityError` for a reference that
    computes none."""
    check_reference(subject.spec)
    found = [
        trial for some in (_beginnings, _sampler, _numbers, _rotary, _window, _weights) for trial in some(subject)
    ]
    order = {cause: place for place, cause in enumerate(suspected)}
    return sorted(found, key=lambda trial: order.get(trial.cause, len(order)))


def _beginnings(subject: Subject) -> Iterator[Trial]:
    variants: list[OtherTokens] = [Bos(2), Bos(0), AddedBos()]
    variants += [Template(resolve_model(subject.model), added) for added in (True, False)]
    for tokens in variants:
        yield _one("context", tokens.label, Change(tokens=tokens))


def _sampler(subject: Subject) -> Iterator[Trial]:
    own = subject.temperature
    if own is None:
        return
    values = [own * factor for factor in (0.6, 0.9, 1.1, 1.6)]
    yield Trial(Family("temperature", "temperature", values, own), lambda value: Change(temperature=value))
    sampling = subject.sampling
    if sampling.truncates and not sampling.min_p and not sampling.reweighs:
        cut = {"top_p": sampling.top_p, "top_k": sampling.top_k}
        name = ", ".join(f"{key} = {value:g}" for key, value in cut.items() if value not in (0, 1))
        yield _one("truncation", name, Change(as_sampler=True))


def _numbers(subject: Subject) -> Iterator[Trial]:
    own = float(subject.spec.options.get(_SCALE, 1.0))
    scales = [own * factor for factor in (0.4, 0.8, 1.25, 2.5)]
    yield Trial(
        Family("attention_scale", "attention scale", scales, own),
        lambda value: Change(options=((_SCALE, repr(value)),)),
    )
    text = _text(subject.config)
    if text.get(_SOFT_CAP):
        yield _one("attention_scale", "no soft cap", _overriding(subject, lambda value: {_SOFT_CAP: None})(0))
    key = next((key for key in _EPSILONS if text.get(key)), None)
    if key is not None:
        family = Family("norm", key, (1e-4, 1e-2, 1e-1), float(text[key]))
        yield Trial(family, _overriding(subject, lambda value: {key: value}))


def _rotary(subject: Subject) -> Iterator[Trial]:
    text = _text(subject.config)
    parameters = dict(text.get("rope_parameters") or text.get("rope_scaling") or {})
    base = parameters.get("rope_theta") or text.get("rope_theta")
    if not isinstance(base, (int, float)):  # none, or one for each kind of layer
        return

    def rotary(**values: Any) -> Mapping[str, Any]:
        return {"rope_parameters": values}

    bases = sorted({*_BASES, base / 2, base * 2} - {float(base)})
    family = Family("rope", "rope_theta", bases, float(base))
    yield Trial(family, _overriding(subject, lambda value: rotary(rope_theta=value)))
    kind, factor = parameters.get("rope_type") or parameters.get("type") or "default", parameters.get("factor")
    if kind == "default":
        yield from (_scaled(subject, other) for other in ("linear", "yarn"))
    elif isinstance(factor, (int, float)):
        factors = sorted({1.0, *_FACTORS, factor / 2, factor * 2} - {float(factor)})
        family = Family("rope", f"factor of the {kind} rotary scaling", factors, float(factor))
        yield Trial(family, _overriding(subject, lambda value: rotary(factor=value)))
        change = _overriding(subject, lambda value: rotary(rope_type="default"))(0)
        yield _one("rope", "no rotary scaling", change)


def _scaled(subject: Subject, kind: str) -> Trial:
    """A scaling where the model has none."""

    def values(factor: float) -> Mapping[str, Any]:
        return {"rope_parameters": {"rope_type": kind, "factor": factor}}

    return Trial(Family("rope", f"factor of a {kind} rotary scaling", _FACTORS, 1.0), _overriding(subject, values))


def _window(subject: Subject) -> Iterator[Trial]:
    """Of the layers that slide, or of all where none does."""
    text = _text(subject.config)
    if "sliding_window" not in text:
        return
    kinds = list(text.get("layer_types") or [])
    more: dict[str, Any] = {key: True for key in ("use_sliding_window",) if key in text}
    if kinds and "sliding_attention" not in kinds:
        more["layer_types"] = ["sliding_attention"] * len(kinds)
    elif not kinds and "max_window_layers" in text:
        more["max_window_layers"] = 0
    slides = "sliding_attention" in kinds or (text.get("use_sliding_window", True) and text["sliding_window"])
    own = float(text["sliding_window"]) if slides and text["sliding_window"] else float(subject.longest)
    sizes = {2.0**power for power in range(2, 20) if 2**power < subject.longest}
    values = sorted(sizes | {min(own, float(subject.longest)), float(subject.longest)})
    yield Trial(
        Family("window", "sliding_window", values, own, whole=True),
        _overriding(subject, lambda value: {"sliding_window": int(value), **more}),
    )


def _weights(subject: Subject) -> Iterator[Trial]:
    if subject.spec.options.get("adapter", NO_ADAPTER) not in ("", NO_ADAPTER):
        yield _one("adapter", "the base without its adapter", Change(without_adapter=True))
    for scales, words in (("per_tensor", "matrix"), ("per_channel", "output")):
        options = (("weight_quantization", f"fp8_{scales}"),)
        yield _one("fp8_weights", f"weights in fp8, a scale for each {words}", Change(options=options))
    # Some engines read the cache in a prefill, too; others give the first token from keys not rounded yet.
    cached = Change(options=(("kv_cache_dtype", "fp8"),))
    yield _one("fp8_cache", "keys and values in fp8", cached)
    yield _one("fp8_cache", "keys and values in fp8 after the first token", replace(cached, after_first=True))


def _one(cause: str, name: str, change: Change) -> Trial:
    return Trial(Candidate(cause, name), lambda value: change)


def _overriding(subject: Subject, values: Callable[[float], Mapping[str, Any]]) -> Callable[[float], Change]:
    inner = "text_config" in subject.config

    def change(value: float) -> Change:
        found = values(value)
        return Change(overrides={"text_config": found} if inner else found)

    return change


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("text_config", config)


def _over(given: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The one table with what the other has, tables within them merged in turn."""
    found = dict(given)
    for key, value in other.items():
        old = found.get(key)
        found[key] = _over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found
