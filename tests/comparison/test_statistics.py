"""A report does not depend on how its sequences were cut into chunks, nor on their order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from synthetic_pair import make_pair

from mismatchscope.alignment.alignment import Alignment
from mismatchscope.comparison.chart_data import chart_data_of
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import Pair, measure_pair
from mismatchscope.comparison.states import States, measured
from mismatchscope.comparison.statistics import PairStatistics
from mismatchscope.engines.synthetic.policy import SyntheticOptions
from mismatchscope.measures.sketches import QuantileSketch
from mismatchscope.records import Evidence, Sampling

NOISY = SyntheticOptions(tv=0.2, epsilon=0.01, unreachable=2, leak=0.01)
KINDS = {
    "full": {"evidence": Evidence("full")},
    "topk": {"evidence": Evidence("topk", k=6)},
    "sampled": {"evidence": Evidence("sampled")},
    "some states": {"evidence": Evidence("full", fraction=0.4, seed=1)},
    "truncated": {"sampling": Sampling(max_new_tokens=24, temperature=0.8, top_k=10)},
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    found = make_pair(
        tmp_path_factory.mktemp("pair"),
        behavior=SyntheticOptions(unreachable=2),
        reference=NOISY,
        prompts=12,
        **KINDS[request.param],
    )
    return measure_pair(found.behavior, found.reference, Context.of(found.behavior, found.reference, None))


def parts(states: States, order_S: np.ndarray) -> States:
    """These sequences of a block, in this order."""
    row_N = np.concatenate([np.arange(states.offsets_S1[s], states.offsets_S1[s + 1]) for s in order_S])

    def chosen(value: Any) -> Any:
        return value[row_N] if isinstance(value, np.ndarray) else value

    return States(
        **{
            field.name: getattr(states, field.name)[order_S]
            if field.name.endswith("_S")
            else {name: column[row_N] for name, column in states.columns.items()}
            if field.name == "columns"
            else chosen(getattr(states, field.name))
            for field in dataclasses.fields(states)
        }
    )


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two nested results differ by more than the rounding of float64 sums."""
    if dataclasses.is_dataclass(one) or isinstance(one, BaseModel):
        for name in vars(one):
            yield from differences(getattr(one, name), getattr(other, name), f"{path}.{name}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{path}: {len(one)} and {len(other)} entries"
        for at, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, f"{path}.{at}")
    elif isinstance(one, float) and isinstance(other, float):
        if not math.isclose(one, other, rel_tol=1e-7, abs_tol=1e-12) and one == one:
            yield f"{path}: {one!r} and {other!r}"
    elif one != other:
        yield f"{path}: {one!r} and {other!r}"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), merge=st.booleans())
def test_any_split_and_order_of_chunks_gives_the_same_report(pair: Pair, seed: int, merge: bool) -> None:
    rng = np.random.default_rng(seed)
    (states,) = measured(Alignment(pair.mu, pair.pi), pair.context.policy)
    pair = dataclasses.replace(pair, statistics=PairStatistics(truncated=pair.context.truncated))
    pair.statistics.add(states)
    order_S = rng.permutation(len(states.sequence_id_S))
    statistics = PairStatistics(truncated=pair.context.truncated)
    for part_S in np.array_split(order_S, rng.integers(1, 9)):
        into = PairStatistics(truncated=pair.context.truncated) if merge else statistics
        into.add(parts(states, part_S))
        if merge:
            statistics.merge(into)
    other = dataclasses.replace(pair, statistics=statistics)
    assert not list(differences(pair.figures, other.figures))
    assert not list(differences(chart_data_of(pair, pair), chart_data_of(other, other)))
    assert not list(differences(pair.statistics.largest.states(), other.statistics.largest.states()))


def test_small_blocks_give_the_same_report(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traces read a few sequences at a time, as those of a long run are."""
    monkeypatch.setattr(Alignment.blocks, "__defaults__", (50,))
    blocks = []
    again = measure_pair(pair.mu, pair.pi, dataclasses.replace(pair.context, on_rows=blocks.append))
    assert len(blocks) > 3
    assert not list(differences(pair.figures, again.figures))
    assert vars(again.counts) == vars(pair.counts)


def test_sketched_quantiles_stay_within_their_error(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the traces had more values than are kept."""
    for sketch in pair.statistics.sketches.values():
        assert sketch.exact
    monkeypatch.setattr(QuantileSketch.__init__, "__defaults__", (10, 11))
    again = measure_pair(pair.mu, pair.pi, pair.context)
    assert not again.statistics.sketches["log_ratio"].exact
    for name, exact in vars(pair.figures.token).items():
        found = getattr(again.figures.token, name)
        for level in ("p50", "p90", "p99"):
            wanted = getattr(exact, level, None)
            assert getattr(found, level, None) == (None if wanted is None else pytest.approx(wanted, rel=5e-4))
