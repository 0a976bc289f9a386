"""Which traces may be compared: vocabularies and their padding, policies, and what is worth a note."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aligned_rows import align, by_row
from builders import V, records, stored

from mismatchscope.alignment.alignment import Alignment
from mismatchscope.errors import MisalignedError, NotComparableError
from mismatchscope.records import SequenceRecord
from mismatchscope.traces import ModelFacts, Trace

Store = Callable[..., Trace]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return lambda batch, **changes: stored(tmp_path_factory.mktemp("side"), batch, **changes)


def widened(batch: list[SequenceRecord], mass: float) -> list[SequenceRecord]:
    """The same distributions with two more ids, which share this mass."""
    for each in batch:
        logp_RV = each.observed.full_logprobs_RV
        with np.errstate(divide="ignore"):
            extra = np.full((len(logp_RV), 2), np.log(mass / 2), dtype=np.float32)
        each.observed.full_logprobs_RV = np.hstack([logp_RV, extra])
    return batch


def widths(alignment: Alignment) -> set[tuple[int, int]]:
    """Of both distributions, over all rows."""
    return {tuple(len(side) for side in row["full"]) for row in by_row(alignment).values()}


@pytest.mark.parametrize("wide", [0, 1])
def test_padding_without_mass_is_cut_off(store: Store, wide: int) -> None:
    sides = [records([5]), records([5], seed=1)]
    sides[wide] = widened(sides[wide], 0.0)
    sizes = [V, V]
    sizes[wide] = V + 2
    tokenizers = ("t", "other files")
    traces = [
        store(side, model=ModelFacts(name="tiny", vocabulary_size=size), tokenizer_sha256=tokenizer)
        for side, size, tokenizer in zip(sides, sizes, tokenizers, strict=True)
    ]
    alignment = align(*traces)
    assert widths(alignment) == {(V, V)}
    assert any("padding was cut off" in note for note in alignment.notes)


@pytest.mark.parametrize("mass", [1e-8, 1e-3])
def test_padding_with_mass_is_a_leak_unless_negligible(store: Store, mass: float) -> None:
    alignment = align(store(records([5])), store(widened(records([5], seed=1), mass)))
    if mass < 1e-6:
        assert widths(alignment) == {(V, V)}
    else:
        assert widths(alignment) == {(V + 2, V + 2)}
        for row in by_row(alignment).values():
            logp_mu_V, logp_pi_V = row["full"]
            assert np.isneginf(logp_mu_V[V:]).all()
            np.testing.assert_allclose(np.exp(logp_pi_V[V:]).sum(), mass, rtol=1e-5)
        assert any("counts as leak" in note for note in alignment.notes)


def test_another_vocabulary_is_an_error(store: Store) -> None:
    mu = store(records([5], level="sampled"))
    small = ModelFacts(vocabulary_size=4)
    with pytest.raises(MisalignedError, match=r"Token id \d+ lies outside the reference's vocabulary of 4"):
        align(mu, store(records([5], level="sampled"), model=small))
    larger = ModelFacts(vocabulary_size=V + 100)
    assert "taken as padding" in align(mu, store(records([5], level="sampled"), model=larger)).notes[0]
    with pytest.raises(MisalignedError, match="the tokenizers differ too"):
        align(mu, store(records([5], level="sampled"), model=larger, tokenizer_sha256="other"))


@pytest.mark.parametrize(
    ("mu", "pi", "comparable"),
    [
        ({"policy": "raw"}, {"policy": "raw"}, True),
        ({"policy": "processed"}, {"policy": "support"}, True),
        ({"policy": "processed"}, {"policy": "raw"}, True),
        (
            {"policy": "processed", "sampling": {"temperature": 0.7, "top_p": 1.0, "top_k": 0}},
            {"policy": "raw"},
            False,
        ),
        (
            {"policy": "processed", "sampling": {"temperature": 1.0, "top_p": 0.9, "top_k": 0}},
            {"policy": "raw"},
            False,
        ),
        ({"policy": "processed", "sampling": None}, {"policy": "raw"}, False),
        ({"policy": "raw"}, {"policy": "processed", "temperature": 0.7}, False),
        ({"policy": "raw"}, {"policy": "support"}, False),
        ({"policy": "support"}, {"policy": "processed"}, False),
    ],
)
def test_only_the_same_question_is_answered(
    store: Store, mu: dict[str, Any], pi: dict[str, Any], comparable: bool
) -> None:
    traces = store(records([5]), **mu), store(records([5], seed=1), **pi)
    if comparable:
        assert align(*traces).counts.tokens == 5
    else:
        with pytest.raises(NotComparableError, match=f"holds the {mu['policy']} policy") as raised:
            align(*traces)
        assert f"score the {mu['policy']} behaviour trace" in raised.value.hint


def test_what_is_worth_knowing_is_noted(store: Store) -> None:
    mu = store(records([5], fraction=0.5))
    assert align(mu, mu).notes == []
    pi = records([5], seed=1, level="sampled")
    pi[0].prompt_id = 9
    notes = align(mu, store(pi, temperature=0.7, tokenizer_sha256="other")).notes
    for said in (
        "divided by 1.0 on one side and by 0.7",
        "tokenizer files",
        "number their prompts",
        "sampled alone",
    ):
        assert any(said in note for note in notes)
    stale = ModelFacts(name="tiny", weights_sha256="older", vocabulary_size=V)
    assert align(mu, store(records([5], seed=1), model=stale)).counts.tokens == 5


@pytest.mark.parametrize(
    "change",
    [
        {"min_p": 0.1},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.2},
        {"frequency_penalty": 0.2},
        {"logit_bias": {3: 1.0}},
    ],
)
def test_every_transform_of_a_sampler_is_asked(store: Store, change: dict[str, Any]) -> None:
    """Its processed policy is not the raw one, and log-probs without it are others."""
    sampler = {"temperature": 1.0, **change}
    mu = store(records([5]), sampling=sampler)
    with pytest.raises(NotComparableError, match="holds the processed policy"):
        align(mu, store(records([5], seed=1), policy="raw"))
    [key] = change
    notes = align(mu, store(records([5], seed=1), sampling={"temperature": 1.0})).notes
    assert any(f"the sampler's {key}" in note for note in notes)
    assert align(mu, store(records([5], seed=1), sampling=sampler)).notes == []
