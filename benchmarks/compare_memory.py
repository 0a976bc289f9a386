"""Claim: `compare` of 10⁶ tokens with top-64 evidence peaks at no more than 1 GiB of memory.

    python benchmarks/compare_memory.py [--tokens N]

Writes two traces of random top-64 policies, then runs the installed command on them and reads the peak resident
set of that process, and of one on a tenth of the tokens, to show what grows. Writes
benchmarks/results/compare_memory.md.

Shapes: T tokens of one sequence, K observed ids.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

from mismatchscope.records import Evidence, Observed, SequenceRecord
from mismatchscope.traces import Manifest, write_trace

SEQUENCE_TOKENS = 1000
SAMPLES = 4
K = 64
VOCABULARY = 150_000
RESULT = Path(__file__).parent / "results" / "compare_memory.md"


def records(tokens: int, *, noise: float) -> Iterator[SequenceRecord]:
    """Sequences whose two sides differ by logit noise alone; the ids and the behaviour are the same for both."""
    for sequence in range(tokens // SEQUENCE_TOKENS):
        rng = np.random.default_rng([0, sequence])
        ids_TK = rng.integers(0, VOCABULARY // K, (SEQUENCE_TOKENS, K)) + np.arange(K) * (VOCABULARY // K)
        logits_TK = -np.sort(rng.exponential(2.0, (SEQUENCE_TOKENS, K)), axis=1)
        logits_TK = logits_TK + noise * np.random.default_rng([1, sequence]).standard_normal(logits_TK.shape)
        # One per mille of the mass lies outside the observed ids.
        logp_TK = logits_TK - np.logaddexp.reduce(logits_TK, axis=1, keepdims=True) + np.log(0.999)
        yield SequenceRecord(
            sequence_id=sequence,
            prompt_id=sequence // SAMPLES,
            prompt_token_ids=np.arange(8, dtype=np.int32),
            response_token_ids=ids_TK[:, 0].astype(np.int32),
            finish_reason="length",
            observed=Observed(
                logprob_T=logp_TK[:, 0].copy(), topk_ids_TK=ids_TK.astype(np.int32), topk_logprobs_TK=logp_TK
            ),
        )


def manifest(role: str) -> Manifest:
    return Manifest(
        engine="synthetic",
        role=role,
        policy="raw",
        path="rollout" if role == "behavior" else "prefill",
        evidence=Evidence("topk", k=K),
        model={"vocabulary_size": VOCABULARY},
    )


def peak_of_compare(directory: Path, tokens: int) -> tuple[float, float]:
    """(seconds, peak resident MiB) of the installed command."""
    for role, noise in (("behavior", 0.0), ("reference", 0.01)):
        write_trace(directory / role, manifest(role), records(tokens, noise=noise))
    command = [str(Path(sys.executable).with_name("mismatchscope")), "compare", "-q"]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, directory / "behavior", directory / "reference", "-o", directory / "report"],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"compare failed with exit code {os.waitstatus_to_exitcode(status)}")
    shutil.rmtree(directory)
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    tokens = parser.parse_args().tokens
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in (tokens // 10, tokens):
            seconds, peak = peak_of_compare(Path(scratch, str(size)), size)
            rows.append(f"| {size:,} | {peak:,.0f} | {seconds:.1f} |")
    lines = [
        "# Memory of compare",
        "",
        f"Made by `python benchmarks/compare_memory.py` on {date.today()}: top-{K} evidence of both sides; "
        f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}.",
        "",
        "| tokens | peak resident MiB | seconds, reports written |",
        "| --- | --- | --- |",
        *rows,
        "",
        "Claim: at most 1024 MiB at 1,000,000 tokens.",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
