"""A model that computes otherwise than its checkpoint says: other keys of its configuration, another scale of
attention."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ModelError
from ..common.checkpoint import read_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_ROTARY = "rope_parameters"
_ROTARY_BEFORE = ("rope_theta", "rope_scaling")
"""What transformers 5 reads from old files alone, and keeps in a table of its own."""


def overridden(path: Path, overrides: Mapping[str, Any], *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of the model in `path` with other values. Raises `ModelError` for a key that it has not."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(
            f"transformers cannot read the configuration in {path}: {type(error).__name__}: {error}",
            hint="check config.json",
        ) from error
    own = config.to_dict()
    values = merged(own, overrides)
    # On top of the file, not of what the class has made of it: what is derived is derived again.
    changed = read_config(path) | {key: values[key] for key in overrides}
    if _ROTARY in overrides:
        changed = {key: value for key, value in changed.items() if key not in _ROTARY_BEFORE}
    try:
        return type(config).from_dict(changed)
    except Exception as error:
        raise ModelError(
            f"hf_overrides: {type(config).__name__} does not take these values: {type(error).__name__}: {error}"
        ) from error


def merged(values: Mapping[str, Any], overrides: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """A table with other values; a table within it is merged in turn. Raises `ModelError` for a key that it has
    not: what nothing reads changes nothing, in silence."""
    found = dict(values)
    for key, value in overrides.items():
        name = f"{within}{key}"
        if key in _ROTARY_BEFORE and isinstance(values.get(_ROTARY), Mapping):
            inner = {key: value} if key == "rope_theta" else value
            raise ModelError(
                f"hf_overrides: transformers reads {name} from {within}{_ROTARY}.",
                hint=f"{within}{_ROTARY}: {inner}",
            )
        # The parameters of a rotary embedding are those of its kind, which may be another one than before.
        if key not in values and not within.startswith(_ROTARY):
            close = difflib.get_close_matches(key, values, n=1)
            raise ModelError(
                f"hf_overrides: the model's configuration has no key {name}.",
                hint=f"did you mean {within}{close[0]}?" if close else "see config.json of the model",
            )
        old = values.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = merged(old, value, f"{name}.")
        found[key] = value
    return found


def scale_attention(network: PreTrainedModel, factor: float) -> None:
    """Multiply the scale of the scores of all attention. Raises `ModelError` where none has a scale that shows."""
    modules = [
        module
        for module in network.modules()
        if "attention" in type(module).__name__.lower() and isinstance(getattr(module, "scaling", None), float)
    ]
    if not modules:
        raise ModelError(
            f"attention_scale: no attention of {type(network).__name__} has a scale that can be changed",
            hint="leave attention_scale out",
        )
    for module in modules:
        module.scaling *= factor
