"""A log whose sampler has another rotary base than the trainer: `diagnose --confirm` finds out which.

python examples/other_rotary_base.py other-rotary-base
cd other-rotary-base
mismatchscope diagnose log --confirm --model demo:dense -o diagnosis
"""

import sys
from pathlib import Path

from stale_worker import ENGINE, log_worker

import mismatchscope as ms

MODEL = ("--model", "demo:dense")
OTHER = 'hf_overrides={"rope_parameters":{"rope_theta":20000}}'
"""In place of the model's 10,000."""


def main(directory: Path) -> None:
    recorder = ms.Recorder(directory / "log", trainer="an example", flush_seconds=3600)
    log_worker(recorder, directory, 0, ("--engine", f"{ENGINE},{OTHER}", *MODEL), ("--engine", ENGINE, *MODEL))
    recorder.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
