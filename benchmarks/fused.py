"""Claim: every divergence from two [N, 151936] blocks of logits takes half of the time at most that plain
PyTorch takes for TV, KL both ways and the ratio alone, and memory independent of N. From log-probabilities, what a
comparison of full distributions measures, it takes a fifteenth of the time of the same in numpy at most.

    python benchmarks/fused.py

All contenders run in this process on the same two blocks, one after the other, in turn, so that whatever else
the machine does falls on all of them. Extra memory is measured in a process of its own for each contender and
N: the high-water mark of resident memory during a call, less what was resident before it, after a first call
of the same shape. The error is the largest of any row against the same expression in float64. Prints the
tables and writes them to benchmarks/results/fused.md and .json.

Legend: N = states, V = vocabulary.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import torch

from mismatchscope.measures import kernel
from mismatchscope.measures.full import divergences

Tensor = torch.Tensor
Measured = tuple[Tensor, Tensor, Tensor, Tensor]  # TV, KL, reverse KL, log ratio: [N] each
Contender = Callable[[Tensor, Tensor, Tensor], Measured]

VOCABULARY = 151_936
FULL_ROWS = 64
CHUNK = 8  # rows at a time, for the contender that trades one large expression for many small ones

# How far pi's logits are from mu's: as engines of different kernels differ, and not related at all. Ours has a
# shorter path for ids whose log-probabilities are within 0.35 of each other.
CASES = {"engines": 0.02, "unrelated": None}


def plain(mu_NV: Tensor, pi_NV: Tensor, ids_N: Tensor) -> Measured:
    logp_mu, logp_pi = torch.log_softmax(mu_NV, -1), torch.log_softmax(pi_NV, -1)
    mu, pi = logp_mu.exp(), logp_pi.exp()
    return (
        (mu - pi).abs().sum(-1) / 2,
        (mu * (logp_mu - logp_pi)).sum(-1),
        (pi * (logp_pi - logp_mu)).sum(-1),
        (logp_pi.gather(-1, ids_N[:, None]) - logp_mu.gather(-1, ids_N[:, None])).squeeze(-1),
    )


def by_rows(mu_NV: Tensor, pi_NV: Tensor, ids_N: Tensor) -> Measured:
    chunks = zip(mu_NV.split(CHUNK), pi_NV.split(CHUNK), ids_N.split(CHUNK), strict=True)
    return tuple(map(torch.cat, zip(*(plain(*chunk) for chunk in chunks), strict=True)))


def ours(mu_NV: Tensor, pi_NV: Tensor, ids_N: Tensor) -> Measured:
    result = divergences(mu_NV, pi_NV, ids_N, threads=torch.get_num_threads())
    return tuple(map(torch.from_numpy, (result.tv, result.kl, result.reverse_kl, result.log_ratio)))


CONTENDERS: dict[str, Contender] = {
    "PyTorch": plain,
    f"PyTorch, {CHUNK} rows at a time": by_rows,
    "torch.compile": torch.compile(plain),
    "mismatchscope": ours,
}


def blocks(n_rows: int, case: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(n_rows, VOCABULARY, generator=generator)

    mu_NV = normal() * 3
    noise = CASES[case]
    pi_NV = normal() * 3 if noise is None else mu_NV + normal() * noise
    return mu_NV, pi_NV, torch.randint(VOCABULARY, (n_rows,), generator=generator)


@dataclass
class Times:
    """Seconds of each call: on the clock, and of processor time over all threads."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, call: Callable[[], object]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        call()
        self.processor.append(time.process_time() - processor)
        self.wall.append(time.perf_counter() - wall)


def time_contenders(arguments: tuple[Tensor, Tensor, Tensor], repeats: int) -> dict[str, Times]:
    """Reading both blocks once, by summing them, is timed along for comparison."""
    calls = {name: lambda run=run: run(*arguments) for name, run in CONTENDERS.items()}
    calls["reading both once"] = lambda: (arguments[0].sum(), arguments[1].sum())
    return time_in_turn(calls, repeats)


def time_full(arguments: tuple[Tensor, Tensor, Tensor], repeats: int) -> dict[str, Times]:
    """Every divergence, of the first rows: numpy takes long."""
    logp_mu, logp_pi = (torch.log_softmax(side[:FULL_ROWS].double(), -1).float().numpy() for side in arguments[:2])
    wide_mu, wide_pi = logp_mu.astype(np.float64), logp_pi.astype(np.float64)  # float64 is left to numpy
    calls = {
        "numpy": lambda: divergences(wide_mu, wide_pi, normalised=True),
        "mismatchscope": lambda: divergences(logp_mu, logp_pi, normalised=True),
    }
    return time_in_turn(calls, repeats)


def time_in_turn(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, Times]:
    for call in calls.values():
        call()
    times = {name: Times() for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].add(call)
    return times


def errors(
    arguments: tuple[Tensor, Tensor, Tensor], contenders: dict[str, Contender] = CONTENDERS
) -> dict[str, dict[str, float]]:
    """Largest absolute error of TV and largest relative error of KL, over the rows."""
    exact = [figure.cpu() for figure in by_rows(arguments[0].double(), arguments[1].double(), arguments[2])]
    found = {}
    for name, run in contenders.items():
        tv, kl, reverse_kl, _ = (figure.double().cpu() for figure in run(*arguments))
        found[name] = {
            "tv": (tv - exact[0]).abs().max().item(),
            "kl": max((kl / exact[1] - 1).abs().max().item(), (reverse_kl / exact[2] - 1).abs().max().item()),
        }
    return found


def extra_memory(name: str, n_rows: int, threads: int) -> int:
    """Bytes, measured by this file in a new process."""
    command = [
        sys.executable,
        __file__,
        "--memory-of",
        name,
        "--rows",
        str(n_rows),
        "--threads",
        str(threads),
    ]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_extra_memory(name: str, n_rows: int) -> int:
    arguments = blocks(n_rows, "engines")
    CONTENDERS[name](*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = resident("VmRSS")
    CONTENDERS[name](*arguments)
    return max(0, resident("VmHWM") - before)


def resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def to_markdown(results: dict) -> str:
    about = results["about"]
    lines = [
        "# Divergences from logits: time, memory, error",
        "",
        f"{about['date']} · {about['processor']}, {about['threads']} threads · Python {about['python']}, "
        f"torch {about['torch']}, numpy {about['numpy']} · backend {about['backend']} · "
        f"load average {about['load_before']:.1f} before, {about['load_after']:.1f} after",
        "",
        f"Two float32 blocks of [{about['rows']}, {VOCABULARY}] logits; {about['repeats']} calls each, in turn. "
        "Times are medians, in brackets the fastest; the ratio is PyTorch's median to the contender's.",
    ]
    for case, measured in results["cases"].items():
        noise = CASES[case]
        described = "standard normal × 3, independent" if noise is None else f"mu's + standard normal × {noise}"
        lines += ["", f"## {case.capitalize()}: pi's logits are {described}", ""]
        lines += [
            "| contender | ms | ratio | processor ms | TV error | KL relative error |",
            "|---" * 6 + "|",
        ]
        slowest = median(measured["times"]["PyTorch"]["wall"])
        for name, times in measured["times"].items():
            wall, cpu = times["wall"], times["processor"]
            cells = [
                name,
                f"{1e3 * median(wall):.1f} ({1e3 * min(wall):.1f})",
                f"{slowest / median(wall):.1f}",
            ]
            cells.append(f"{1e3 * median(cpu):.1f}")
            error = measured["errors"].get(name)
            cells += [f"{error['tv']:.1e}", f"{error['kl']:.1e}"] if error else ["", ""]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"## Every divergence, from log-probabilities of {FULL_ROWS} states", ""]
    lines += ["The path without a C compiler is numpy's, on one core; the ratio is its median to the other's.", ""]
    lines += ["| logits | path | ms a state | states / s | ratio |", "|---" * 5 + "|"]
    for case, measured in results["cases"].items():
        slowest = median(measured["full"]["numpy"]["wall"])
        for name, times in measured["full"].items():
            wall = median(times["wall"])
            each = f"{1e3 * wall / FULL_ROWS:.2f} ({1e3 * min(times['wall']) / FULL_ROWS:.2f})"
            lines.append(f"| {case} | {name} | {each} | {FULL_ROWS / wall:.0f} | {slowest / wall:.0f} |")
    sizes = list(next(iter(results["extra_memory"].values())))
    lines += ["", "## Extra memory during a call, MiB", ""]
    lines.append(f"| contender | {' | '.join(f'N = {n}' for n in sizes)} |")
    lines.append("|---" * (len(sizes) + 1) + "|")
    for name, by_size in results["extra_memory"].items():
        lines.append(f"| {name} | {' | '.join(f'{size / 2**20:.1f}' for size in by_size.values())} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(measure_extra_memory(options.memory_of, options.rows))
        return

    load_before = os.getloadavg()[0]
    cases = {}
    for case in CASES:
        arguments = blocks(options.rows, case)
        times = time_contenders(arguments, options.repeats)
        cases[case] = {
            "times": {name: asdict(measured) for name, measured in times.items()},
            "full": {name: asdict(measured) for name, measured in time_full(arguments, options.repeats).items()},
            "errors": errors(arguments),
        }
        del arguments
    sizes = (options.rows // 4, options.rows)
    results = {
        "about": {
            "date": date.today().isoformat(),
            "processor": processor(),
            "threads": options.threads,
            "rows": options.rows,
            "vocabulary": VOCABULARY,
            "repeats": options.repeats,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "backend": kernel.backend(),
            "load_before": load_before,
            "load_after": os.getloadavg()[0],
        },
        "cases": cases,
        "extra_memory": {
            name: {size: extra_memory(name, size, options.threads) for size in sizes} for name in CONTENDERS
        },
    }
    folder = Path(__file__).with_name("results")
    folder.mkdir(exist_ok=True)
    (folder / "fused.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "fused.md").write_text(to_markdown(results))
    print(to_markdown(results))


if __name__ == "__main__":
    main()
