"""Copies of a prompt under other ids are no further prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from written_traces import sampled_trace

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.reports.document import Report

PROMPT_S = np.repeat(np.arange(4), 16)


def report(directory: Path, *, per_prompt: int) -> Report:
    """64 responses to 4 prompts, each prompt with a gap of its own, under 64 / `per_prompt` ids."""
    shift_S = np.random.default_rng(0).normal(0, 0.1, 4)[PROMPT_S]
    kind = {"per_prompt": per_prompt, "prompts": PROMPT_S.tolist()}
    mu = sampled_trace(directory / "mu", [np.full(5, -2.0)] * 64, **kind)
    pi_ST = list(np.full((64, 5), -2.0) + shift_S[:, None])
    return compare(mu, sampled_trace(directory / "pi", pi_ST, role="reference", **kind))


def test_copies_narrow_no_interval_and_grant_no_bound(tmp_path: Path) -> None:
    copied, honest = report(tmp_path / "copied", per_prompt=1), report(tmp_path / "honest", per_prompt=16)
    assert (copied.counts.prompts, copied.counts.prompt_ids) == (4, 64)
    assert (honest.counts.prompts, honest.counts.prompt_ids) == (4, 4)
    for block in ("token", "alpha1", "sequence", "bounds", "finding"):
        assert getattr(copied, block) == getattr(honest, block)


def test_a_remark_says_how_many_prompts_there_are(tmp_path: Path) -> None:
    copied, honest = report(tmp_path / "copied", per_prompt=1), report(tmp_path / "honest", per_prompt=16)
    (alarm,) = [alarm for alarm in copied.alarms if alarm.code == "equal_prompts"]
    assert alarm.message.startswith("64 prompt ids hold 4 distinct prompts")
    assert "equal_prompts" not in [alarm.code for alarm in honest.alarms]
