"""Every trainer's metrics. To add a trainer: one file with its `METRICS`, and its line here."""

from __future__ import annotations

from . import areal, miles, nemo_rl, openrlhf, prime_rl, skyrl, slime, torchtitan, trl, verl
from .batch_sums import Definition

TRAINERS: dict[str, tuple[Definition, ...]] = {
    "verl": verl.METRICS,
    "trl": trl.METRICS,
    "slime": slime.METRICS,
    "miles": miles.METRICS,
    "nemo-rl": nemo_rl.METRICS,
    "prime-rl": prime_rl.METRICS,
    "skyrl": skyrl.METRICS,
    "areal": areal.METRICS,
    "openrlhf": openrlhf.METRICS,
    "torchtitan": torchtitan.METRICS,
}
EVERY_METRIC = tuple(metric for metrics in TRAINERS.values() for metric in metrics)
