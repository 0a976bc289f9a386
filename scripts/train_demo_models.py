"""Train the demo models that ship in mismatchscope/demo, from text this repository generates.

    python scripts/train_demo_models.py --model dense
    python scripts/train_demo_models.py --model moe
    python scripts/write_model_card.py

The two models share one tokenizer and may be trained at the same time, one thread each. The budget is a
number of documents, the seed is fixed and one thread adds in one order, so the same command on the same
machine and library versions gives the same weights. A model directory is replaced whole every --save-every
steps, so what lies there can be loaded at any time. The master weights are float32, the matrix products
bfloat16 (autocast); what is saved, and measured by write_model_card.py, is bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from arithmetic_corpus import draw_problem, draw_response
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

DEMO_DIR = Path(__file__).resolve().parent.parent / "mismatchscope" / "demo"
PROMPTS = 256
PROMPTS_SEED = 7

EOS, PAD = "<|endoftext|>", "<|pad|>"
EOS_ID, PAD_ID = 0, 1
IGNORED = -100  # the label that the loss leaves out
VOCABULARY = 1024
# Words with their leading space, digits one by one, runs of other characters, whitespace.
PRE_TOKEN = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
TOKENIZER_DOCUMENTS = 20_000
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}Question: {{ message['content'] }}\nAnswer:"
    "{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    model: str
    documents: int
    seed: int = 1
    batch_documents: int = 32
    learning_rate: float = 2.5e-3
    final_learning_rate: float = 4e-5
    warmup_steps: int = 200
    weight_decay: float = 0.05
    gradient_clip: float = 1.0


DOCUMENTS = {"dense": 108_000, "moe": 80_000}


def build_model(name: str) -> PreTrainedModel:
    common = dict(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        # For documents of this length the plain attention is three times faster on a CPU than SDPA's backward.
        attn_implementation="eager",
    )
    if name == "dense":
        return Qwen3ForCausalLM(Qwen3Config(**common))
    moe = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=128, norm_topk_prob=True)
    config = Qwen3MoeConfig(**common, **moe, experts_implementation="grouped_mm", router_aux_loss_coef=0.01)
    return Qwen3MoeForCausalLM(config)


def documents(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Prompts and responses of the training split."""
    rng = random.Random(seed)
    for _ in range(count):
        problem = draw_problem(rng, held_out=False)
        yield problem.prompt, draw_response(problem, rng)


def held_out_prompts() -> list[dict[str, str]]:
    """The shipped problems: distinct prompts of the held-out split."""
    rng = random.Random(PROMPTS_SEED)
    answers: dict[str, int] = {}
    while len(answers) < PROMPTS:
        problem = draw_problem(rng, held_out=True)
        answers[problem.prompt] = problem.answer
    return [{"prompt": prompt, "answer": str(answer)} for prompt, answer in answers.items()]


def train_tokenizer(seed: int) -> Tokenizer:
    """Byte-level BPE over the training split; every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PRE_TOKEN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (prompt + response for prompt, response in documents(TOKENIZER_DOCUMENTS, seed))
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise RuntimeError(f"the corpus has too few words for {VOCABULARY} tokens")
    return tokenizer


def batches(tokenizer: Tokenizer, recipe: Recipe) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and labels [documents, length], right-padded, of documents of like length, in random order.

    Labels leave the prompt out: only the response is learned, and the end of the sequence after it.
    """
    prompts, responses = zip(*documents(recipe.documents, recipe.seed), strict=True)
    rows = []
    for prompt, response in zip(tokenizer.encode_batch(prompts), tokenizer.encode_batch(responses), strict=True):
        learned = [*response.ids, EOS_ID]
        rows.append((prompt.ids + learned, [IGNORED] * len(prompt.ids) + learned))
    pool = recipe.batch_documents * 64
    result = []
    for start in range(0, len(rows), pool):
        by_length = sorted(rows[start : start + pool], key=lambda row: len(row[0]))
        for first in range(0, len(by_length), recipe.batch_documents):
            ids, labels = zip(*by_length[first : first + recipe.batch_documents], strict=True)
            result.append((_right_padded(ids, PAD_ID), _right_padded(labels, IGNORED)))
    random.Random(recipe.seed).shuffle(result)
    return result


def _right_padded(rows: Sequence[list[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to the final rate."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    span = recipe.learning_rate - recipe.final_learning_rate
    return recipe.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2


def train(recipe: Recipe, destination: Path, save_every: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(recipe.seed)
    model = build_model(recipe.model)
    save(model, tokenizer, recipe, destination, {"steps": 0, "tokens": 0, "seconds": 0, "loss": None})
    batched = batches(tokenizer, recipe)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        fused=True,
    )
    router_loss = {"output_router_logits": True} if recipe.model == "moe" else {}
    started, tokens, average = time.monotonic(), 0, math.nan
    for step, (ids, labels) in enumerate(batched):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(batched), recipe)
        # Padding is on the right of a causal model: no real token sees it, so no attention mask is needed.
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=labels, use_cache=False, **router_loss).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int((ids != PAD_ID).sum())
        average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
        done = step + 1
        if done % 100 == 0 or done == len(batched):
            seconds = time.monotonic() - started
            print(f"step {done}/{len(batched)}  loss {average:.4f}  {tokens / seconds:.0f} tokens/s", flush=True)
        if done % save_every == 0 or done == len(batched):
            progress = {"steps": done, "tokens": tokens, "seconds": round(time.monotonic() - started)}
            save(model, tokenizer, recipe, destination, progress | {"loss": round(average, 4)})


def save(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    recipe: Recipe,
    destination: Path,
    progress: dict[str, object],
) -> None:
    """Replace the model directory: bfloat16 weights, configuration, tokenizer and how it was trained."""
    directory = destination.with_name(f".{destination.name}.new")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config = copy.deepcopy(model.config)
    # Trained tied, stored with a head of its own: published Qwen3-MoE models are untied, and SGLang's
    # implementation of them reads no tied head.
    config.tie_word_embeddings = recipe.model == "dense"
    stored = type(model)(config).to(torch.bfloat16)
    stored.load_state_dict(model.state_dict())
    stored.save_pretrained(directory)
    written = json.loads((directory / "config.json").read_text())
    # Engines built on transformers 4 look for these names.
    written |= {"torch_dtype": "bfloat16", "rope_theta": written["rope_parameters"]["rope_theta"]}
    if recipe.model == "moe":
        written["num_experts"] = config.num_experts
    write_json(directory / "config.json", written)
    write_json(directory / "generation_config.json", {"eos_token_id": EOS_ID, "pad_token_id": PAD_ID})
    (directory / "model.safetensors").chmod(0o644)
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {"eos_token": EOS, "pad_token": PAD}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= {"model_max_length": config.max_position_embeddings, "chat_template": CHAT_TEMPLATE}
    write_json(directory / "tokenizer_config.json", special | settings)
    write_json(directory / "special_tokens_map.json", special)
    write_json(directory / "training.json", {"recipe": asdict(recipe), **progress})
    replaced = destination.with_name(f".{destination.name}.old")
    if destination.exists():
        destination.rename(replaced)
    directory.rename(destination)
    shutil.rmtree(replaced, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(DOCUMENTS), required=True)
    parser.add_argument("--documents", type=int, help="training documents (default: the shipped recipe's)")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--save-every", type=int, default=500, metavar="STEPS")
    parser.add_argument("--output", type=Path, default=DEMO_DIR, help="directory that holds the models")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    prompts = "".join(json.dumps(row) + "\n" for row in held_out_prompts())
    (options.output / "prompts.jsonl").write_text(prompts)
    recipe = Recipe(options.model, options.documents or DOCUMENTS[options.model], options.seed)
    train(recipe, options.output / options.model, options.save_every)


if __name__ == "__main__":
    main()
