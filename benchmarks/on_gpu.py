"""What a GPU makes of it: the tests that need one, the kernel, the recorder, what capture costs, and audits.

    python benchmarks/on_gpu.py

Needs a CUDA device, Triton, TRL, pytest and a C compiler; without a device it says so and does nothing. Times are
of the wall, with the device idle before and after; whatever is timed runs alone. Writes benchmarks/results/gpu.md.

Legend: N = states, V = vocabulary.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path

import capture_overhead
import fused
import numpy as np
import recorder_cost
import torch

import mismatchscope as ms
from mismatchscope.machine import hardware
from mismatchscope.measures import kernel
from mismatchscope.reports.document import Report

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "gpu.md"
PACKAGES = ("torch", "triton", "transformers", "trl", "numpy", "pyarrow")

ROWS = 1024
REPEATS = 15
ROUNDS = 3
BATCHES = ((64, 4096), (128, 1024), (256, 4096), (512, 8192))

ON_GPU = "transformers:device=cuda"
AUDITS = {  # behaviour and reference; `transformers` alone is bfloat16, sdpa, batches of 32
    "bfloat16, float32": (f"{ON_GPU}", f"{ON_GPU},dtype=float32"),
    "float32, float32": (f"{ON_GPU},dtype=float32", f"{ON_GPU},dtype=float32"),
    "bfloat16, bfloat16": (f"{ON_GPU}", f"{ON_GPU}"),
    "bfloat16 in batches of 16, of 1": (f"{ON_GPU},batch_size=16", f"{ON_GPU},batch_size=1"),
    "bfloat16 with sdpa, eager attention": (f"{ON_GPU},attn=sdpa", f"{ON_GPU},attn=eager"),
    "bfloat16, packed": (f"{ON_GPU}", f"{ON_GPU},padding=packed"),
    "bfloat16, autocast": (f"{ON_GPU}", f"{ON_GPU},dtype=autocast"),
    "bfloat16, with a float32 head": (f"{ON_GPU}", f"{ON_GPU},lm_head=float32"),
    "bfloat16 on the GPU, on the CPU": (f"{ON_GPU}", "transformers:device=cpu"),
}
DECODED_IN = (16, 1)  # sequences of a batch, of a rollout in batches of 16 that is decoded once more


def tests() -> list[str]:
    """The summary of every test that is marked `gpu`; raises where one fails."""
    files = [path for path in sorted(ROOT.glob("tests/**/test_*.py")) if _needs_gpu(path.read_text("utf-8"))]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"tests failed\n{done.stdout}\n{done.stderr}")
    return ["## Tests", "", f"`pytest -m gpu`: {done.stdout.splitlines()[-1]}."]


def _needs_gpu(text: str) -> bool:
    return "mark.gpu" in text or "DEVICES" in text  # tiny_engine.DEVICES marks its parameter


def milliseconds(call: Callable[[], object]) -> list[float]:
    """Of each of `REPEATS` calls, after two that compile."""
    found = []
    for _ in range(REPEATS + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        found.append(1000 * (time.perf_counter() - began))
    return found[2:]


def extra_mib(call: Callable[[], object]) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def widened(run: fused.Contender) -> fused.Contender:
    """PyTorch in the dtype of bfloat16 logits would be off by the rounding of each step."""
    return lambda mu_NV, pi_NV, ids_N: run(mu_NV.float(), pi_NV.float(), ids_N)


def divergences() -> list[str]:
    contenders = {
        "PyTorch": widened(fused.plain),
        "torch.compile": torch.compile(widened(fused.plain)),
        "mismatchscope": fused.ours,
    }
    lines = [
        "## Divergences from logits",
        "",
        f"Two blocks of [{ROWS}, {fused.VOCABULARY}] logits on the GPU, as in [fused.md](fused.md): near are those "
        "that differ as engines of different kernels do, far those of unrelated policies. PyTorch computes TV, KL "
        f"both ways and the ratio, in float32; mismatchscope {len(kernel.FULL_RESULT)} figures and the ratio. "
        f"Medians of {REPEATS} calls, in brackets the fastest; GB/s counts both blocks once.",
        "",
        "| logits | contender | ms | ratio | GB/s | extra MiB | TV error | KL relative error |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for dtype in (torch.float32, torch.bfloat16):
        for case, said in (("engines", "near"), ("unrelated", "far")):
            mu_NV, pi_NV, ids_N = fused.blocks(ROWS, case)
            arguments = mu_NV.to("cuda", dtype), pi_NV.to("cuda", dtype), ids_N.cuda()
            lines += block_rows(f"{said}, {str(dtype).removeprefix('torch.')}", arguments, contenders)
    return lines


def block_rows(
    logits: str, arguments: tuple[fused.Tensor, ...], contenders: dict[str, fused.Contender]
) -> list[str]:
    """The table's rows for two blocks, and reading them once for comparison."""
    gigabytes = 2 * arguments[0].numel() * arguments[0].element_size() / 1e9
    calls = {name: lambda run=run: run(*arguments) for name, run in contenders.items()}
    calls["reading both once"] = lambda: (arguments[0].sum(), arguments[1].sum())
    times = {name: milliseconds(call) for name, call in calls.items()}
    slowest = statistics.median(times["PyTorch"])
    errors = fused.errors(arguments, contenders)
    rows = []
    for name, each in times.items():
        middle = statistics.median(each)
        error = f"{errors[name]['tv']:.1e} | {errors[name]['kl']:.1e}" if name in errors else " | "
        rows.append(
            f"| {logits} | {name} | {middle:.2f} ({min(each):.2f}) | {slowest / middle:.1f} "
            f"| {1000 * gigabytes / middle:,.0f} | {extra_mib(calls[name]):,.0f} | {error} |"
        )
    return rows


def recorder(directory: Path) -> list[str]:
    lines = [
        "## The recorder",
        "",
        "One call of `log`, float32 log-probs, median of 9, as in [recorder_cost.md](recorder_cost.md):",
        "",
        "| responses | tokens of each | tensors | kept in memory | and a file written |",
        "|---:|---:|---|---:|---:|",
    ]
    for responses, length in BATCHES:
        for device in ("cpu", "cuda"):
            kept, written = recorder_cost.call_ms(directory, responses, length, device)
            place = "on the GPU" if device == "cuda" else "in main memory"
            lines.append(f"| {responses} | {length:,} | {place} | {kept:.1f} ms | {written:.0f} ms |")
    step_s, ours_s, completions = recorder_cost.trl_seconds(directory, use_cpu=False)
    report = ms.analyze(directory / "log")
    share = ours_s.sum(axis=0)[0] / step_s.sum(axis=0)[0]
    return [
        *lines,
        "",
        f"Steps of a GRPO run of the embedded model with TRL on the GPU, in float32, sampled in bfloat16 there: "
        f"{len(step_s)} steps of {completions} completions, a file each step. Median step "
        f"{1000 * np.median(step_s[:, 0]):.0f} ms; median of the hook and the recorder "
        f"{1000 * np.median(ours_s[:, 0]):.1f} ms, {share:.2%} of all steps, the wait for the forward that they "
        f"record among it. What `analyze` reads in that log: {report.finding.sentence}",
    ]


def capture() -> list[str]:
    torch.set_num_threads(1)
    rows = capture_overhead.measured("cuda", ROUNDS)
    return ["## Capture", "", f"{ROUNDS} rounds, bfloat16.", "", *capture_overhead.table(rows)]


def run(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "mismatchscope", *map(str, arguments), "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: a verdict or a gate
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


def equal_share(left: Path, right: Path) -> float:
    """Of the sampled tokens, those whose two log-probs have the same bits."""
    columns = ["sequence_id", "position", "logprob"]
    mu, pi = (ms.open_trace(path).tokens(columns) for path in (left, right))
    both = mu.merge(pi, on=columns[:2], validate="one_to_one")
    return float((both["logprob_x"] == both["logprob_y"]).mean())


def audit_row(name: str, report: Report, behavior: Path, reference: Path) -> str:
    mean = report.alpha1.mean
    sides = (report.floor.behavior, report.floor.reference) if report.floor else ()
    floor = max((side.mean.value for side in sides if side), default=None)
    return (
        f"| {name} | {report.counts.tokens:,} | {mean.value:.2e} [{mean.low:.2e}, {mean.high:.2e}] "
        f"| {'–' if floor is None else f'{floor:.2e}'} | {report.alpha1.observed_max:.2e} "
        f"| {equal_share(behavior, reference):.1%} |"
    )


def audits(directory: Path) -> list[str]:
    """Side by side, since none of them is timed."""

    def audited(number: int, pair: tuple[str, str]) -> Path:
        place = directory / f"audit-{number}"
        run("audit", "--behavior", pair[0], "--reference", pair[1], "-o", place)
        return place

    def scored(batch_size: int) -> Path:
        place = directory / f"decoded-{batch_size}"
        engine = f"{ON_GPU},batch_size={batch_size}"
        run("score", directory / "audit-3" / "behavior", "--engine", engine, "--path", "decode", "-o", place)
        return place

    with ThreadPoolExecutor(max_workers=4) as pool:
        places = list(pool.map(audited, range(len(AUDITS)), AUDITS.values()))
        decoded = list(pool.map(scored, DECODED_IN))
    rows = [
        audit_row(name, ms.load_report(place / "report.json"), place / "behavior", place / "reference")
        for name, place in zip(AUDITS, places, strict=True)
    ]
    behavior = directory / "audit-3" / "behavior"
    for batch_size, place in zip(DECODED_IN, decoded, strict=True):
        name = f"bfloat16 in batches of 16, decoded again in batches of {batch_size}"
        rows.append(audit_row(name, ms.compare(behavior, place), behavior, place))
    return [
        "## Audits",
        "",
        "`mismatchscope audit` of the embedded model, transformers on both sides, full distributions: what "
        "samples, what scores. The repeat floor is the larger of both sides', in reshuffled batches; equal are the "
        "sampled tokens whose two log-probs have the same bits.",
        "",
        "| μ, π | tokens | mean TV [95 % interval] | repeat floor | largest TV | equal |",
        "|---|---:|---|---:|---:|---:|",
        *rows,
    ]


def machine() -> str:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    named = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    major, minor = torch.cuda.get_device_capability()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"Made by `python benchmarks/on_gpu.py` on {date.today()}. `nvidia-smi`: {named}; torch: "
        f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, CUDA {torch.version.cuda}. "
        f"{hardware()['cpu']}, {kernel.available_cores()} cores. Python {platform.python_version()}, {packages}."
    )


def main() -> None:
    if not torch.cuda.is_available():
        print("There is no CUDA device: nothing is measured.")
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sections = [divergences(), recorder(directory), capture(), audits(directory), tests()]
    lines = ["# On a GPU", "", machine(), *(line for section in sections for line in ("", *section))]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
