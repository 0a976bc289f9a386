"""Limits beside the quantiles of a report."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_pair import make_pair

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.engines.synthetic.policy import SyntheticOptions
from mismatchscope.measures.results import TokenMeasures
from mismatchscope.records import Evidence

LIMITED = {
    "full": {"tv", "tv_lower", "tv_upper", "kl", "k1", "k2", "k3", "ratio", "shortfall", "abs_logprob_diff"},
    "topk": {"tv_lower", "tv_upper", "k1", "k2", "k3", "ratio", "shortfall", "abs_logprob_diff"},
    "sampled": {"tv_lower", "k1", "k2", "k3", "ratio", "shortfall", "abs_logprob_diff"},
}


def tokens(directory: Path, kind: str, prompts: int) -> TokenMeasures:
    evidence = Evidence("topk", k=6) if kind == "topk" else Evidence(kind)
    reference = SyntheticOptions(tv=0.2, epsilon=0.01)
    found = make_pair(directory, evidence=evidence, reference=reference, prompts=prompts)
    return compare(found.behavior, found.reference).token


@pytest.mark.parametrize("kind", LIMITED)
def test_quantiles_lie_between_their_limits(tmp_path: Path, kind: str) -> None:
    measures = tokens(tmp_path, kind, prompts=24)
    for name in LIMITED[kind]:
        statistic = getattr(measures, name)
        assert {"p50", "p90"} <= statistic.quantile_limits.keys(), name
        for quantile, (low, high) in statistic.quantile_limits.items():
            value = getattr(statistic, quantile)
            assert low <= value and (high is None or value <= high), (name, quantile)


def test_one_prompt_has_no_limits(tmp_path: Path) -> None:
    assert tokens(tmp_path, "full", prompts=1).tv.quantile_limits == {}


def test_a_quantile_at_the_edge_of_the_sample_has_no_upper_limit(tmp_path: Path) -> None:
    """A few hundred tokens show where p99 is at least, not where it is at most."""
    low, high = tokens(tmp_path, "full", prompts=6).tv.quantile_limits["p99"]
    assert low is not None and high is None
