"""OpenRLHF: `vllm_kl`, a mean over the action tokens of each micro-batch; equal here where a step has one."""

from __future__ import annotations

from .batch_sums import Definition

METRICS = (
    Definition(
        "vllm_kl",
        "mean over tokens of log μ − log π",
        "k1: unbiased for KL(μ‖π)",
        lambda sums: -sums.mean("log_ratio"),
    ),
)
