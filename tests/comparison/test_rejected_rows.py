"""Responses that lost a token, prompts that lost all of theirs, and comparisons that lost too much."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from written_traces import sampled_trace

from mismatchscope import gate
from mismatchscope.comparison.compare_traces import compare
from mismatchscope.reports.document import Report
from mismatchscope.reports.summary import headline

MU = [np.full(6, -2.0)] * 8
GAP_S = np.linspace(-0.4, 0.3, 8)


def pi_with(nan: Sequence[tuple[int, int]] = ()) -> list[np.ndarray]:
    """A gap of its own in every response; NaN at these (sequence, position)."""
    pi_ST = [np.full(6, -2.0 + gap) for gap in GAP_S]
    for sequence, position in nan:
        pi_ST[sequence][position] = np.nan
    return pi_ST


def report(directory: Path, pi_ST: list[np.ndarray], mu_ST: list[np.ndarray] = MU, **settings: float) -> Report:
    mu = sampled_trace(directory / "mu", mu_ST)
    return compare(mu, sampled_trace(directory / "pi", pi_ST, role="reference"), **settings)


def figures(found: Report, block: str) -> dict[str, object]:
    """Every number and word of a block, by its path."""
    flat, nodes = {}, [(block, found.model_dump()[block])]
    for path, node in nodes:
        children = (
            node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
        )
        nodes += [(f"{path}.{key}", child) for key, child in children]
        if not isinstance(node, dict | list | tuple):
            flat[path] = node
    return flat


def test_a_partial_response_is_in_no_sequence_figure(tmp_path: Path) -> None:
    """Sequences 2 and 5 lost a token: every figure of responses is that of the other six alone."""
    cut = report(tmp_path / "cut", pi_with([(2, 0), (5, 3)]), max_rejected=0.5)
    whole = [0, 1, 3, 4, 6, 7]
    rest = report(tmp_path / "rest", [pi_with()[s] for s in whole], [MU[s] for s in whole])
    assert (cut.counts.rejected, cut.counts.partial_sequences, cut.counts.sequences) == (2, 2, 8)
    assert cut.sequence.log_ratio.n == 6
    assert cut.sequence.log_ratio.mean == pytest.approx(6 * np.mean(GAP_S[whole]))
    for block in ("sequence", "corrections", "bounds"):
        ours, theirs = (figures(found, block) for found in (cut, rest))
        assert ours.keys() == theirs.keys()
        for path, value in ours.items():
            assert value == (pytest.approx(theirs[path]) if isinstance(value, float) else theirs[path]), path


def test_its_other_tokens_still_count(tmp_path: Path) -> None:
    cut = report(tmp_path, pi_with([(2, 0), (5, 3)]), max_rejected=0.5)
    assert cut.counts.tokens == 46
    weight_S = np.array([6, 6, 5, 6, 6, 5, 6, 6])
    assert cut.token.k1.mean == pytest.approx(-(weight_S * GAP_S).sum() / 46)


def test_where_no_response_is_whole_their_figures_are_null(tmp_path: Path) -> None:
    found = report(tmp_path, pi_with([(s, s % 6) for s in range(8)]), max_rejected=0.5)
    assert (found.counts.tokens, found.counts.partial_sequences) == (40, 8)
    assert found.sequence.log_ratio is None
    assert found.sequence.ess_fraction is None
    assert found.corrections == []
    assert found.bounds.max_free_linear is None
    assert found.token.tv.mean > 0


def test_prompts_are_counted_after_rejection(tmp_path: Path) -> None:
    """Six of eight prompts have lost every row: two are left, and two are what every interval is made of."""
    lost = report(tmp_path, pi_with([(s, t) for s in range(6) for t in range(6)]), max_rejected=0.9)
    assert (lost.counts.prompts, lost.counts.sequences, lost.counts.matched_sequences) == (2, 2, 8)
    assert lost.token.tv.clusters == 2
    assert "of 2 prompts; 36 rows rejected" in lost.finding.sentence


def test_equality_of_what_is_left_says_what_is_missing(tmp_path: Path) -> None:
    pi_ST = [logp_T.copy() for logp_T in MU]
    pi_ST[0][:] = np.nan
    found = report(tmp_path, pi_ST)
    assert found.finding.sentence == (
        "Bit-identical in what is left: no recorded log-prob differs at all "
        "(42 tokens of 7 prompts; 6 rows rejected)."
    )
    assert (found.verdict, headline(found).badge) == ("inconclusive", "INCONCLUSIVE")


@pytest.mark.parametrize(("limit", "verdict"), [(0.01, "inconclusive"), (0.05, "none")])
def test_more_than_the_stated_share_of_rejected_rows_is_inconclusive(
    tmp_path: Path, limit: float, verdict: str
) -> None:
    """One row of 48 is 2.1 %."""
    assert report(tmp_path, pi_with([(2, 0)]), max_rejected=limit).verdict == verdict


def test_a_gate_may_fail_but_not_pass_on_what_is_left(tmp_path: Path) -> None:
    found = report(tmp_path, pi_with([(2, 0)]))
    assert gate.apply(found, ["counts.tokens < 10"]).verdict == "inconclusive"
    assert gate.apply(found, ["counts.tokens > 10"]).verdict == "fail"
    complete = found.model_copy(update={"counts": found.counts.model_copy(update={"rejected": 0})})
    assert gate.apply(complete, ["counts.tokens < 10"]).verdict == "pass"


def test_the_alarm_says_how_many_and_where(tmp_path: Path) -> None:
    found = report(tmp_path, pi_with([(2, 0), (5, 3), (5, 4)]))
    messages = {alarm.code: alarm.message for alarm in found.alarms}
    assert messages["rejected"].startswith(
        "In no figure, for a log-prob that is NaN or +inf: 3 of 48 rows (6.25 %)."
    )
    assert messages["rejected"].endswith("for such a row: 2 responses, and 0 without any row left.")
    assert "position 0 of sequence 2" in messages["alignment"]
