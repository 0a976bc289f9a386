"""The sums by prompt of a comparison are those behind the means of its report."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from synthetic_pair import make_pair

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.engines.synthetic.policy import SyntheticOptions
from mismatchscope.records import Evidence
from mismatchscope.reports.document import Report
from mismatchscope.reports.figure_paths import figure_at

KINDS = {"full": Evidence("full"), "topk": Evidence("topk", k=6), "sampled": Evidence("sampled")}


def audit(directory: Path, evidence: Evidence, prompts: int = 12) -> Report:
    found = make_pair(
        directory, evidence=evidence, reference=SyntheticOptions(tv=0.2, epsilon=0.01), prompts=prompts
    )
    return compare(found.behavior, found.reference)


@pytest.mark.parametrize("kind", KINDS)
def test_they_add_up_to_the_means_of_the_report(tmp_path: Path, kind: str) -> None:
    report = audit(tmp_path, KINDS[kind])
    sums = report.prompt_sums
    assert len(sums.prompts) == len(set(sums.prompts)) == 12
    assert {"token.tv", "token.kl", "token.k3", "token.ratio", "sequence.log_ratio"} <= sums.figures.keys()
    for path, figure in sums.figures.items():
        found = figure_at(report, path)
        assert math.fsum(figure.sums) / sum(figure.counts) == pytest.approx(found.value, rel=1e-9), path


def test_a_prompt_has_the_same_name_in_every_audit(tmp_path: Path) -> None:
    few, many = (audit(tmp_path / str(n), KINDS["full"], n).prompt_sums.prompts for n in (4, 8))
    assert set(few) < set(many)
