"""The probe `layers` on models one of which has a planted fault, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mismatchscope.collection.output import output_directory
from mismatchscope.config import AuditSettings
from mismatchscope.measures.layer_results import Internals
from mismatchscope.probes import run_probe as running
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.reports.document import Report

WIDE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "head_dim": 64,
    "initializer_range": 0.05,
}
MIXTURE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}


def probed(directory: Path, values: tuple[str, ...] = (), **changes: Any) -> Report:
    asked = AuditSettings(**{"limit": 4, "sampling": {"samples": 1, "max_new_tokens": 8}} | changes)
    with output_directory(directory):
        planned = plan_probe("layers", asked, values)
        return running.run_probe(planned, asked, directory, command="", on_event=lambda event: None)


def planted(directory: Path, dtype: str, **more: Any) -> Report:
    """The model against what `other` runs, on prompts of random tokens."""
    rng = np.random.default_rng(1)
    lines = [json.dumps({"prompt_token_ids": rng.integers(4, 60, 40).tolist()}) for _ in range(4)]
    (directory / "prompts.jsonl").write_text("\n".join(lines))
    return probed(
        directory / "run",
        **{
            "model": str(directory / "model"),
            "prompts": directory / "prompts.jsonl",
            "behavior": f"other:dtype={dtype},attn=eager,checkpoint={directory / 'other'}",
            "reference": f"transformers:dtype={dtype},attn=eager",
        }
        | more,
    )


def inside(report: Report) -> Internals:
    assert report.probe is not None and report.probe.internals is not None
    return report.probe.internals


def write_config(directory: Path, **keys: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def change_weights(directory: Path, change: Callable[[Any], None]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto")
    with torch.no_grad():
        change(model.model)
    model.save_pretrained(directory)


def alter_mlp(model: Any) -> None:
    weight = model.layers[1].mlp.down_proj.weight
    weight.add_(weight.roll(1, 0), alpha=0.05)


def permute_experts(model: Any) -> None:
    weights = model.layers[1].mlp.experts.down_proj
    weights[[1, 2]] = weights[[2, 1]].clone()
