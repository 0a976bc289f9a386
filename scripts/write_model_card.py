"""Measure the demo models as they are stored and write model_card.json and MODEL_CARD.md.

    python scripts/write_model_card.py

The figures: accuracy of the greedy answers to the shipped held-out prompts, and what sampling at temperature 1
sees there: entropy of the next-token distribution and the share of states whose most likely token has more
than 0.99, both over the states of the responses (the one that chose the end-of-sequence token included).
The stored weights are bfloat16; the forward pass here is float32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from arithmetic_corpus import final_number
from train_demo_models import DEMO_DIR, DOCUMENTS, EOS_ID, write_json
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 120
SAMPLING_SEED = 11
CERTAIN = 0.99
DIGITS = 4
CARD = """\
# Model card: the embedded demo models

Two small language models of worked arithmetic, made so that `mismatchscope` runs with nothing downloaded.
They are test objects: real enough to sample varied text from and to get answers right, of no other use.

|  | dense | moe |
|---|---|---|
{table}

Accuracy, lengths and end-of-sequence rates are over the {prompts} problems of `prompts.jsonl`; entropy and
p_max over the states that sampling at temperature 1 passed through there. The weights are stored in bfloat16
and were measured in a float32 forward pass.

**Data.** Questions in plain and in story form about sums, differences, products, shares and two-step mixtures
of them, with answers that work the result out and may choose among openings, orders, ways to calculate, remarks
and closings. `scripts/arithmetic_corpus.py` writes it; nothing else went in. One problem in ten, by a hash of its
kind and numbers, is held out from training in every wording. The loss is on the response and the
end-of-sequence token after it.

**Architecture.** Qwen3ForCausalLM and Qwen3MoeForCausalLM as published, without custom code: {layers} layers,
hidden size {hidden}, heads of 64, embedding and head trained as one matrix (the MoE's file holds it twice, as not
every engine ties them); the MoE routes every token to 2 of 8 experts in every layer.
One byte-level BPE tokenizer of {vocabulary} tokens, every digit a token.

**Made again by** `python scripts/train_demo_models.py --model dense`, the same with `--model moe`, then
`python scripts/write_model_card.py`, which writes this file and `model_card.json`. The training time is
wall-clock time on one thread of a CPU that was busy with other work.
"""
ROWS = {
    "parameters": ("parameters", "{:,}"),
    "bytes of weights": ("weight_bytes", "{:,}"),
    "greedy accuracy, held-out problems": ("greedy_accuracy", "{:.1%}"),
    "accuracy of samples at T = 1": ("sampled_accuracy", "{:.1%}"),
    "greedy responses that end": ("greedy_eos_rate", "{:.1%}"),
    "samples that end": ("sampled_eos_rate", "{:.1%}"),
    "tokens of a greedy response, mean": ("greedy_tokens", "{:.1f}"),
    "tokens of a sample, mean": ("sampled_tokens", "{:.1f}"),
    "entropy of a state, mean, nats": ("mean_entropy", "{:.3f}"),
    "states with p_max > 0.99": ("share_p_max_above_0.99", "{:.1%}"),
    "training loss, nats a token": ("loss", "{:.3f}"),
    "training documents": ("documents", "{:,}"),
    "training tokens, prompts included": ("tokens", "{:,}"),
    "training steps": ("steps", "{:,}"),
    "training time, s": ("seconds", "{:,}"),
    "training seed": ("seed", "{}"),
    "sampling seed": ("sampling_seed", "{}"),
}


@dataclass(frozen=True)
class Rollout:
    """Responses of a batch of prompts, and the states they passed through."""

    texts: list[str]
    lengths: list[int]  # response tokens, end-of-sequence included
    finished: list[bool]  # whether end-of-sequence was reached
    entropy_T: torch.Tensor  # nats, over the states of all responses
    p_max_T: torch.Tensor


def load(directory: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval(), tokenizer


@torch.inference_mode()
def roll_out(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *, sample: bool
) -> Rollout:
    """Continue every prompt, greedily or at temperature 1 with the fixed seed."""
    torch.manual_seed(SAMPLING_SEED)
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    output = model.generate(
        **inputs,
        **({"do_sample": True, "top_k": 0} if sample else {"do_sample": False}),
        max_new_tokens=MAX_NEW_TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
    )
    response_BT = output.sequences[:, inputs["input_ids"].shape[1] :]
    ended_BT = response_BT == EOS_ID
    seen_BT = (ended_BT.cumsum(1) - ended_BT.long()) == 0
    logp_BTV = torch.stack(output.logits, dim=1).log_softmax(-1)
    entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(-1)
    return Rollout(
        texts=tokenizer.batch_decode(response_BT, skip_special_tokens=True),
        lengths=seen_BT.sum(1).tolist(),
        finished=ended_BT.any(1).tolist(),
        entropy_T=entropy_BT[seen_BT],
        p_max_T=logp_BTV.max(-1).values.exp()[seen_BT],
    )


def measure(directory: Path, rows: list[dict[str, str]]) -> dict[str, float]:
    """The card's figures for one model on these problems, computed on one thread: rows this small gain nothing
    from more, and the sums stay in one order."""
    torch.set_num_threads(1)
    model, tokenizer = load(directory)
    prompts = [row["prompt"] for row in rows]
    answers = [int(row["answer"]) for row in rows]
    greedy = roll_out(model, tokenizer, prompts, sample=False)
    sampled = roll_out(model, tokenizer, prompts, sample=True)
    figures = {
        "greedy_accuracy": _accuracy(greedy.texts, answers),
        "sampled_accuracy": _accuracy(sampled.texts, answers),
        "greedy_eos_rate": sum(greedy.finished) / len(rows),
        "sampled_eos_rate": sum(sampled.finished) / len(rows),
        "greedy_tokens": sum(greedy.lengths) / len(rows),
        "sampled_tokens": sum(sampled.lengths) / len(rows),
        "mean_entropy": sampled.entropy_T.mean().item(),
        "share_p_max_above_0.99": (sampled.p_max_T > CERTAIN).float().mean().item(),
    }
    return {name: round(figure, DIGITS) for name, figure in figures.items()}


def describe(name: str, rows: list[dict[str, str]]) -> dict[str, float]:
    """One model's entry of model_card.json: what it is, how it was trained, what was measured."""
    directory = DEMO_DIR / name
    training = json.loads((directory / "training.json").read_text())
    model, _ = load(directory)
    facts = {
        "parameters": model.num_parameters(),
        "weight_bytes": (directory / "model.safetensors").stat().st_size,
        "documents": training["recipe"]["documents"],
        "seed": training["recipe"]["seed"],
        "sampling_seed": SAMPLING_SEED,
    }
    return facts | {key: training[key] for key in ("loss", "tokens", "steps", "seconds")} | measure(directory, rows)


def render(card: dict[str, dict[str, float]], prompts: int) -> str:
    """The Markdown card of model_card.json."""
    config = json.loads((DEMO_DIR / "dense" / "config.json").read_text())
    lines = []
    for label, (key, form) in ROWS.items():
        lines.append(f"| {label} | {form.format(card['dense'][key])} | {form.format(card['moe'][key])} |")
    return CARD.format(
        table="\n".join(lines),
        prompts=prompts,
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        vocabulary=config["vocab_size"],
    )


def _accuracy(texts: list[str], answers: list[int]) -> float:
    right = [final_number(text) == answer for text, answer in zip(texts, answers, strict=True)]
    return sum(right) / len(right)


def read_prompts() -> list[dict[str, str]]:
    return [json.loads(line) for line in (DEMO_DIR / "prompts.jsonl").read_text().splitlines()]


def main() -> None:
    rows = read_prompts()
    card = {name: describe(name, rows) for name in sorted(DOCUMENTS)}
    write_json(DEMO_DIR / "model_card.json", card)
    (DEMO_DIR / "MODEL_CARD.md").write_text(render(card, len(rows)))
    print(render(card, len(rows)))


if __name__ == "__main__":
    main()
