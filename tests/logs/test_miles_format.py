"""miles' dumps: three policies where the loss was dumped, whole responses or none under context parallelism."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from log_reading import read_all
from log_writers import miles
from log_writers.samples import Sample, samples
from log_writers.slime import index_of

from mismatchscope.logs.dumps.rows import SLICED
from mismatchscope.logs.reading import open_logs


def check_tokens(row: dict[str, object], sample: Sample) -> None:
    own = sample.response
    assert row["token_ids"] == sample.tokens_T[own].tolist()
    assert row["prompt_token_ids"] == sample.tokens_T[: sample.prompt].tolist()
    assert row["behavior_logprobs"] == sample.mu_T[own].tolist()
    assert row["reference_logprobs"] == sample.pi_T[own].tolist()


def test_train_dumps_and_rollouts_are_joined(tmp_path: Path) -> None:
    written = samples(4)
    miles.write_rollout(tmp_path, 6, written)
    miles.write_train(tmp_path, 6, written)
    log = open_logs([tmp_path])
    assert log.format.name == "miles"
    rows, rejected, remarks = read_all(log)
    assert (rejected, remarks) == (Counter(), ())
    assert sorted(rows["sequence_id"].to_pylist()) == [index_of(6, place) for place in range(4)]
    for row in rows.to_pylist():
        check_tokens(row, written[row["sequence_id"] - index_of(6, 0)])
        assert row["step"] == 6


def test_three_policies_and_the_step_of_each_response(tmp_path: Path) -> None:
    """Calls are numbered through the run and micro-batches come in any order: bits of log-probs find the rows."""
    steps = {step: samples(8, seed=step) for step in (3, 4)}
    for step, written in steps.items():
        miles.write_rollout(tmp_path, step, written)
        miles.write_train(tmp_path, step, written)
        for rank in (0, 1):
            miles.write_losses(tmp_path, written[rank::2], rank=rank, first_call=2 * (step - 3), order=[2, 0, 3, 1])
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (rejected, remarks) == (Counter(), ())
    assert sorted(rows["step"].to_pylist()) == [3] * 8 + [4] * 8
    for row in rows.to_pylist():
        sample = steps[row["step"]][row["sequence_id"] - index_of(row["step"], 0)]
        check_tokens(row, sample)
        assert row["target_logprobs"] == miles.theta_of(sample).tolist()
        assert row["mask"] == sample.generated_T[sample.response].tolist()


def test_without_a_train_dump_the_three_policies_alone(tmp_path: Path) -> None:
    written = samples(3)
    miles.write_losses(tmp_path, written)
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert not rejected
    assert remarks == ("3 responses have no train dump beside them, so neither tokens nor a step.",)
    assert not {"token_ids", "step"} & set(rows.column_names)
    for row, sample in zip(rows.to_pylist(), written, strict=True):
        assert row["behavior_logprobs"] == sample.mu_T[sample.response].tolist()
        assert row["target_logprobs"] == miles.theta_of(sample).tolist()


def test_times_of_a_copy_say_nothing_of_its_losses(tmp_path: Path) -> None:
    """All files are of one time, or of the wrong one: the losses are found by their bits."""
    steps = {step: samples(4, seed=step) for step in range(3)}
    for step, written in steps.items():
        miles.write_train(tmp_path, step, written)
        for rank in (0, 1):
            miles.write_losses(tmp_path, written[rank::2], rank=rank, first_call=step)
    for time, file in enumerate(sorted(tmp_path.glob("policy_loss_debug/*"), reverse=True)):
        os.utime(file, (10**9 + time, 10**9 + time))
    for time, file in enumerate(sorted(tmp_path.glob("train_data/*"))):
        os.utime(file, (10**9 + time, 10**9 + time))
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (rejected, remarks) == (Counter(), ())
    for row in rows.to_pylist():
        sample = steps[row["step"]][row["sequence_id"] - index_of(row["step"], 0)]
        assert row["target_logprobs"] == miles.theta_of(sample).tolist()


def test_a_loss_that_is_missing_leaves_two_policies(tmp_path: Path) -> None:
    written = samples(4)
    miles.write_train(tmp_path, 0, written)
    miles.write_losses(tmp_path, written[0::2], rank=0)
    rows, _, remarks = read_all(open_logs([tmp_path]))
    assert [row is None for row in rows["target_logprobs"].to_pylist()].count(True) == 2
    assert remarks == ("2 responses are in no dump of the loss, which alone has π_θ.",)


def test_tensor_parallel_ranks_and_later_epochs_count_once(tmp_path: Path) -> None:
    written = samples(4)
    for call in (0, 2):  # two epochs of two micro-batches
        for rank in (0, 1):  # which compute the same
            miles.write_losses(tmp_path, written, rank=rank, first_call=call)
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (len(rows), rejected) == (4, Counter())
    assert remarks[1] == "4 responses have been read before: a later epoch of the update."


def test_of_several_epochs_the_first_is_the_updates_forward(tmp_path: Path) -> None:
    written = samples(4)
    miles.write_train(tmp_path, 0, written)
    for epoch in (0, 1):
        for rank in (0, 1):
            later = [replace(sample, pi_T=sample.pi_T - np.float32(epoch)) for sample in written[rank::2]]
            miles.write_losses(tmp_path, later, rank=rank, first_call=epoch)
    rows, _, _ = read_all(open_logs([tmp_path]))
    for row in rows.to_pylist():
        assert row["target_logprobs"] == miles.theta_of(written[row["sequence_id"]]).tolist()


def test_slices_of_a_loss_are_refused(tmp_path: Path) -> None:
    miles.write_losses(tmp_path, samples(3), sliced=True)
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert (len(rows), rejected) == (0, Counter({SLICED: 3}))


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("padded", [None, 96])
def test_slices_of_a_train_dump_are_put_together_where_the_rollout_shows_their_order(
    tmp_path: Path, ranks: int, padded: int | None
) -> None:
    written = samples(6, longest=60)
    miles.write_rollout(tmp_path, 0, written)
    miles.write_train(tmp_path, 0, written, context_parallel=ranks, padded=padded)
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert (len(rows), rejected) == (6, Counter())
    for row in rows.to_pylist():
        check_tokens(row, written[row["sequence_id"]])


@pytest.mark.parametrize("why", ["no rollout", "no ranks", "swapped", "a rank missing"])
def test_slices_whose_order_cannot_be_shown_are_refused(tmp_path: Path, why: str) -> None:
    written = samples(6, longest=60)
    if why != "no rollout":
        miles.write_rollout(tmp_path, 0, written)
    miles.write_train(
        tmp_path, 0, written, context_parallel=2, record_ranks=why != "no ranks", swapped=why == "swapped"
    )
    if why == "a rank missing":
        for rank in (1, 3):
            (tmp_path / f"train_data/0_{rank}.pt").unlink()
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert (len(rows), rejected) == (0, Counter({SLICED: 6}))


def test_other_files_beside_the_rollouts_hide_no_run_of_miles(tmp_path: Path) -> None:
    written = samples(4)
    miles.write_rollout(tmp_path, 0, written, parquet=False)
    miles.write_train(tmp_path, 0, written, record_ranks=False)
    (tmp_path / "dashboard_columns").rmdir()
    for number in range(100):
        (tmp_path / f"rollout_data/{number}.txt").touch()
    assert open_logs([tmp_path]).format.name == "miles"


@pytest.mark.parametrize(
    "changes", [{"cp_rank": [0]}, {"cp_size": {}}, {"rollout_data": {"rewards": torch.tensor(1)}}]
)
def test_values_that_are_none_of_a_rank_end_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    written = samples(4)
    miles.write_rollout(tmp_path, 0, written)
    miles.write_train(tmp_path, 0, written, context_parallel=2)
    file = tmp_path / "train_data/0_0.pt"
    document = torch.load(file, weights_only=True)
    columns = document["rollout_data"] | changes.get("rollout_data", {})
    torch.save(document | changes | {"rollout_data": columns}, file)
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert len(rows) + rejected.total() == 4


def test_the_dashboard_alone_has_the_samplers_side(tmp_path: Path) -> None:
    written = samples(12, turns=2)
    miles.write_rollout(tmp_path, 5, written)
    rows, rejected, _ = read_all(open_logs([tmp_path / "dashboard_columns"]))
    assert not rejected
    assert rows["step"].to_pylist() == [5] * 12
    assert "reference_logprobs" not in rows.column_names
    for row, sample in zip(rows.to_pylist(), written, strict=True):
        assert row["token_ids"] == sample.tokens_T[sample.response].tolist()
        np.testing.assert_array_equal(row["behavior_logprobs"], sample.mu_T[sample.response])
        assert row["mask"] == sample.generated_T[sample.response].tolist()


def test_train_dumps_of_the_first_versions_are_told_by_their_run(tmp_path: Path) -> None:
    """They are slime's to the letter; the rollouts beside them are not."""
    written = samples(4)
    miles.write_rollout(tmp_path, 0, written, parquet=False)
    (tmp_path / "dashboard_columns").rmdir()
    miles.write_train(tmp_path, 0, written, record_ranks=False)
    for file in (tmp_path / "train_data").iterdir():
        file.write_bytes(file.read_bytes().replace(b"qkv_format", b"qkv_layout"))
    log = open_logs([tmp_path])
    assert (log.format.name, len(log.files)) == ("miles", 3)
