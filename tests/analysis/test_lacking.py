"""What a log has a column of, but not of every token, is said, and what the report leaves out for that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_rows import log_batch, sampled_rows

from mismatchscope.analysis.analyze import analyze
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.reports.document import Report

ROWS = sampled_rows(12)
TOKENS = sum(map(len, ROWS["behavior_logprobs"]))
SAID = "π_θ has no log-prob (none, not a number, or above 0)"


def analysed(folder: Path, **columns: list[np.ndarray]) -> Report:
    pq.write_table(pa.Table.from_batches([log_batch(**(ROWS | columns)).rows]), folder / "log.parquet")
    return analyze([folder], AnalysisSettings(), processes=1)


def remarks(report: Report) -> str:
    assert report.log is not None
    return "\n".join(report.log.remarks)


@pytest.mark.parametrize("value", [np.nan, 0.5], ids=["not a number", "above 0"])
def test_tokens_without_a_log_prob_of_the_target_are_counted(tmp_path: Path, value: float) -> None:
    theta = [np.append(logp_T[1:], value) for logp_T in ROWS["behavior_logprobs"]]
    report = analysed(tmp_path, target_logprobs=theta, advantages=[np.ones(len(each)) for each in theta])
    assert (report.alpha0, report.beta, report.bounds.slack_mean) == (None, None, None)
    where, found = f"12 of {TOKENS} tokens", remarks(report)
    assert f"{SAID} at {where}, and no response has it at every token: α₀, β and the slack are left out" in found
    assert f"ppo_clip, gspo_clip, cispo, decoupled_ppo (needs log-probs of π_θ (not known at {where}))" in found


def test_what_is_measured_of_the_other_responses_is_said(tmp_path: Path) -> None:
    theta = [logp_T.copy() for logp_T in ROWS["reference_logprobs"]]
    theta[3][:] = np.nan
    report = analysed(tmp_path, target_logprobs=theta)
    assert report.alpha0 is not None and report.beta is not None and report.bounds.slack_mean is None
    assert f"{SAID} at {len(theta[3])} of {TOKENS} tokens: α₀ and β are of the responses that" in remarks(report)
    assert SAID not in remarks(analysed(tmp_path, target_logprobs=ROWS["reference_logprobs"]))
    assert SAID not in remarks(analysed(tmp_path))


@pytest.mark.parametrize("everywhere", [True, False])
def test_advantages_that_are_not_known_are_told_from_none(tmp_path: Path, everywhere: bool) -> None:
    advantages = [np.full(len(logp_T), np.nan if everywhere else 1.0) for logp_T in ROWS["behavior_logprobs"]]
    advantages[0][0] = np.nan
    found = remarks(analysed(tmp_path, advantages=advantages))
    assert f"advantages (not known at {TOKENS if everywhere else 1} of {TOKENS} tokens)" in found
    assert "advantages)" in remarks(analysed(tmp_path))
