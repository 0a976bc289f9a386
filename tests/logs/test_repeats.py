"""Copies of a file count once, as the original; a step that two files hold is said."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from log_reading import read_all
from log_writers import nemo_rl, prime_rl, skyrl, slime
from log_writers.samples import samples

from mismatchscope.logs.reading import open_logs
from mismatchscope.logs.repeats import natural_order


def test_names_sort_as_a_person_counts() -> None:
    paths = [Path(name) for name in ("9b", "10", "a", "s2/r9", "s2/r10", "s10/r1")]
    assert sorted(reversed(paths), key=natural_order) == paths


@pytest.mark.parametrize("name", ["a copy.jsonl", "backup/train_data_step1.jsonl", "a/train_data_step1 (2).jsonl"])
def test_a_copy_displaces_no_original(tmp_path: Path, name: str) -> None:
    for step in (1, 2):
        original = nemo_rl.write_step(tmp_path / "run", step, samples(2, seed=step))
    copy = tmp_path / name
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(original.read_bytes())
    os.utime(copy, (1, 1))
    log = open_logs([tmp_path])
    assert [path.parent.name for path in log.files] == ["run", "run"]
    assert log.remarks == (f"{copy} has the content of {original} and is not counted twice.",)


def test_of_two_likely_originals_the_older_is_it(tmp_path: Path) -> None:
    originals = [nemo_rl.write_step(tmp_path / run, 1, samples(2)) for run in ("a", "b")]
    os.utime(originals[1], (1, 1))
    assert open_logs([tmp_path]).files == (originals[1],)


@pytest.mark.parametrize(("copies", "more"), [(2, ""), (3, ""), (1500, ", and 1,497 more")])
def test_many_copies_are_one_line_with_their_count_and_the_first_names(
    tmp_path: Path, copies: int, more: str
) -> None:
    original = nemo_rl.write_step(tmp_path / "run", 1, samples(2))
    for number in range(copies):
        copy = tmp_path / f"copy_{number}.jsonl"
        copy.write_bytes(original.read_bytes())
        os.utime(copy, (number, number))
    log = open_logs([tmp_path])
    named = ", ".join(f"{tmp_path}/copy_{number}.jsonl that of {original}" for number in range(min(copies, 3)))
    assert log.files == (original,)
    assert log.remarks == (
        f"{copies:,} files have the content of others and are not counted twice: {named}{more}.",
    )


def test_a_copy_of_a_dump_leaves_the_run_whole(tmp_path: Path) -> None:
    """Else the rollout would be of another directory than what was trained on it."""
    for run, seed in (("b", 0), ("c", 1)):
        slime.write_rollout(tmp_path / run / "rollout_data/0.pt", 0, samples(4, seed=seed))
        slime.write_train(tmp_path / run / "train_data/0.pt", 0, samples(4, seed=seed))
        for step in (1, 2):
            slime.write_rollout(tmp_path / run / f"rollout_data/{step}.pt", step, samples(4, seed=9 * seed + step))
    (tmp_path / "a/rollout_data").mkdir(parents=True)
    (tmp_path / "a/rollout_data/0.pt").write_bytes((tmp_path / "b/rollout_data/0.pt").read_bytes())
    rows, rejected, _ = read_all(open_logs([tmp_path / run for run in "abc"]))
    assert not rejected
    assert Counter(rows.filter(rows["step"].to_numpy() == 0)["policy_version"].to_pylist()) == {0: 8}


def write_nemo(run: Path, step: int, seed: int) -> None:
    nemo_rl.write_step(run, step, samples(2, seed=seed))


def write_prime(run: Path, step: int, seed: int) -> None:
    prime_rl.write_rank(run, step, 0, samples(2, seed=seed))
    prime_rl.write_rank(run, step, 1, samples(2, seed=seed + 100))


def write_skyrl(run: Path, step: int, seed: int) -> None:
    skyrl.write_step(run, step, samples(2, seed=seed))


def write_slime(run: Path, step: int, seed: int) -> None:
    slime.write_train(run / f"train_data/{step}.pt", step, samples(2, seed=seed))


def write_old_slime(run: Path, step: int, seed: int) -> None:
    slime.write_old_train(run / "train_data", step, samples(2, seed=seed))


@pytest.mark.parametrize(
    ("write", "piece", "count"),
    [
        (write_nemo, "Step 3", 2),
        (write_prime, "Step 3 of rank 0", 4),
        (write_skyrl, "Step 3", 2),
        (write_slime, "What was trained on rollout 3", 2),
        (write_old_slime, "What was trained on rollout 3 by rank 0", 16),
    ],
)
def test_a_step_that_two_files_hold_is_said(
    tmp_path: Path, write: Callable[[Path, int, int], None], piece: str, count: int
) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path / "exp_001", step, step)
    assert open_logs([tmp_path]).remarks == ()
    for step in (3, 4, 5):
        write(tmp_path / "exp_002", step, 10 + step)
    [remark] = open_logs([tmp_path]).remarks
    assert remark.startswith(f"{piece} is in {tmp_path}/exp_001")
    assert "exp_002" in remark and f"of {count} such pieces" in remark
