"""Claim: the metrics that trainers log of a batch of log-probs [B, T], at least 5 times as fast as in torch, and
equal to 1e-9.

    python benchmarks/batch_metrics.py

The torch side computes them as verl, TRL and slime do: over padded arrays, a tensor for every step. Ours makes each
trainer's metrics from sums over the tokens, of which it makes those that the metrics asked for need. Both get the
same float64 arrays and one thread; the best of some runs counts. Writes benchmarks/results/batch_metrics.md.

Shapes: B responses, T padded tokens.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch

from mismatchscope.measures.native.batch_sums import Definition, sums_by_batch
from mismatchscope.measures.native.registry import TRAINERS

RESULT = Path(__file__).parent / "results" / "batch_metrics.md"
SHAPES = ((64, 1024), (256, 4096), (1024, 4096))
RUNS, CLAIM = 25, 5
VARIANTS = ("", "rollout_is=token, threshold 2", "token_truncate, cap 3")
Metrics = dict[str, float]


def batch(responses: int, longest: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(log μ, log π, mask), [B, T] each; responses fill three quarters of the padding on average."""
    rng = np.random.default_rng(0)
    mu_BT = -rng.exponential(0.5, (responses, longest)) - 1e-4
    pi_BT = np.minimum(mu_BT + 0.05 * rng.standard_normal(mu_BT.shape), -1e-9)
    length_B = rng.integers(longest // 2, longest + 1, responses)
    mask_BT = np.arange(longest) < length_B[:, None]
    return torch.from_numpy(mu_BT), torch.from_numpy(pi_BT), torch.from_numpy(mask_BT)


def mean_of(value_BT: torch.Tensor, mask_BT: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """verl's mean over what the mask keeps."""
    weight_BT = mask_BT.to(value_BT.dtype)
    total, count = (value_BT * weight_BT), weight_BT
    return total.sum(dim) / (count.sum(dim) + 1e-8)


def verl(mu_BT: torch.Tensor, pi_BT: torch.Tensor, mask_BT: torch.Tensor) -> Metrics:
    """Its debug metrics, off-policy metrics, and those of token weights at threshold 2."""
    p_mu_BT, p_pi_BT = mu_BT.exp(), pi_BT.exp()
    both = torch.stack([torch.masked_select(p_pi_BT, mask_BT), torch.masked_select(p_mu_BT, mask_BT)])
    gap_N = torch.masked_select((p_pi_BT - p_mu_BT).abs(), mask_BT)
    found = {
        "training/rollout_actor_probs_pearson_corr": torch.corrcoef(both)[0, 1],
        "training/rollout_probs_diff_max": gap_N.max(),
        "training/rollout_probs_diff_mean": gap_N.mean(),
        "training/rollout_probs_diff_std": gap_N.std(),
    }
    d_BT = pi_BT - mu_BT
    safe_BT = d_BT.clamp(-20, 20).exp()
    of_mu_B, of_pi_B = mean_of(mu_BT, mask_BT, -1), mean_of(pi_BT, mask_BT, -1)
    fall_B = of_mu_B - of_pi_B
    whole_B = (d_BT * mask_BT).sum(-1).clamp(-20, 20).exp()
    found |= {
        "rollout_corr/kl": mean_of(-d_BT, mask_BT),
        "rollout_corr/k3_kl": mean_of(d_BT.exp() - d_BT - 1, mask_BT),
        "rollout_corr/chi2_token": mean_of(safe_BT.square(), mask_BT) - 1,
        "rollout_corr/chi2_seq": whole_B.square().mean() - 1,
        "rollout_corr/training_ppl": (-of_pi_B).exp().mean(),
        "rollout_corr/rollout_ppl": (-of_mu_B).exp().mean(),
        "rollout_corr/training_log_ppl": -of_pi_B.mean(),
        "rollout_corr/rollout_log_ppl": -of_mu_B.mean(),
        "rollout_corr/log_ppl_diff": fall_B.mean(),
        "rollout_corr/log_ppl_abs_diff": fall_B.abs().mean(),
        "rollout_corr/log_ppl_diff_max": fall_B.max(),
        "rollout_corr/log_ppl_diff_min": fall_B.min(),
        "rollout_corr/ppl_ratio": fall_B.exp().mean(),
    }
    within_BT = safe_BT.clamp(0.5, 2.0)
    within = mean_of(within_BT, mask_BT)
    normalised_BT = within_BT / (within + 1e-8)
    weight_B = mean_of(safe_BT, mask_BT, -1)
    found |= {
        "rollout_corr/rollout_is_mean": mean_of(safe_BT, mask_BT),
        "rollout_corr/rollout_is_max": safe_BT.masked_fill(~mask_BT, -torch.inf).max(),
        "rollout_corr/rollout_is_min": safe_BT.masked_fill(~mask_BT, torch.inf).min(),
        "rollout_corr/rollout_is_std": (mean_of(within_BT.square(), mask_BT) - within.square()).clamp(min=0).sqrt(),
        "rollout_corr/rollout_is_eff_sample_size": 1 / mean_of(normalised_BT.square(), mask_BT),
        "rollout_corr/rollout_is_ratio_fraction_high": mean_of((safe_BT > 2.0).double(), mask_BT),
        "rollout_corr/rollout_is_ratio_fraction_low": mean_of((safe_BT < 0.5).double(), mask_BT),
        "rollout_corr/rollout_is_seq_mean": weight_B.mean(),
        "rollout_corr/rollout_is_seq_std": weight_B.std(),
        "rollout_corr/rollout_is_seq_max": weight_B.max(),
        "rollout_corr/rollout_is_seq_min": weight_B.min(),
        "rollout_corr/rollout_is_seq_max_deviation": (weight_B - 1).abs().max(),
        "rollout_corr/rollout_is_seq_fraction_high": (weight_B > 2.0).double().mean(),
        "rollout_corr/rollout_is_seq_fraction_low": (weight_B < 0.5).double().mean(),
    }
    return {name: value.item() for name, value in found.items()}


def trl(mu_BT: torch.Tensor, pi_BT: torch.Tensor, mask_BT: torch.Tensor) -> Metrics:
    """Its differences and its token weights, truncated at 3."""
    d_BT = (pi_BT - mu_BT) * mask_BT
    size_N, ratio_N = d_BT.abs()[mask_BT], d_BT.exp().clamp(max=3.0)[mask_BT]
    found = {
        "sampling/sampling_logp_difference/mean": size_N.mean(),
        "sampling/sampling_logp_difference/max": size_N.max(),
        "sampling/importance_sampling_ratio/mean": ratio_N.mean(),
        "sampling/importance_sampling_ratio/min": ratio_N.min(),
        "sampling/importance_sampling_ratio/max": ratio_N.max(),
    }
    return {name: value.item() for name, value in found.items()}


def slime(mu_BT: torch.Tensor, pi_BT: torch.Tensor, mask_BT: torch.Tensor) -> Metrics:
    """Its metrics of responses, each weighing the same."""
    d_BT, count_B = pi_BT - mu_BT, mask_BT.sum(-1)

    def by_response(value_BT: torch.Tensor) -> torch.Tensor:
        return ((value_BT * mask_BT).sum(-1) / count_B).mean()

    ratio_BT = d_BT.exp()
    found = {
        "train/train_rollout_logprob_abs_diff": by_response(d_BT.abs()),
        "train/tis": by_response(ratio_BT),
        "train/tis_abs": by_response((ratio_BT - 1).abs()),
    }
    return {name: value.item() for name, value in found.items()}


THEIRS: dict[str, Callable[..., Metrics]] = {"verl": verl, "trl": trl, "slime": slime}


def ours(mu_BT: np.ndarray, pi_BT: np.ndarray, mask_BT: np.ndarray, metrics: tuple[Definition, ...]) -> list[float]:
    responses, longest = mask_BT.shape
    (sums,) = sums_by_batch(
        *(mu_BT.ravel(), pi_BT.ravel(), np.arange(responses + 1) * longest),
        *(np.zeros(responses, dtype=np.int64), metrics),
        counts_N=mask_BT.ravel(),
    ).values()
    return [metric.value(sums) for metric in metrics]


def best(call: Callable[[], object]) -> float:
    """Seconds."""
    took = []
    for _ in range(RUNS):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return min(took)


def largest_difference(theirs: Metrics, mine: Metrics) -> float:
    """Relative to the value where that is above 1; every metric of theirs must be there."""
    return max(abs(mine[name] - value) / max(1.0, abs(value)) for name, value in theirs.items())


def main() -> None:
    torch.set_num_threads(1)
    rows, below = [], []
    for responses, longest in SHAPES:
        tensors = batch(responses, longest)
        arrays = tuple(tensor.numpy() for tensor in tensors)
        short = tuple(tensor.numpy() for tensor in batch(responses, 2))
        for trainers in (("verl",), ("trl",), ("slime",), tuple(THEIRS)):
            theirs = {name: value for trainer in trainers for name, value in THEIRS[trainer](*tensors).items()}
            known = [metric for trainer in trainers for metric in TRAINERS[trainer]]
            metrics = tuple(each for each in known if each.name in theirs and each.variant in VARIANTS)
            mine = dict(zip((each.name for each in metrics), ours(*arrays, metrics), strict=True))
            apart = largest_difference(theirs, mine)
            # One after the other, so that a busy machine slows both.
            torch_s = best(lambda: [THEIRS[trainer](*tensors) for trainer in trainers])  # noqa: B023
            our_s = best(lambda: ours(*arrays, metrics))  # noqa: B023
            of = ", ".join(trainers)
            rows.append(
                f"| {responses} × {longest} | {of} | {len(theirs)} | {torch_s * 1e3:.2f} | {our_s * 1e3:.2f} "
                f"| {torch_s / our_s:.1f} | {apart:.1e} |"
            )
            print(rows[-1], flush=True)
            if torch_s < CLAIM * our_s:
                short_s = best(lambda: ours(*short, metrics))  # noqa: B023
                below.append(f"- {of} at {responses} × {longest}; {short_s * 1e3:.2f} ms at {responses} × 2")
    lines = [
        "# Metrics of a batch",
        "",
        f"Made by `python benchmarks/batch_metrics.py` on {date.today()}: float64, one thread each, best of",
        f"{RUNS}; {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, numpy",
        f"{np.__version__}, torch {torch.__version__}.",
        "",
        "| B × T | metrics of | how many | torch, ms | ours, ms | ratio | largest difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        "The torch side is written here as the trainers compute the metrics: over padded arrays, a tensor a step.",
        "Ours makes the sums that these metrics need. Differences are relative where a value is above 1.",
    ]
    if below:
        lines += [
            "",
            f"Below {CLAIM}, and what a call of ours takes where there are hardly any tokens:",
            "",
            *below,
        ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
