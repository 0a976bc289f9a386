"""The states of largest TV, and the text around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_traces import full_trace, pair_of, sampled_trace

from mismatchscope.comparison.pair import Pair
from mismatchscope.comparison.worst_tokens import worst_tokens_of
from mismatchscope.measures.selected_states import AFTER, BEFORE


def pair_with_tvs(directory: Path, tv_ST: list[np.ndarray], pieces: dict[int, list[str]] | None = None) -> Pair:
    """μ gives every token ½ and π gives it ½ + TV: with the sampled token alone that is what is known of TV."""
    mu = sampled_trace(directory / "mu", [np.full(len(tv_T), np.log(0.5)) for tv_T in tv_ST], pieces=pieces)
    pi = [np.log(0.5 + np.asarray(tv_T)) for tv_T in tv_ST]
    return pair_of(mu, sampled_trace(directory / "pi", pi, role="reference"))


def test_the_ten_largest_come_first_and_in_order(tmp_path: Path) -> None:
    tv_ST = np.random.default_rng(0).uniform(0, 0.5, (5, 20))
    worst = worst_tokens_of(pair_with_tvs(tmp_path, list(tv_ST)))
    expected = np.argsort(-tv_ST.ravel())[:10]
    assert [(token.sequence_id, token.position) for token in worst] == [divmod(int(at), 20) for at in expected]
    np.testing.assert_allclose([token.tv for token in worst], tv_ST.ravel()[expected], rtol=1e-12)
    for token in worst:
        assert token.prompt_id == token.sequence_id
        assert token.token_id == (token.sequence_id + token.position) % 16
        assert token.logprob_behavior == np.log(0.5)
        assert token.ratio == pytest.approx(np.exp(token.logprob_reference - token.logprob_behavior))
        assert token.tv == pytest.approx(np.exp(token.logprob_reference) - 0.5)


def test_equal_states_are_in_order_of_sequence_and_position(tmp_path: Path) -> None:
    tv_ST = [np.array([0.0, 0.2, 0.2]), np.array([0.2, 0.3, 0.2])]
    worst = worst_tokens_of(pair_with_tvs(tmp_path, tv_ST))
    assert [(token.sequence_id, token.position) for token in worst] == [(1, 1), (0, 1), (0, 2), (1, 0), (1, 2)]


def test_there_are_no_more_than_differ(tmp_path: Path) -> None:
    """Three states differ, of eight: a state without TV is not among the worst."""
    worst = worst_tokens_of(pair_with_tvs(tmp_path, [np.array([0, 0.1, 0, 0.3]), np.array([0, 0, 0.2, 0])]))
    assert [token.tv for token in worst] == pytest.approx([0.3, 0.2, 0.1])
    assert worst_tokens_of(pair_with_tvs(tmp_path / "equal", [np.zeros(4), np.zeros(4)])) == []


@pytest.mark.parametrize("position", [0, 3, BEFORE, BEFORE + 1, 20, 29 - AFTER, 28, 29])
def test_the_text_around_a_state_is_that_of_its_places(tmp_path: Path, position: int) -> None:
    tv_T = np.linspace(0.001, 0.1, 30)
    tv_T[position] = 0.4
    pieces = [f"<{at}>" for at in range(30)]
    token = worst_tokens_of(pair_with_tvs(tmp_path, [tv_T, np.zeros(2)], {0: pieces}))[0]
    window = range(max(0, position - BEFORE), min(30, position + AFTER + 1))
    assert token.position == position
    assert [piece.text for piece in token.context] == [f"<{at}>" for at in window]
    np.testing.assert_allclose([piece.tv for piece in token.context], tv_T[window.start : window.stop])
    assert token.context[token.focus].text == f"<{position}>"
    assert token.context[token.focus].tv == token.tv


def test_a_token_that_was_not_compared_has_text_and_no_tv(tmp_path: Path) -> None:
    mu = sampled_trace(tmp_path / "mu", [np.full(3, np.log(0.5))] * 2, pieces={0: ["a", "b", "c"]})
    pi = [np.log([0.5, np.nan, 0.9]), np.log([0.5, 0.5, 0.5])]
    (token,) = worst_tokens_of(pair_of(mu, sampled_trace(tmp_path / "pi", pi, role="reference")))
    assert (token.position, token.focus) == (2, 2)
    assert [(piece.text, piece.tv) for piece in token.context] == [("a", 0.0), ("b", None), ("c", token.tv)]


def test_a_sequence_without_text_has_no_context(tmp_path: Path) -> None:
    """The text of one sequence is never taken for another's."""
    pair = pair_with_tvs(tmp_path, [np.array([0.0, 0.3]), np.array([0.2, 0.0])], {1: ["x", "y"]})
    first, second = worst_tokens_of(pair)
    assert (first.sequence_id, first.context, first.focus) == (0, [], 0)
    assert (second.sequence_id, [piece.text for piece in second.context]) == (1, ["x", "y"])


def test_the_token_that_moved_most_is_not_the_sampled_one(tmp_path: Path) -> None:
    """The drawn token 0 keeps its probability; 2 loses what 3 gains, and 3 gains more than any other changes."""
    p_mu, p_pi = np.array([[0.4, 0.3, 0.2, 0.1]]), np.array([[0.4, 0.25, 0.05, 0.3]])
    mu = full_trace(tmp_path / "mu", [p_mu])
    (token,) = worst_tokens_of(pair_of(mu, full_trace(tmp_path / "pi", [p_pi], role="reference")))
    assert (token.token_id, token.moved.token_id, token.moved.text) == (0, 3, None)
    assert np.exp([token.moved.logprob_behavior, token.moved.logprob_reference]) == pytest.approx([0.1, 0.3])


def test_of_sampled_evidence_it_is_the_sampled_token(tmp_path: Path) -> None:
    (token,) = worst_tokens_of(pair_with_tvs(tmp_path, [np.array([0.3])], {0: ["x"]}))
    assert (token.moved.token_id, token.moved.text) == (token.token_id, "x")
    assert token.moved.logprob_reference == token.logprob_reference


def test_on_the_support_the_moved_token_is_that_of_the_renormalised_reference(tmp_path: Path) -> None:
    """π gives the cut-off token 3 half its mass; renormalised, 0 has moved and 3 has not."""
    p_mu, p_pi = np.array([[0.5, 0.3, 0.2, 0.0]]), np.array([[0.35, 0.1, 0.05, 0.5]])
    mu = full_trace(tmp_path / "mu", [p_mu])
    pair = pair_of(mu, full_trace(tmp_path / "pi", [p_pi], role="reference"), policy="support")
    (token,) = worst_tokens_of(pair)
    assert token.moved.token_id == 0
    assert np.exp(token.moved.logprob_reference) == pytest.approx(0.7)
