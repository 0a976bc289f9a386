"""What share of a training step the recorder takes: GRPO with TRL, and the calls alone by size of a batch.

    python benchmarks/recorder_cost.py

The TRL run is the one of examples/trl_run.py: every step's wall time and, within it, the time spent in the hook and
the recorder, files included, so that both are of the same steps. The model is tiny and the steps are short: of a
model of billions, whose step takes minutes for as many tokens, the same calls are a smaller share.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mismatchscope as ms

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

STEPS, WARM_UP, LIMIT = 24, 2, 0.01


def now() -> np.ndarray:
    """Seconds by the wall, and of this process's threads."""
    return np.array([time.perf_counter(), time.process_time()])


class Clock:
    """Seconds spent in functions, of both kinds of `now`."""

    def __init__(self) -> None:
        self.seconds = np.zeros(2)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = now()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += now() - start

        return timed


def trl_seconds(directory: Path, *, use_cpu: bool = True) -> tuple[np.ndarray, np.ndarray, int]:
    """Seconds of each step and of it the recorder's, [steps, wall and CPU], and the completions of a step.

    The log is in directory / "log".
    """
    import torch
    from transformers import TrainerCallback
    from trl_run import grpo_trainer, rollouts_in_bfloat16

    from mismatchscope.integrations import trl

    torch.set_num_threads(1)
    clock = Clock()
    step_s: list[np.ndarray] = []
    ours_s: list[np.ndarray] = []
    trainer = grpo_trainer(
        directory,
        rollouts_in_bfloat16(),
        prompts=128,
        max_steps=STEPS,
        per_device_train_batch_size=32,
        use_cpu=use_cpu,
    )
    recorder = ms.Recorder(
        directory / "log", strict=True, flush_seconds=0
    )  # a file each step: the dearest there is
    hook = trl._Hook
    for name in ("_label", "_record"):
        setattr(hook, name, clock.around(getattr(hook, name)))
    trl.attach(trainer, recorder)

    class Stopwatch(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **options: Any) -> None:
            self.start, clock.seconds = now(), np.zeros(2)

        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            step_s.append(now() - self.start)
            ours_s.append(clock.seconds)

    trainer.add_callback(Stopwatch())
    trainer.train()
    return np.array(step_s[WARM_UP:]), np.array(ours_s[WARM_UP:]), recorder.rows // STEPS


def call_ms(directory: Path, responses: int, length: int, device: str = "cpu") -> tuple[float, float]:
    """Milliseconds of a call of `log` without and with its file, medians of 9."""
    import torch

    generator = torch.Generator().manual_seed(0)
    mu = -torch.rand(responses, length, generator=generator)
    batch = {
        "token_ids": torch.randint(0, 150_000, (responses, length), generator=generator),
        "mask": torch.ones(responses, length, dtype=torch.bool),
        "behavior_logprobs": mu,
        "reference_logprobs": mu + 0.01 * torch.randn(responses, length, generator=generator),
        "advantages": torch.randn(responses, generator=generator),
        "rewards": torch.rand(responses, generator=generator),
        "prompts": np.arange(responses) // 8,
    }
    batch = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
    found = []
    for name, options in (("memory", {"flush_seconds": 1e9, "flush_rows": 10**9}), ("files", {"flush_seconds": 0})):
        recorder = ms.Recorder(directory / f"{name}-{responses}-{length}-{device}", strict=True, **options)
        times = []
        for step in range(10):
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            recorder.log(step=step, **batch)
            times.append(time.perf_counter() - start)
            recorder._set_waiting([])
        found.append(1000 * statistics.median(times[1:]))
    return found[0], found[1]


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        step_s, ours_s, responses = trl_seconds(directory)
        whole = ours_s.sum(axis=0) / step_s.sum(axis=0)
        calls = [(b, t, *call_ms(directory, b, t)) for b, t in ((128, 1024), (256, 4096), (512, 8192))]
    lines = [
        "# What recording costs",
        "",
        "`python benchmarks/recorder_cost.py`, on a CPU. Steps of a GRPO run with TRL of the embedded model (2.6 M",
        f"parameters, {responses} completions a step) on one thread, the first {WARM_UP} left out; a file each",
        "step, more often than by default. CPU time leaves out the wait for the disk, and depends less on load:",
        f"{os.getloadavg()[0]:.0f} processes were running on {os.cpu_count()} cores. Limit: 1 % of either.",
        "",
        f"| {len(step_s)} steps | median step | median of the recorder | share of all steps | largest share |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {1000 * np.median(step_s[:, kind]):.0f} ms | {1000 * np.median(ours_s[:, kind]):.1f} ms | "
            f"{whole[kind]:.2%} | {(ours_s / step_s)[:, kind].max():.2%} |"
            for kind, name in enumerate(("wall", "CPU"))
        ),
        "",
        "One call of `log` by the size of its batch, float32 tensors on the CPU, median of 9:",
        "",
        "| responses | tokens of each | tokens | kept in memory | and a file written |",
        "|---|---|---|---|---|",
        *(f"| {b} | {t:,} | {b * t:,} | {memory:.1f} ms | {file:.0f} ms |" for b, t, memory, file in calls),
        "",
    ]
    (ROOT / "benchmarks" / "results" / "recorder_cost.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    return 0 if whole.max() <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
