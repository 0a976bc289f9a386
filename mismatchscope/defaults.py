"""The default and the meaning of every setting, said once: `config` checks settings, --help shows them.

Apart from `config`, whose checks take longer to import than all of --help may.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .records import Policy, Sampling

DEFAULT_PROMPTS = 64


class Setting(NamedTuple):
    """`kind` is the type of its value; where the default is None, the meaning ends with what that stands for."""

    kind: Any
    default: Any
    meaning: str


SETTINGS = {
    "model": Setting(str, "demo:dense", "Local directory, hub id, demo:dense or demo:moe."),
    "adapter": Setting(str, None, "PEFT adapter of every side whose SPEC has no adapter=.  [none]"),
    "behavior": Setting(str, "transformers:dtype=bfloat16", "Engine SPEC of the policy that samples."),
    "reference": Setting(str, "transformers:dtype=bfloat16", "Engine SPEC of the policy that trains."),
    "baseline": Setting(str, None, "Engine SPEC to compare the behaviour with, on the same tokens.  [none]"),
    "prompts": Setting(Path, None, ".jsonl, .txt or .parquet.  [embedded]"),
    "prompt_column": Setting(
        str, None, "The column of --prompts that holds the prompt.  [prompt, messages or prompt_token_ids]"
    ),
    "limit": Setting(int, None, f"Use the first N prompts.  [all; {DEFAULT_PROMPTS} of the embedded]"),
    # What most RL runs use: temperature 1, nothing cut off.
    "sampling.samples": Setting(int, 2, "Responses a prompt."),
    "sampling.max_new_tokens": Setting(int, Sampling.max_new_tokens, "Tokens a response."),
    "sampling.temperature": Setting(float, Sampling.temperature, "0 is greedy."),
    "sampling.top_p": Setting(float, Sampling.top_p, "Nucleus mass."),
    "sampling.top_k": Setting(int, Sampling.top_k, "Kept ids, 0 for all."),
    "sampling.seed": Setting(int, Sampling.seed, "Of the samples."),
    "policy": Setting(Policy, "processed", "Which μ to measure."),
    "reference_temperature": Setting(float, None, "What the trainer divides its logits by.  [the temperature]"),
    "evidence": Setting(str, "auto", "auto, full, full:FRACTION, topk:K or sampled."),
    "budget": Setting(str, "1GiB", "Bytes of distributions that may be stored."),
    "repeats": Setting(bool, True, "Measure the repeat floors."),
    "confidence": Setting(float, 0.95, "Of every interval."),
    "margin": Setting(float, 0.5, "An excess over the repeat floor below so many floors counts as none."),
    "max_rejected": Setting(
        float, 0.01, "Share of rows without a legal log-prob above which the verdict is inconclusive."
    ),
    "tail": Setting(bool, False, "Add a model-based extrapolation of the TV tail."),
    "probe.values": Setting(list[str], [], "What to try: once, or once each.  [the probe's usual ones]"),
    "probe.changes": Setting(dict[str, Any], {}, "Changes by name: an option's value, or several options."),
    "probe.time": Setting(str, None, "Refuse what is estimated to take longer: 90s, 10min, 2h.  [no limit]"),
    "gate.fail_on": Setting(list[str], [], "Gate, as in 'token.tv.p99 > 0.05'."),
}
