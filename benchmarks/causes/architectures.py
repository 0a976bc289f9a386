"""The models that causes are planted in: the two embedded ones, and two of other architectures, trained here.

`llama` has rotary embeddings, RMS norms, a head of its own and a BOS; `neox` has layer norms, biases, a parallel
residual and rotary embeddings on a quarter of each head. They are trained for a few minutes on the text of the
embedded models, so that the entropy of their states varies, and kept in the user's cache.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

VOCABULARY = 1024
EOS, PAD = 0, 1
EMBEDDED = ("dense", "moe")
TRAINED = ("llama", "neox")
WITH_BOS = TRAINED
"""Models whose prompts begin with a token of their own; it is the end-of-sequence token, as in GPT-2."""
STEPS = 700


@dataclass(frozen=True)
class LanguageModel:
    """A model in float32 with weights that are bfloat16 numbers, and the ids of texts."""

    name: str
    network: Any
    tokenizer: Any

    @property
    def has_bos(self) -> bool:
        return self.name in WITH_BOS

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)


def load(name: str, cache: Path) -> LanguageModel:
    """A model by name; one that is trained here is trained the first time."""
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    from mismatchscope.demo import model_path

    directory = model_path(name) if name in EMBEDDED else cache / "models" / f"{name}-{STEPS}"
    if name in TRAINED and not (directory / "config.json").exists():
        _train(name, directory)
    network = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    network.requires_grad_(False)
    return LanguageModel(name, network, Tokenizer.from_file(str(model_path("dense") / "tokenizer.json")))


def prompts(model: LanguageModel, count: int, part: str) -> list[list[int]]:
    """Ids of problems that no model was trained on; those of the two parts of the benchmark have no problem in
    common."""
    from arithmetic_corpus import draw_problem

    rng = random.Random(f"prompts {part}")
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        problem = draw_problem(rng, held_out=True)
        if (sum(problem.numbers) % 2 == 0) == (part == "development"):
            drawn[problem.prompt] = None
    bos = [EOS] if model.has_bos else []
    return [bos + model.ids(prompt) for prompt in drawn]


def _network(name: str) -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

    common: dict[str, Any] = dict(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=EOS,
        eos_token_id=EOS,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    if name == "llama":
        rope = {"rope_type": "default", "rope_theta": 10_000.0}
        return LlamaForCausalLM(
            LlamaConfig(**common, intermediate_size=384, num_key_value_heads=2, rope_parameters=rope)
        )
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**common, intermediate_size=512, rope_parameters=rope))


def _train(name: str, directory: Path) -> None:
    from tokenizers import Tokenizer
    from train_demo_models import IGNORED, Recipe, batches, learning_rate

    from mismatchscope.demo import model_path

    print(f"training the {name} model ({STEPS} steps), once", file=sys.stderr, flush=True)
    torch.manual_seed(5)
    network = _network(name)
    recipe = Recipe(name, STEPS * 32, seed=5, warmup_steps=50)
    batched = batches(Tokenizer.from_file(str(model_path("dense") / "tokenizer.json")), recipe)
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), weight_decay=0.02)
    for step, (ids, labels) in enumerate(batched):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(batched), recipe)
        bos = torch.full((len(ids), 1), EOS)
        ids, labels = torch.cat([bos, ids], 1), torch.cat([torch.full_like(bos, IGNORED), labels], 1)
        loss = network(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"  step {step}  loss {loss.item():.3f}", file=sys.stderr, flush=True)
    network.to(torch.bfloat16).save_pretrained(directory)
    (directory / "training.json").write_text(json.dumps({"steps": len(batched), "loss": round(loss.item(), 3)}))
