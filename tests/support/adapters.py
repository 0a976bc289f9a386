"""LoRA adapters of random weights, large enough to show, and the checkpoints that merging them makes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch


def save_adapter(base: Path, directory: Path, *, merged: Path | None = None, **config: Any) -> Path:
    """An adapter on the model in `base`; `config` goes into its LoraConfig. `merged` receives the two in one."""
    import peft
    import transformers

    network = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]} | config
    torch.manual_seed(1)
    model = peft.get_peft_model(network, peft.LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(directory)
    if merged is not None:
        model.merge_and_unload().save_pretrained(merged)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (base / name).is_file():
                shutil.copy(base / name, merged)
    return directory
