"""What a diagnosis of two traces is made from: whole sequences as they were recorded, and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from written_traces import full_trace, pair_of, sampled_pair, sampled_trace

from mismatchscope.comparison import token_evidence
from mismatchscope.comparison.floors import NO_NOISE, Repeats, measure_floors
from mismatchscope.comparison.pair import Pair
from mismatchscope.comparison.token_evidence import evidence_of, floor_of, own_gap_of
from mismatchscope.diagnosis.evidence import OwnGap, TokenEvidence
from mismatchscope.reports.difference_fields import Difference

LENGTHS = [4, 6, 5, 3, 7]


def log_probs(seed: int) -> list[np.ndarray]:
    return [np.log(np.random.default_rng([seed, s]).uniform(0.1, 0.8, n)) for s, n in enumerate(LENGTHS)]


def found(pair: Pair) -> TokenEvidence:
    return evidence_of(pair, NO_NOISE, [])


def test_every_token_of_both_sides(tmp_path: Path) -> None:
    mu_ST, pi_ST = log_probs(0), log_probs(1)
    evidence = found(sampled_pair(tmp_path, mu_ST, pi_ST))
    np.testing.assert_array_equal(evidence.logp_mu_N, np.concatenate(mu_ST))
    np.testing.assert_array_equal(evidence.logp_pi_N, np.concatenate(pi_ST))
    np.testing.assert_array_equal(evidence.length_S, LENGTHS)
    np.testing.assert_array_equal(evidence.prompt_length_S, [2] * 5)
    assert evidence.token_N is not None and evidence.previous_N is not None
    starts = evidence.offsets_S1[:-1]
    np.testing.assert_array_equal(evidence.token_N[starts], np.arange(5))  # token t of sequence s is s + t
    np.testing.assert_array_equal(evidence.previous_N[starts], np.arange(5))  # the prompt's last one
    inside_N = np.setdiff1d(np.arange(evidence.tokens), starts)
    np.testing.assert_array_equal(evidence.previous_N[inside_N], evidence.token_N[inside_N - 1])
    assert evidence.level == "sampled" and not evidence.metadata


def test_numbers_that_no_policy_has_are_kept(tmp_path: Path) -> None:
    mu_ST, pi_ST = log_probs(0), log_probs(1)
    pi_ST[2][1] = np.nan
    pair = sampled_pair(tmp_path, mu_ST, pi_ST)
    assert pair.statistics.tokens == sum(LENGTHS) - 1
    evidence = found(pair)
    assert evidence.tokens == sum(LENGTHS) and np.isnan(evidence.logp_pi_N).sum() == 1


def test_only_sequences_that_both_have(tmp_path: Path) -> None:
    logp_ST = log_probs(0)[:3]
    mu = sampled_trace(tmp_path / "mu", logp_ST, ids=[0, 2, 5])
    pi = sampled_trace(tmp_path / "pi", logp_ST[1:], ids=[2, 5], role="reference")
    evidence = found(pair_of(mu, pi))
    assert evidence.name_S is not None and evidence.name_S.tolist() == ["2", "5"]
    np.testing.assert_array_equal(evidence.logp_mu_N, np.concatenate(logp_ST[1:]))


def test_a_loss_mask_leaves_tokens_out(tmp_path: Path) -> None:
    logp_ST = log_probs(0)
    mask_ST = [np.arange(len(logp_T)) % 3 != 1 for logp_T in logp_ST]
    mu = sampled_trace(tmp_path / "mu", logp_ST, mask_ST=mask_ST)
    pi = sampled_trace(tmp_path / "pi", log_probs(1), role="reference")
    evidence = found(pair_of(mu, pi, mask=mu))
    np.testing.assert_array_equal(evidence.logp_mu_N, np.concatenate(logp_ST)[np.concatenate(mask_ST)])


def test_a_sample_has_whole_sequences_and_says_of_how_many_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_evidence, "MOST_TOKENS", 14)
    evidence = found(sampled_pair(tmp_path, log_probs(0), log_probs(1)))
    assert evidence.tokens <= 14 and evidence.tokens_seen == sum(LENGTHS)
    assert evidence.name_S is not None
    assert [LENGTHS[int(name)] for name in evidence.name_S] == evidence.length_S.tolist()


def test_whole_distributions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    p_STV = [rng.dirichlet(np.ones(builders.V), 4) for _ in range(3)]
    mu = full_trace(tmp_path / "mu", p_STV)
    pi = full_trace(tmp_path / "pi", [np.roll(p_TV, 1, axis=1) for p_TV in p_STV], role="reference")
    evidence = found(pair_of(mu, pi))
    assert evidence.level == "full" and evidence.full is not None
    np.testing.assert_array_equal(evidence.full.row_M, np.arange(12))
    np.testing.assert_array_equal(evidence.full.logp_mu_MV[:, 0], evidence.logp_mu_N.astype(np.float32))
    np.testing.assert_array_equal(np.roll(evidence.full.logp_mu_MV, 1, axis=1), evidence.full.logp_pi_MV)


def test_a_distribution_of_nan_is_no_evidence_and_no_error(tmp_path: Path) -> None:
    """The row is rejected with its token, as everywhere."""
    p_TV = np.random.default_rng(0).dirichlet(np.ones(builders.V), 4)
    broken_TV = p_TV.copy()
    broken_TV[2] = np.nan
    mu = full_trace(tmp_path / "mu", [p_TV])
    evidence = found(pair_of(mu, full_trace(tmp_path / "pi", [broken_TV], role="reference")))
    assert evidence.full is not None and evidence.full.row_M.tolist() == [0, 1, 3]
    assert np.isnan(evidence.logp_pi_N[2])


def test_listed_ids(tmp_path: Path) -> None:
    records = [builders.records(LENGTHS, seed=seed, level="topk", k=4) for seed in (0, 1)]
    mu, pi = (
        builders.stored(tmp_path / role, batch, role=role)
        for role, batch in zip(("behavior", "reference"), records, strict=True)
    )
    evidence = found(pair_of(mu, pi))
    assert evidence.level == "top-k" and evidence.top is not None
    expected_NK = np.concatenate([record.observed.topk_ids_TK for record in records[0]])
    np.testing.assert_array_equal(evidence.top.ids_mu_NK[:, :4], expected_NK)


def test_settings_are_those_that_can_move_log_probs(tmp_path: Path) -> None:
    differences = [Difference("dtype", "bfloat16", "float32", rank=1), Difference("engine_version", "1", "2")]
    evidence = evidence_of(sampled_pair(tmp_path, log_probs(0), log_probs(1)), NO_NOISE, differences)
    assert dict(evidence.settings) == {"dtype": ("bfloat16", "float32")}


@pytest.mark.parametrize(("noise", "source"), [(1e-5, "prior"), (0.002, "repeat"), (0.2, "prior")])
def test_the_floor_is_the_larger_of_the_repeat_and_of_what_rounding_makes(
    tmp_path: Path, noise: float, source: str
) -> None:
    """A repeat that is farther away than rounding makes it is no floor, and is evidence itself."""
    mu_ST, float32 = log_probs(0), {"dtype": "float32"}

    def trace(name: str, logp_ST: list[np.ndarray], **manifest: Any) -> Any:
        return sampled_trace(tmp_path / name, logp_ST, effective=float32, **manifest)

    mu, again = trace("mu", mu_ST), trace("again", [logp_T - noise for logp_T in mu_ST], path="prefill")
    pair = pair_of(mu, trace("pi", log_probs(1), role="reference", path="prefill"))
    floors = measure_floors(pair, Repeats(behavior=again), margin=0.5)
    floor, own_gap = floor_of(pair, floors), own_gap_of(pair, floors)
    assert floor.source == source
    z_N = noise / (1 - np.exp(np.concatenate(mu_ST) - noise / 2))
    own = np.sqrt(np.mean(z_N**2))
    assert floor.value == pytest.approx(0.002 if source == "prior" else own)
    assert own_gap == (
        None if noise < 0.1 else OwnGap("behavior", pytest.approx(own), pytest.approx(0.002 * 8 / 3))
    )
