"""The transformers engine samples: draws follow what is recorded, and depend on nothing else.

Shapes: T response tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare
from tiny_engine import (
    DEVICES,
    ROLLOUT,
    Load,
    prompts,
    roll,
)
from tiny_models import EOS, VOCABULARY

from mismatchscope.records import Request, Sampling


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=1, seed=2),
        Sampling(max_new_tokens=1, temperature=0.7, top_k=12, seed=2),
        Sampling(max_new_tokens=1, temperature=1.3, top_p=0.8),
    ],
    ids=["plain", "top-k", "top-p"],
)
def test_draws_follow_the_recorded_distribution(load: Load, sampling: Sampling) -> None:
    prompt = prompts(1)[0].prompt_token_ids
    requests = [Request(i, 0, prompt) for i in range(3000)]
    records = list(load().rollout(requests, replace(ROLLOUT, sampling=sampling)))
    p_V = np.exp(records[0].observed.full_logprobs_RV[0].astype(float))
    counts_V = np.bincount([record.response_token_ids[0] for record in records], minlength=VOCABULARY)
    assert counts_V[p_V == 0].sum() == 0
    often = p_V * len(requests) >= 5
    observed = [*counts_V[often], counts_V[~often].sum()]
    expected = [*p_V[often], p_V[~often].sum()]
    observed, expected = zip(*[(o, e) for o, e in zip(observed, expected, strict=True) if e > 0], strict=True)
    assert chisquare(observed, np.array(expected) / sum(expected) * len(requests)).pvalue > 1e-3


def test_processed_and_raw_are_both_recorded_where_they_differ(load: Load) -> None:
    sampling = replace(ROLLOUT.sampling, temperature=0.8, top_k=10)
    for record in roll(load(), replace(ROLLOUT, sampling=sampling)).values():
        processed_TV, raw_TV = record.observed.full_logprobs_RV, record.raw.full_logprobs_RV
        assert (np.isfinite(processed_TV).sum(axis=1) == 10).all()
        assert np.isfinite(raw_TV).all()
        for processed_V, raw_V in zip(processed_TV.astype(float), raw_TV.astype(float), strict=True):
            best = np.argsort(raw_V)[-10:]
            scaled = raw_V[best] / 0.8
            np.testing.assert_allclose(processed_V[best], scaled - np.log(np.exp(scaled).sum()), atol=2e-6)
    assert all(record.raw is None for record in roll(load()).values())


def test_greedy_takes_the_most_probable_token_with_certainty(load: Load) -> None:
    for record in roll(load(), replace(ROLLOUT, sampling=Sampling(max_new_tokens=8, temperature=0))).values():
        np.testing.assert_array_equal(record.response_token_ids, record.raw.full_logprobs_RV.argmax(axis=1))
        assert (record.observed.logprob_T == 0).all() and (record.raw.logprob_T < 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_draws_do_not_depend_on_the_neighbours_in_the_batch(load: Load, device: str) -> None:
    engine = load(device=device)
    together = roll(engine)
    reversed_batch = roll(engine, requests=prompts(6)[::-1])
    for request in prompts(6):
        (alone,) = engine.rollout([request], ROLLOUT)
        for other in (together, reversed_batch):
            np.testing.assert_array_equal(alone.response_token_ids, other[request.sequence_id].response_token_ids)


def test_a_response_ends_with_the_stop_token_or_at_its_length(load: Load) -> None:
    records = roll(load(), replace(ROLLOUT, sampling=Sampling(max_new_tokens=40, seed=3)), prompts(24)).values()
    assert {record.finish_reason for record in records} == {"stop", "length"}
    for record in records:
        stops = record.response_token_ids == EOS
        assert not stops[:-1].any() and stops[-1] == (record.finish_reason == "stop")
        assert len(record.response_token_ids) == 40 or stops[-1]
        assert "".join(record.response_pieces).endswith("<eos>") == (record.finish_reason == "stop")


def test_a_response_stops_at_the_longest_context(load: Load) -> None:
    prompt = np.full(120, 5, dtype=np.int32)
    (record,) = load().rollout(
        [Request(0, 0, prompt)], replace(ROLLOUT, sampling=Sampling(max_new_tokens=24, seed=4))
    )
    assert len(record.response_token_ids) == 8 and record.finish_reason == "length"
