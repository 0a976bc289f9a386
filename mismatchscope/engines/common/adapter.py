"""PEFT adapters: adapter_config.json and adapter_model.safetensors, which are run on top of their base model.

An adapter is part of a model's identity: its weights, and what its configuration says of how they are applied.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ModelError
from .checkpoint import file_sha256
from .identity import read_json
from .location import snapshot

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

NO_ADAPTER = "none"
"""The value of the option `adapter` that runs a model without any."""

SCALING = ("use_rslora", "rank_pattern", "alpha_pattern", "lora_bias", "modules_to_save")
"""Keys of a LoRA's configuration, beside `r` and `lora_alpha`, that change what it computes."""

_UNSET: tuple[Any, ...] = (None, False, {}, [])

# Where the base lies and what wrote the file: nothing of what the adapter computes.
_INCIDENTAL = {
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
    "parent_library",
    "peft_version",
}


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk, with its configuration."""

    directory: Path
    config: dict[str, Any]

    @property
    def rank(self) -> int:
        """The largest rank that any module of a LoRA has."""
        return max([int(self.config.get("r", 0)), *map(int, (self.config.get("rank_pattern") or {}).values())])

    @property
    def merge_hint(self) -> str:
        """How to make a checkpoint of the adapter and its base, which every engine takes."""
        return (
            'merge it: python -c "from peft import AutoPeftModelForCausalLM as M; '
            f"M.from_pretrained('{self.directory}').merge_and_unload().save_pretrained('MERGED')\", copy the "
            "base's tokenizer files into MERGED, and pass it as --model without an adapter"
        )

    def remarks(self, engine: str, read: Collection[str] = ()) -> list[str]:
        """What an engine that reads these keys of `SCALING` passes over in silence."""
        ignored = [key for key in SCALING if key not in read and self.config.get(key) not in _UNSET]
        return (
            [f"{engine} takes no notice of {', '.join(ignored)} in the adapter's configuration."] if ignored else []
        )

    def facts(self) -> dict[str, Any]:
        """The `adapter` entry of a manifest's model: `config` has the keys that are set, lists in sorted order."""
        return {
            "name": self.directory.resolve().name,
            "path": str(self.directory),
            "weights_sha256": file_sha256(self.directory / WEIGHTS),
            "config": {
                # PEFT writes a set of modules in an order that differs from one save to the next.
                key: sorted(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
                for key, value in self.config.items()
                if key not in _INCIDENTAL and value not in _UNSET
            },
        }

    def check_head(self, engine: str) -> None:
        """Raise `ModelError` where the adapter changes the LM head and the engine scores the states of a prompt."""
        from safetensors import safe_open

        with safe_open(self.directory / WEIGHTS, framework="numpy") as file:
            changes_head = any("lm_head" in key for key in file.keys())  # noqa: SIM118 - not a mapping
        if changes_head:
            raise ModelError(
                f"{self.directory} changes the LM head, and {engine} runs such an adapter on the last state of a "
                "prompt alone, so it cannot score whole sequences with it",
                hint=self.merge_hint,
            )

    def check_lora(self, engine: str) -> None:
        """Raise `ModelError` where an engine that runs LoRA alone is given another kind."""
        if (kind := self.config.get("peft_type", "LORA")) != "LORA":
            raise ModelError(
                f"{engine} runs LoRA adapters alone; {self.directory} is of the kind {kind}",
                hint=self.merge_hint,
            )


def split_adapter(
    model: str, adapter: str, trust_remote_code: bool = False, *, download: bool = True
) -> tuple[str, Adapter | None]:
    """The base model and the adapter on top of it, from what a run names as `model` and as its option `adapter`.

    A model that is an adapter itself stands for its base with that adapter, and for its base alone where `adapter`
    is "none". Raises `ModelError`.
    """
    own = _own_adapter(model, trust_remote_code, download)
    if own is None:
        return model, None if adapter in ("", NO_ADAPTER) else _open(snapshot(adapter, download=download))
    if adapter not in ("", NO_ADAPTER) and Path(adapter).resolve() != own.directory.resolve():
        raise ModelError(
            f"the model {model} is an adapter, and adapter={adapter} is a second one",
            hint="pass the base as --model, and one of the two as --adapter",
        )
    base = own.config.get("base_model_name_or_path")
    if not base:
        raise ModelError(
            f"the adapter {model} does not say which model it belongs to", hint=f"--model BASE --adapter {model}"
        )
    is_path = Path(base).is_absolute() or base.startswith(".") or base.count("/") > 1  # a hub id is owner/name
    if is_path and not Path(base).is_dir():
        raise ModelError(
            f"the adapter {model} belongs to the model in {base}, which is not there",
            hint=f"--model BASE --adapter {model}",
        )
    return base, None if adapter == NO_ADAPTER else own


def _own_adapter(model: str, trust_remote_code: bool, download: bool) -> Adapter | None:
    """What `model` is, where that is an adapter."""
    directory = snapshot(model, trust_remote_code, download=download)
    if not (directory / CONFIG).is_file():
        return None
    if any(file.name != WEIGHTS for file in directory.glob("*.safetensors")):
        raise ModelError(
            f"{directory} holds the weights of a model and an adapter, so nothing says which of them is meant",
            hint=f"keep {CONFIG} and {WEIGHTS} in a directory of their own: --model MODEL --adapter DIRECTORY",
        )
    return _open(directory)


def _open(directory: Path) -> Adapter:
    path = directory / CONFIG
    try:
        config = read_json(path)
    except ModelError as error:
        raise ModelError(
            f"{directory} is no PEFT adapter: {error.message}",
            hint="pass the directory that save_pretrained of a PeftModel wrote",
        ) from error
    if not (directory / WEIGHTS).is_file():
        raise ModelError(
            f"the adapter {directory} has no {WEIGHTS}; a pickle is never loaded",
            hint="load it once with peft and save_pretrained(directory), which writes safetensors",
        )
    return Adapter(directory, config)
