"""docs/python.md and the example for trainers: they run, and print what they say."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mismatchscope as ms

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<kind>python|text)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")


def same(shown: str, printed: str) -> bool:
    """The same words, and numbers that agree to 5 %: the last digit shown may differ between machines."""
    words = [[" ".join(NUMBER.sub("#", line).split()) for line in text.splitlines()] for text in (shown, printed)]
    numbers = [list(map(float, NUMBER.findall(text))) for text in (shown, printed)]
    return words[0] == words[1] and numbers[1] == pytest.approx(numbers[0], rel=0.05)


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [(found["kind"], found["text"]) for found in BLOCK.finditer(PAGE)]
    names: dict[str, object] = {}
    printed, checked = "", 0
    for kind, text in blocks:
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, "docs/python.md", "exec"), names)
            printed = out.getvalue()
        else:
            assert same(text, printed), f"docs/python.md shows\n{text}and prints\n{printed}"
            printed, checked = "", checked + 1
        assert kind == "python" or not printed
    assert checked == sum(kind == "python" for kind, _ in blocks) == 9


def test_every_public_name_is_documented() -> None:
    for name in set(ms.__all__) - {"Report", "Trace"}:
        assert f"[`ms.{name}`](#" in PAGE, name
        assert inspect.getdoc(getattr(ms, name)), name


@pytest.mark.slow
def test_the_example_for_trainers_runs() -> None:
    example = ROOT / "examples" / "trainer_trace.py"
    done = subprocess.run(
        [sys.executable, example],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    finding, *policies, drift, weights = done.stdout.splitlines()
    assert "mean TV" in finding and "32 prompts" in finding
    alpha1, alpha0, beta = (float(line.split()[2]) for line in policies)
    assert 0 < alpha1 < alpha0  # rounding to bfloat16 is less than a step of the optimizer
    assert abs(beta - alpha0) <= alpha1 + 1e-4  # of every token |μ - π_θ| ≤ |μ - π_old| + |π_old - π_θ|, as printed
    assert drift.startswith("pass") and weights.startswith("pass")


def test_writing_a_trace_takes_few_lines() -> None:
    block = next(found["text"] for found in BLOCK.finditer(PAGE) if "ms.write_trace(" in found["text"])
    calls = block[block.index("batch = ") : block.index("print(")]
    assert len(calls.splitlines()) <= 10
