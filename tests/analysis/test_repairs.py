"""Shapes: S rows, T tokens of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_rows import log_batch

from mismatchscope.analysis.analyze import analyze
from mismatchscope.analysis.distribution.repeated import repeated_ids
from mismatchscope.analysis.repairs import Repairs
from mismatchscope.analysis.rows import Rejected, blocks_of
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.analysis.statistics import LogStatistics
from mismatchscope.errors import UsageError
from mismatchscope.logs.source import LogBatch


def lists(batch: Any, name: str) -> list[Any]:
    return batch.rows.column(name).to_pylist()


def test_a_shift_moves_the_trainers_columns_and_masks_the_ends() -> None:
    batch = log_batch(
        behavior_logprobs=[[-1.0, -2.0, -3.0], [-4.0]],
        reference_logprobs=[[-0.5, -1.0, -2.0], [-4.0]],
        target_logprobs=[[-0.6, -1.1, -2.1], None],
    )
    moved = Repairs(shift=1).applied(batch)
    assert lists(moved, "mask") == [[True, True, False], [False]]
    assert lists(moved, "behavior_logprobs") == lists(batch, "behavior_logprobs")
    assert lists(moved, "reference_logprobs")[0][:2] == [-1.0, -2.0]
    assert np.isnan(lists(moved, "reference_logprobs")[0][2])
    assert lists(moved, "target_logprobs")[0][:2] == [-1.1, -2.1]
    assert lists(moved, "target_logprobs")[1] is None
    back = Repairs(shift=-1).applied(batch)
    assert lists(back, "reference_logprobs")[0][1:] == [-0.5, -1.0]
    assert lists(back, "mask") == [[False, True, True], [False]]


@pytest.mark.parametrize("shift", [1, -1, 2])
def test_a_shift_undoes_what_the_check_found(shift: int) -> None:
    rng = np.random.default_rng(abs(shift))
    behavior = [-rng.exponential(1.0, 60) - 0.01 for _ in range(30)]
    reference = [np.roll(logp_T + rng.normal(0, 0.01, 60), shift) for logp_T in behavior]
    batch = log_batch(behavior_logprobs=behavior, reference_logprobs=[np.minimum(r, 0) for r in reference])

    def found(repairs: Repairs) -> dict[str, Any]:
        statistics = LogStatistics(AnalysisSettings(repairs=repairs))
        statistics.add(batch)
        _, tells_C = statistics.distribution.sample.examined().shifts
        shift_C, _ = statistics.distribution.sample.examined().shifts
        return {"shift": set(shift_C.tolist()), "tells": bool(tells_C.all()), "tokens": statistics.pair.tokens}

    assert found(Repairs())["shift"] == {shift}
    assert found(Repairs(shift=shift)) == {"shift": {0}, "tells": True, "tokens": 30 * (60 - abs(shift))}


def test_the_masked_ends_are_no_rejected_tokens() -> None:
    batch = log_batch(behavior_logprobs=[[-1.0, -2.0]], reference_logprobs=[[-1.0, -2.0]])
    rejected = Rejected()
    (block,) = blocks_of(Repairs(shift=1).applied(batch), rejected)
    assert block.whole_S.all()
    assert not rejected.tokens
    assert rejected.masked == 1


def test_all_counts_what_both_policies_scored() -> None:
    batch = log_batch(
        mask=[[True, False, False, False, True]],
        behavior_logprobs=[[-1.0, 0.0, -2.0, float("nan"), 0.0]],
        reference_logprobs=[[-1.0, -3.0, -2.5, -1.0, -1.0]],
    )
    assert lists(Repairs(mask="all").applied(batch), "mask") == [[True, False, True, False, True]]


def test_scored_leaves_out_zeros_and_no_broken_value() -> None:
    batch = log_batch(
        mask=[[True, True, True, True, False], [True] * 5],
        behavior_logprobs=[[-1.0, 0.0, -2.0, float("nan"), -1.0], [-1.0, -1.0, 0.0, 0.0, 0.0]],
        reference_logprobs=[[-1.0, -3.0, 0.0, -1.0, -1.0], [-1.0, -1.0, 0.0, 0.0, 0.0]],
    )
    repaired = Repairs(mask="scored")
    masks = [[True, False, False, True, False], [True, True, False, False, False]]
    assert lists(repaired.applied(batch), "mask") == masks
    assert "go those that a policy is certain of" in repaired.sentences[0]


def test_a_column_is_a_mask_where_it_is_not_0() -> None:
    batch = log_batch(
        behavior_logprobs=[[-1.0, -2.0, -3.0], [-1.0]],
        reference_logprobs=[[-1.0, -2.0, -3.0], [-1.0]],
        weights=[[0.0, 1.5, None], None],
    )
    assert lists(Repairs(mask="weights").applied(batch), "mask") == [[False, True, False], [False]]
    with pytest.raises(UsageError, match="no column 'advantages'"):
        Repairs(mask="advantages").applied(batch)


def test_repeated_responses_are_dropped(tmp_path: Path) -> None:
    """Two files of two ranks; the second one holds a third of the first one's responses, and one of its own."""
    rng = np.random.default_rng(1)
    mu = [-rng.exponential(1.0, 60) - 0.01 for _ in range(31)]
    pi = [np.minimum(logp_T + rng.normal(0, 0.01, 60), 0) for logp_T in mu]
    for name, rows in (("a", range(30)), ("b", [*range(10), 30])):
        batch = log_batch(
            token_ids=[np.arange(60) + row for row in rows],
            prompt=[row // 3 for row in rows],
            behavior_logprobs=[mu[row] for row in rows],
            reference_logprobs=[pi[row] for row in rows],
        )
        pq.write_table(pa.Table.from_batches([batch.rows]), tmp_path / f"{name}.parquet")
    as_it_is, dropped = (
        analyze([tmp_path], AnalysisSettings(), processes=1, drop_duplicates=asked) for asked in (False, True)
    )
    (check,) = (check for check in as_it_is.distribution if check.code == "duplicates")
    assert (check.status, check.count, check.of) == ("fail", 10, 41)
    assert (as_it_is.counts.sequences, dropped.counts.sequences) == (41, 31)
    (check,) = (check for check in dropped.distribution if check.code == "duplicates")
    assert check.count == 0
    assert dropped.log is not None
    assert dropped.log.repairs[0].startswith("10 responses that came before")
    assert dropped.log.repairs[0].endswith("Those that could be drawn twice, short or certain ones, stay.")
    assert dropped.log.rejected == {}


def test_responses_without_ids_cannot_be_dropped() -> None:
    batch = log_batch(behavior_logprobs=[[-1.0]], reference_logprobs=[[-1.0]])
    with pytest.raises(UsageError, match="no ids"):
        repeated_ids([(0, LogBatch(batch.rows.drop_columns(["sequence_id"]), batch.part))])


def test_nothing_is_changed_unasked() -> None:
    batch = log_batch(behavior_logprobs=[[-1.0]], reference_logprobs=[[-1.0]])
    assert Repairs().applied(batch) is batch
    assert Repairs().sentences == ()
    assert "--shift 2" in Repairs(shift=2).sentences[0]
    assert "--mask all" in Repairs(mask="all").sentences[0]


def test_a_batch_without_a_column_is_left_to_its_rejection() -> None:
    batch = log_batch(behavior_logprobs=[[-1.0]])
    assert Repairs(shift=1, mask="all").applied(batch) is batch


@pytest.mark.parametrize(("asked", "message"), [({"shift": 40}, "no convention"), ({"mask": "x"}, "no mask")])
def test_what_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Repairs(**asked)
