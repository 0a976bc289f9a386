"""Tiny random checkpoints, with a tokenizer of single characters, that load in milliseconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

VOCABULARY = 64
EOS = 0
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def save_model(directory: Path, dtype: torch.dtype = torch.float32, **changes: object) -> Path:
    """A Qwen3 of two layers and its tokenizer; `changes` go into the configuration."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,  # far from uniform, so that a wrong position or mask shows
        "tie_word_embeddings": True,
        "eos_token_id": EOS,
        "bos_token_id": None,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**settings | changes), dtype=dtype)
    model.save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def save_older(present: Path, directory: Path) -> Path:
    """The checkpoint of before an update: other weights in one layer."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(present, directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    model.save_pretrained(directory)
    return directory


def save_architecture(directory: Path, kind: str, **changes: object) -> None:
    """A model of two layers of that class of transformers', in float32, without a tokenizer."""
    import transformers

    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "eos_token_id": EOS,
        "pad_token_id": None,
    }
    config = getattr(transformers, f"{kind}Config")(**settings | changes)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)


def save_tokenizer(directory: Path, size: int = VOCABULARY - 4, chat_template: str | None = None) -> None:
    """One token a character, from '<eos>' = 0 and ' ' = 1 upwards."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<eos>": EOS} | {chr(31 + token_id): token_id for token_id in range(1, size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    wrapped.chat_template = chat_template
    wrapped.save_pretrained(directory)
