"""Which dumps, samples and losses of slime and miles belong together, and that nothing is taken for another's."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from log_reading import read_all
from log_writers import miles, slime
from log_writers.samples import Sample, samples

from mismatchscope.errors import UsageError
from mismatchscope.logs.reading import open_logs
from mismatchscope.measures.prompt_hash import label_of

SHARED = "share the number of another one of their rollout, and are numbered by their place in it"


def write_run(run: Path, seed: int, steps: int = 2) -> list[Sample]:
    written = []
    for step in range(steps):
        made = samples(4, seed=100 * seed + step)
        slime.write_rollout(run / f"rollout_data/{step}.pt", step, made)
        slime.write_train(run / f"train_data/{step}.pt", step, made)
        written += made
    return written


def responses(
    rows: pa.Table | list[dict[str, Any]],
) -> list[tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]]:
    names = ("token_ids", "behavior_logprobs", "reference_logprobs")
    listed = rows if isinstance(rows, list) else rows.to_pylist()
    return sorted(tuple(tuple(row[name]) for name in names) for row in listed)  # type: ignore[misc]


def expected(written: list[Sample]) -> list[tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]]:
    return sorted(
        tuple(tuple(values[sample.response].tolist()) for values in (sample.tokens_T, sample.mu_T, sample.pi_T))  # type: ignore[misc]
        for sample in written
    )


def write_slime(run: Path, written: list[Sample]) -> None:
    slime.write_rollout(run / "rollout_data/0.pt", 0, written, index=7)
    slime.write_train(run / "train_data/0.pt", 0, written, sample_index=7)


def write_old_slime(run: Path, written: list[Sample]) -> None:
    slime.write_rollout(run / "rollout_data/0.pt", 0, written, index=7)
    slime.write_old_train(run / "train_data", 0, written, sample_indices=[7] * 3)


def write_miles(run: Path, written: list[Sample]) -> None:
    miles.write_rollout(run, 0, written, index=7)
    miles.write_train(run, 0, written, sample_indices=[7] * 3)


def write_sliced_miles(run: Path, written: list[Sample]) -> None:
    miles.write_rollout(run, 0, written, index=7)
    miles.write_train(run, 0, written, sample_indices=[7] * 3, context_parallel=2)


@pytest.mark.parametrize(
    ("write", "with_rollout"),
    [
        *((write, True) for write in (write_slime, write_old_slime, write_miles, write_sliced_miles)),
        *((write, False) for write in (write_slime, write_old_slime, write_miles)),
    ],
)
def test_samples_that_share_a_number_are_all_read(
    tmp_path: Path, write: Callable[[Path, list[Sample]], None], with_rollout: bool
) -> None:
    """An agent's run is cut into several samples, which keep the number of the prompt."""
    written = samples(6, longest=60)
    write(tmp_path, written)
    if not with_rollout:
        shutil.rmtree(tmp_path / "rollout_data")
        shutil.rmtree(tmp_path / "dashboard_columns", ignore_errors=True)
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (rejected, remarks) == (Counter(), (f"6 responses {SHARED}.",))
    assert responses(rows) == expected(written)
    assert sorted(rows["sequence_id"].to_pylist()) == list(range(6))


def test_samples_that_share_number_and_tokens_keep_their_own_log_probs(tmp_path: Path) -> None:
    first, *others = samples(3)
    written = [*others, *(replace(first, mu_T=first.mu_T - np.float32(move)) for move in (0, 0.25, 0.5, 0.75))]
    slime.write_rollout(tmp_path / "rollout_data/0.pt", 0, written[::-1], index=7)
    slime.write_old_train(tmp_path / "train_data", 0, written, sample_indices=[7] * 3)
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert not rejected
    assert responses(rows) == expected(written)


@pytest.mark.parametrize("of_rollout", [{"index": None}, {}])
def test_samples_without_a_number_are_joined_by_their_tokens(tmp_path: Path, of_rollout: dict[str, None]) -> None:
    written = samples(6)
    slime.write_rollout(tmp_path / "rollout_data/0.pt", 0, written[::-1], **of_rollout)
    slime.write_old_train(tmp_path / "train_data", 0, written, sample_indices=[None] * 3)
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (rejected, remarks) == (Counter(), ())
    assert responses(rows) == expected(written)
    assert rows["policy_version"].to_pylist() == [0] * 6


def test_what_was_sampled_for_one_prompt_is_one_cluster(tmp_path: Path) -> None:
    """The second turn of an agent has the first in its prompt; the group says that both are of one task."""
    written = samples(8)
    of_group = {"group_index": lambda sample: int(sample is written[7])}
    slime.write_rollout(tmp_path / "rollout_data/0.pt", 0, written, **of_group)
    slime.write_train(tmp_path / "train_data/0.pt", 0, written)
    rows, _, _ = read_all(open_logs([tmp_path]))
    first, last = (int(label_of([sample.tokens_T[: sample.prompt]])[0]) for sample in (written[0], written[7]))
    assert rows["prompt"].to_pylist() == [first] * 7 + [last]


def move_flat(run: Path, to: Path) -> None:
    """`--save-debug-train-data DIR/RUN_train_{rollout_id}.pt`."""
    for kind in ("rollout", "train"):
        for path in (run / f"{kind}_data").iterdir():
            path.rename(to / f"{run.name}_{kind}_{path.name}")


def move_to_one_directory_each(run: Path, to: Path) -> None:
    (to / "flat" / run.name).mkdir(parents=True)
    for kind in ("rollout", "train"):
        for path in (run / f"{kind}_data").iterdir():
            path.rename(to / "flat" / run.name / f"{kind}_{path.name}")


def keep(run: Path, to: Path) -> None:
    pass


def keep_the_trainers(run: Path, to: Path) -> None:
    shutil.rmtree(run / "rollout_data")


@pytest.mark.parametrize("moved", [keep, keep_the_trainers, move_flat, move_to_one_directory_each])
def test_runs_beside_each_other_are_each_read_whole(tmp_path: Path, moved: Callable[[Path, Path], None]) -> None:
    written = []
    for seed, name in enumerate(("a", "b", "ab")):
        written += write_run(tmp_path / name, seed)
        moved(tmp_path / name, tmp_path)
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (rejected, remarks) == (Counter(), ())
    assert responses(rows) == expected(written)


def test_a_run_without_rollouts_takes_none_of_another_run(tmp_path: Path) -> None:
    """`run1` has lost its rollouts, `run12` what was trained on them; the paths begin alike."""
    written = write_run(tmp_path / "run", 0) + write_run(tmp_path / "run1", 1)
    write_run(tmp_path / "run12", 2)
    shutil.rmtree(tmp_path / "run1/rollout_data")
    shutil.rmtree(tmp_path / "run12/train_data")
    log = open_logs([tmp_path])
    batches = [batch for part in log.parts() for batch in log.read(part)]
    assert not sum(batch.rejected.total() for batch in batches)
    assert responses([row for batch in batches for row in batch.rows.to_pylist()]) == expected(written)
    remarks = {remark for batch in batches for remark in batch.remarks}
    assert remarks == {"Rollouts without a dump of what was trained on them are left out."}


def test_ranks_of_two_runs_are_told_apart_by_their_directories(tmp_path: Path) -> None:
    written = []
    for seed, name in enumerate("ab"):
        made = samples(4, seed=seed)
        slime.write_old_train(tmp_path / name, 0, made)
        written += made
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert not rejected
    assert responses(rows) == expected(written)


def test_names_that_do_not_say_which_run_a_file_is_of_are_refused(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        made = samples(4, seed=seed)
        slime.write_rollout(tmp_path / f"rollout_{name}.pt", 0, made)
        slime.write_train(tmp_path / f"train_{name}.pt", 0, made)
    with pytest.raises(UsageError, match=r"which files are of one .*(train|rollout)_a\.pt") as caught:
        open_logs([tmp_path]).parts()
    assert "a directory of its own" in str(caught.value.hint)


def test_ranks_that_are_there_twice_in_one_directory_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        for path in slime.write_old_train(tmp_path / name, 0, samples(4, seed=ord(name))):
            path.rename(tmp_path / f"{name}_{path.name}")
    with pytest.raises(UsageError, match=r"a_0_0\.pt, .*b_0_0\.pt"):
        open_logs([tmp_path]).parts()


def test_an_empty_response_with_routing_is_no_row_and_ends_nothing(tmp_path: Path) -> None:
    names = ("tokens_T", "generated_T", "mu_T", "pi_T")
    whole, short = samples(2)
    empty = replace(short, **{name: getattr(short, name)[: short.prompt] for name in names})
    slime.write_rollout(tmp_path / "rollout_data/0.pt", 0, [whole, empty], rollout_routed_experts=slime.experts)
    slime.write_train(tmp_path / "train_data/0.pt", 0, [whole, empty])
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert (len(rows), rejected) == (1, Counter({"no response token": 1}))


def test_a_loss_without_a_move_is_no_twin_of_others(tmp_path: Path) -> None:
    """The trainer gave the first response the sampler's very log-probs, so its loss might have taken those."""
    written = alike(0)
    written[0].pi_T[:] = written[0].mu_T
    write_miles_run(tmp_path, {0: written})
    rows, _, remarks = read_all(open_logs([tmp_path]))
    assert remarks == ()
    for row in rows.to_pylist():
        assert row["target_logprobs"] == miles.theta_of(written[row["sequence_id"]]).tolist()


def test_times_in_another_order_than_the_calls_say_nothing(tmp_path: Path) -> None:
    """Of a copy whose first epoch is the newer, the first epoch is still what the update's forward was."""
    written = samples(4)
    miles.write_train(tmp_path, 0, written)
    for epoch in (0, 1):
        for rank in (0, 1):
            moved = [replace(sample, pi_T=sample.pi_T - np.float32(epoch)) for sample in written[rank::2]]
            own = {id(new): old.pi_T[old.response] for new, old in zip(moved, written[rank::2], strict=True)}
            miles.write_losses(
                tmp_path, moved, rank=rank, first_call=epoch, old=lambda sample, own=own: own[id(sample)]
            )
            file = tmp_path / f"policy_loss_debug/rank_{rank}_call_{epoch}.pt"
            os.utime(file, (2**40, 2**40) if epoch == 0 else (1, 1))
    rows, _, remarks = read_all(open_logs([tmp_path]))
    assert remarks == ()
    for row in rows.to_pylist():
        assert row["target_logprobs"] == miles.theta_of(written[row["sequence_id"]]).tolist()


def alike(step: int, count: int = 4) -> list[Sample]:
    """Responses of one token each, which the sampler was equally sure of; the trainer was not."""
    made = []
    for number, sample in enumerate(samples(count, seed=step)):
        length = sample.prompt + 1
        mu_T, pi_T = np.zeros(length, np.float32), np.zeros(length, np.float32)
        mu_T[-1], pi_T[-1] = -0.125, -0.25 - 0.01 * (4 * step + number)
        made.append(
            replace(
                sample,
                tokens_T=sample.tokens_T[:length],
                generated_T=sample.generated_T[:length],
                mu_T=mu_T,
                pi_T=pi_T,
                advantage=0.5,
            )
        )
    return made


def write_miles_run(run: Path, steps: dict[int, list[Sample]], **of_losses: Any) -> None:
    for step, written in steps.items():
        miles.write_rollout(run, step, written)
        miles.write_train(run, step, written)
        for rank in (0, 1):
            miles.write_losses(run, written[rank::2], rank=rank, first_call=step, **of_losses)


def test_responses_that_the_sampler_scored_alike_keep_their_own_target(tmp_path: Path) -> None:
    steps = {step: alike(step) for step in (0, 1)}
    write_miles_run(tmp_path, steps)
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (rejected, remarks) == (Counter(), ())
    for row in rows.to_pylist():
        sample = steps[row["step"]][row["sequence_id"] - slime.index_of(row["step"], 0)]
        assert row["target_logprobs"] == miles.theta_of(sample).tolist()


def test_a_target_that_may_be_another_responses_is_left_out(tmp_path: Path) -> None:
    """With --use-rollout-logprobs the old policy's log-probs are the sampler's, so nothing tells these apart."""
    arrays = {"tokens_T": np.arange(3), "generated_T": np.arange(3) == 2}
    short = [replace(s, prompt=2, mu_T=s.mu_T[-3:], pi_T=s.pi_T[-3:], **arrays) for s in alike(0)]
    steps = {0: [*samples(4, seed=9), *short]}
    write_miles_run(tmp_path, steps, old=lambda sample: sample.mu_T[sample.response])
    rows, _, remarks = read_all(open_logs([tmp_path]))
    assert remarks == ("4 responses are like others in the dumps of the loss, so that π_θ of each is not known.",)
    for row in rows.to_pylist():
        sample = steps[0][row["sequence_id"]]
        is_other = row["sequence_id"] < 4
        assert row["target_logprobs"] == (miles.theta_of(sample).tolist() if is_other else None)
