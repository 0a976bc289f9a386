"""Rows that a loss mask leaves out: in no figure, in no alarm, counted; and masks that do not agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aligned_rows import align
from written_traces import pair_of, sampled_trace

import mismatchscope as ms
from mismatchscope.comparison.compare_traces import compare
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.floors import Repeats
from mismatchscope.comparison.pair import measure_pair
from mismatchscope.errors import EmptyComparisonError, NotComparableError, TraceError
from mismatchscope.measures.results import Interval
from mismatchscope.reports.document import Report
from mismatchscope.reports.summary import not_compared
from mismatchscope.traces import Trace

S, T = 8, 10
MU_ST = np.random.default_rng(0).uniform(-3, -0.2, (S, T))
PI_ST = MU_ST + np.linspace(-0.3, 0.2, S)[:, None] * np.linspace(0.5, 1, T)
MASK_ST = np.ones((S, T), dtype=bool)
MASK_ST[1, 3:6] = MASK_ST[4, :2] = MASK_ST[6] = False


def written(
    directory: Path, logp_ST: np.ndarray, mask_ST: np.ndarray | None = None, role: str = "behavior"
) -> Trace:
    return sampled_trace(directory, logp_ST, mask_ST=mask_ST, role=role)


def spoiled(logp_ST: np.ndarray, values: Sequence[float] = (np.nan, 0.0, -9999.0, 7.0, -np.inf)) -> np.ndarray:
    """The same log-probs, with what is no log-prob in the rows that do not count."""
    return np.where(MASK_ST, logp_ST, np.resize(values, logp_ST.shape))


def report(directory: Path, mu_ST: np.ndarray, pi_ST: np.ndarray, **masks: np.ndarray | None) -> Report:
    mu = written(directory / "mu", mu_ST, masks.get("mu"))
    return compare(mu, written(directory / "pi", pi_ST, masks.get("pi"), "reference"))


def means(found: Report) -> dict[str, Interval | None]:
    return {name: figure for block in (found.token, found.sequence) for name, figure in vars(block).items()}


@pytest.mark.parametrize("sides", [{"mu": MASK_ST}, {"pi": MASK_ST}, {"mu": MASK_ST, "pi": MASK_ST}])
def test_rows_that_do_not_count_are_nowhere(tmp_path: Path, sides: dict[str, np.ndarray]) -> None:
    """Whatever they hold: the figures are those of the same responses without them."""
    found = report(tmp_path / "masked", spoiled(MU_ST), spoiled(PI_ST), **sides)
    kept = [s for s in range(S) if s != 6]
    rest = compare(
        sampled_trace(tmp_path / "mu", [MU_ST[s][MASK_ST[s]] for s in kept], ids=kept),
        sampled_trace(tmp_path / "pi", [PI_ST[s][MASK_ST[s]] for s in kept], ids=kept, role="reference"),
    )
    assert (found.counts.masked, found.counts.rejected, found.counts.partial_sequences) == (15, 0, 0)
    assert (found.counts.tokens, found.counts.sequences, found.counts.matched_sequences) == (S * T - 15, 7, 8)
    assert not [alarm for alarm in found.alarms if alarm.code in ("rejected", "filler", "impossible_tokens")]
    for name, figure in means(found).items():
        assert figure == means(rest)[name], name
    assert found.corrections == rest.corrections
    assert not_compared(found) == "not compared: 15 rows masked"


def test_positions_keep_their_values(tmp_path: Path) -> None:
    """The largest gap is in the last row of a response whose first two do not count."""
    pi_ST = PI_ST.copy()
    pi_ST[4, T - 1] -= 2.0
    worst = report(tmp_path, MU_ST, pi_ST, mu=MASK_ST).worst
    assert all(MASK_ST[state.sequence_id, state.position] for state in worst)
    assert (4, T - 1) in {(state.sequence_id, state.position) for state in worst}


def test_a_rejected_row_is_still_one_beside_masked_ones(tmp_path: Path) -> None:
    pi_ST = PI_ST.copy()
    pi_ST[1, 7] = pi_ST[1, 4] = np.nan  # the second of them does not count
    found = report(tmp_path, MU_ST, pi_ST, mu=MASK_ST)
    assert (found.counts.masked, found.counts.rejected, found.counts.partial_sequences) == (15, 1, 1)
    assert any("position 7 of sequence 1" in alarm.message for alarm in found.alarms)


def test_rows_that_do_not_count_are_not_in_the_shift_test(tmp_path: Path) -> None:
    """A tool's rows whose log-probs are filed one place late are refused where they count."""
    rng = np.random.default_rng(1)
    mu_ST = rng.uniform(-6, -0.1, (S, 40))
    pi_ST = mu_ST + rng.normal(0, 0.001, mu_ST.shape)
    pi_ST[:, 10:] = np.roll(mu_ST, 1, axis=1)[:, 10:]
    mask_ST = np.broadcast_to(np.arange(40) < 10, mu_ST.shape)
    with pytest.raises(NotComparableError, match="shifted by one token"):
        report(tmp_path / "counted", mu_ST, pi_ST)
    assert report(tmp_path / "masked", mu_ST, pi_ST, mu=mask_ST).counts.tokens == S * 10


def test_masks_that_differ_are_refused(tmp_path: Path) -> None:
    """Across blocks too: the first row is named, all of them are counted."""
    other_ST = MASK_ST.copy()
    other_ST[3, 2] = False
    other_ST[6, :4] = True
    mu = written(tmp_path / "mu", MU_ST, MASK_ST)
    pi = written(tmp_path / "pi", PI_ST, other_ST, "reference")
    expected = (
        "The loss masks differ: position 2 of sequence 3 counts under the mask of the behaviour, not under that of "
        "the reference. Rows that differ: 5 of 80."
    )
    with pytest.raises(NotComparableError) as caught:
        align(mu, pi)
    assert str(caught.value).startswith(expected)
    assert caught.value.exit_code == 4


def test_a_mask_that_leaves_nothing_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(EmptyComparisonError, match="leave no token"):
        report(tmp_path, MU_ST, PI_ST, mu=np.zeros((S, T), dtype=bool))


@pytest.mark.parametrize("holder", ["mu", "pi"])
def test_the_mask_of_one_side_holds_for_repeats_and_targets(tmp_path: Path, holder: str) -> None:
    """α₀ lies between two traces that have no mask where μ has it."""
    mu = written(tmp_path / "mu", MU_ST, MASK_ST if holder == "mu" else None)
    pi = written(tmp_path / "pi", PI_ST, MASK_ST if holder == "pi" else None, "reference")
    odd_ST = np.where(MASK_ST, PI_ST, -20.0)
    odd = written(tmp_path / "odd", odd_ST, role="reference")
    target = written(tmp_path / "target", odd_ST, role="target")
    found = compare(mu, pi, target=target, repeats=Repeats(reference=odd))
    assert found.alpha0.observed_max == 0.0
    assert found.beta.mean.value == pytest.approx(found.alpha1.mean.value)
    assert found.floor.reference.identical


def test_the_mask_of_a_third_trace_is_read_along(tmp_path: Path) -> None:
    """It may have other sequences; what it does not know counts."""
    some = [0, 1, 4, 5]
    holder = sampled_trace(tmp_path / "holder", MU_ST[some], ids=some, mask_ST=MASK_ST[some])
    mu, pi = written(tmp_path / "mu", MU_ST), written(tmp_path / "pi", PI_ST, role="reference")
    pair = measure_pair(mu, pi, Context(mask=holder))
    assert (pair.counts.masked, pair.counts.tokens) == (5, S * T - 5)
    assert pair_of(mu, pi).counts.masked == 0


def test_a_mask_without_a_value_is_an_error(tmp_path: Path) -> None:
    mu = written(tmp_path / "mu", MU_ST, MASK_ST)
    table = pq.read_table(mu.path / "tokens.parquet")
    values = table["mask"].to_pylist()
    values[3] = None
    pq.write_table(table.set_column(table.num_columns - 1, "mask", pa.array(values)), mu.path / "tokens.parquet")
    with pytest.raises(TraceError, match="column mask is null in row"):
        align(Trace.open(mu.path, verify=False), written(tmp_path / "pi", PI_ST, role="reference"))


def test_a_mask_that_is_not_boolean_is_an_error(tmp_path: Path) -> None:
    mu = written(tmp_path / "mu", MU_ST, MASK_ST)
    table = pq.read_table(mu.path / "tokens.parquet")
    numbers = table["mask"].cast(pa.int8())
    pq.write_table(table.set_column(table.num_columns - 1, "mask", numbers), mu.path / "tokens.parquet")
    with pytest.raises(TraceError, match="column mask is int8 instead of bool"):
        Trace.open(mu.path, verify=False)


def test_write_trace_records_it(tmp_path: Path) -> None:
    """A trainer's batch with a tool's output in it, as the documentation shows it."""
    responses = np.broadcast_to(np.arange(T), (S, T))
    batch = {"prompts": [[s] for s in range(S)], "responses": responses}
    mu = ms.write_trace(tmp_path / "mu", role="behavior", logprobs=MU_ST, mask=MASK_ST, **batch)
    shorter = [responses[s, : len(row)] for s, row in enumerate(mu.sequences()["response_token_ids"])]
    pi = ms.write_trace(
        tmp_path / "pi",
        role="reference",
        prompts=batch["prompts"],
        responses=shorter,
        logprobs=[PI_ST[s, : len(row)] for s, row in enumerate(shorter)],
    )
    assert "mask" not in pi.tokens().columns
    counts = ms.compare(mu, pi).counts
    assert (counts.tokens, counts.masked, counts.rejected) == (
        int(MASK_ST.sum()),
        5,
        0,
    )  # sequence 6 is all padding
