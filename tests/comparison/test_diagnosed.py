"""A diagnosis that fails takes no figure with it, and is not passed over in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_traces import sampled_trace

from mismatchscope import compare
from mismatchscope.comparison import diagnosed
from mismatchscope.reports.document import NO_DIAGNOSIS, Report
from mismatchscope.reports.formats import render


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Two traces, compared while every diagnosis fails on what a prompt has in it."""

    def fails(evidence: object) -> None:
        raise ValueError("the prompt was: a secret")

    monkeypatch.setattr(diagnosed, "diagnose", fails)
    logp_ST = [np.log(np.random.default_rng(s).uniform(0.1, 0.8, 6)) for s in range(4)]
    mu = sampled_trace(tmp_path / "mu", logp_ST)
    pi = sampled_trace(tmp_path / "pi", [logp_T - 0.01 for logp_T in logp_ST], role="reference")
    return compare(mu, pi)


def test_the_figures_are_kept(compared: Report) -> None:
    assert compared.counts.tokens == 24
    assert compared.token.abs_logprob_diff.mean == pytest.approx(0.01)
    assert compared.diagnosis == [] and compared.diagnosis_answer is None


def test_every_form_says_that_it_failed_and_where_but_not_on_what(compared: Report) -> None:
    (alarm,) = (each for each in compared.alarms if each.code == NO_DIAGNOSIS)
    assert alarm.severity == "error"
    assert "The diagnosis failed" in alarm.message and "ValueError at test_diagnosed.py:" in alarm.message
    assert alarm.evidence["frames"][-1].endswith(" fails")
    for form in ("json", "markdown", "html"):
        text = render(compared, form)
        assert "The diagnosis failed" in text and "a secret" not in text
