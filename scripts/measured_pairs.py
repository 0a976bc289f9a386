"""Pairs of policies that differ by a cause that benchmarks/causes does not plant, as the engines make them.

The traces are kept in the benchmark's cache. That of `reductions` needs the environment of vLLM.

Shapes: N tokens, S sequences.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cause_pictures as pictures
import numpy as np

from mismatchscope.diagnosis.detector import Picture
from mismatchscope.diagnosis.evidence import TokenEvidence
from mismatchscope.diagnosis.sample import Sample

_DEMO = Path(__file__).resolve().parent.parent / "mismatchscope" / "demo" / "dense"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


class Measured(NamedTuple):
    """`mu` and `pi` are what comes after `rollout --engine` or `score … --engine`. Where `first` is set, μ too is a
    score, of the tokens that this SPEC drew."""

    what: str
    mu: str
    pi: str
    draw: Callable[[Sample], Picture]
    first: str | None = None
    path: str = "decode"
    model: str = "demo:dense"
    prompts: int = 32
    tokens: int = 96


MEASURED = {
    "recurrent_state": Measured(
        "a Mamba of 4 layers with random weights, in bfloat16, by transformers: decode against prefill",
        "transformers",
        "transformers",
        pictures.mean_at_each_position,
        path="prefill",
        model="mamba",
        tokens=64,
    ),
    "batch": Measured(
        "the embedded model in bfloat16, decoded by transformers alone and in batches of 32",
        "transformers:batch_size=1",
        "transformers:batch_size=32",
        pictures.over_log_prob,
    ),
    "reductions": Measured(
        "the embedded model in bfloat16, decoded by vLLM 0.32.0 on one device and on two "
        "(`tensor_parallel_size=2`), CPUs both",
        "vllm==0.32.0:enforce_eager=true",
        "vllm==0.32.0:enforce_eager=true,tensor_parallel_size=2",
        pictures.over_log_prob,
        prompts=8,
        tokens=48,
    ),
    "trainer_paths": Measured(
        "the embedded model in bfloat16, read by transformers in right-padded batches of 32 without gradients, and "
        "packed, eight a batch, in train mode",
        "transformers:batch_size=32",
        "transformers:batch_size=8,padding=packed,train_mode=true",
        pictures.over_log_prob,
        first="transformers:batch_size=1",
        path="prefill",
    ),
}


def pair(cause: str, cache: Path) -> TokenEvidence:
    """The two policies on the same tokens, measured first where they are not in the cache."""
    measured, directory = MEASURED[cause], cache / "pairs" / cause
    model = _mamba(cache) if measured.model == "mamba" else measured.model
    sampling = ["--evidence", "sampled", "--limit", str(measured.prompts), "--samples", "1"]
    sampling += ["--max-new-tokens", str(measured.tokens)]
    drawn, mu, pi = directory / "drawn", directory / "mu", directory / "pi"
    _run(drawn, "rollout", "--engine", measured.first or measured.mu, "--model", model, *sampling)
    score = ("--model", model, "--path", measured.path)
    if measured.first is not None:
        _run(mu, "score", str(drawn), "--engine", measured.mu, *score)
    _run(pi, "score", str(drawn), "--engine", measured.pi, *score)
    return _evidence(drawn if measured.first is None else mu, pi)


def _run(out: Path, *words: str) -> None:
    if not (out / "manifest.json").exists():
        subprocess.run([sys.executable, "-m", "mismatchscope", *words, "-q", "-o", str(out)], check=True)


def _evidence(mu: Path, pi: Path) -> TokenEvidence:
    import pyarrow.parquet as pq

    ours, theirs = (pq.read_table(each / "tokens.parquet") for each in (mu, pi))
    name_N = np.array(ours["sequence_id"].to_pylist())
    if ours["token_id"] != theirs["token_id"] or ours["sequence_id"] != theirs["sequence_id"]:
        raise ValueError(f"{mu} and {pi} are not of the same tokens")
    sequence_N = np.cumsum(np.append(False, name_N[1:] != name_N[:-1]))
    return TokenEvidence(
        ours["logprob"].to_numpy().astype(np.float64),
        theirs["logprob"].to_numpy().astype(np.float64),
        sequence_N,
        ours["position"].to_numpy().astype(np.int64),
        np.arange(sequence_N[-1] + 1),
    )


def _mamba(cache: Path) -> str:
    """A recurrent model with the tokenizer of the embedded ones."""
    import torch
    from transformers import AutoConfig, MambaConfig, MambaForCausalLM

    directory = cache / "pairs" / "mamba"
    if not (directory / "model.safetensors").exists():
        demo = AutoConfig.from_pretrained(_DEMO)
        torch.manual_seed(0)
        ids = {"eos_token_id": demo.eos_token_id, "pad_token_id": demo.pad_token_id, "bos_token_id": None}
        sizes = {"vocab_size": demo.vocab_size, "hidden_size": 128, "num_hidden_layers": 4, "state_size": 16}
        model = MambaForCausalLM(MambaConfig(**sizes, **ids, tie_word_embeddings=False))
        torch.nn.init.normal_(model.lm_head.weight, std=0.35)  # or every distribution would be all but uniform
        model.to(torch.bfloat16).save_pretrained(directory)
        for name in _TOKENIZER:
            shutil.copy(_DEMO / name, directory / name)
    return str(directory)
