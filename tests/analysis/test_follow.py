"""Following a log: whatever is looked at when, and however often it is begun again, the figures are those of one
reading of all of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_writers import miles, nemo_rl, prime_rl, slime
from log_writers.samples import samples

from mismatchscope.analysis.analyze import analyze
from mismatchscope.analysis.follow import SETTLED_S, Follower
from mismatchscope.analysis.mapping import in_this_process
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.collection.run_files import CHECKPOINT
from mismatchscope.errors import UsageError
from mismatchscope.reports.document import Report

pytestmark = pytest.mark.slow

SETTINGS = AnalysisSettings()


def follower(run: Path, **others: Any) -> Follower:
    own = {"settings": SETTINGS, "mapper": in_this_process, "checkpoint_file": run.parent / CHECKPOINT}
    return Follower([run], **(own | others))


def figures(report: Report | None) -> dict[str, Any]:
    assert report is not None
    return report.model_dump(exclude={"provenance", "log", "worst"})


def same(report: Report | None, run: Path) -> bool:
    """Sums may be added in another order."""
    ours, theirs = figures(report), figures(analyze([run], SETTINGS, processes=1))
    return _equal(ours, theirs)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, float):
        return bool(np.isclose(left, right, rtol=1e-9, atol=1e-15, equal_nan=True))
    return bool(left == right)


def test_lines_are_read_as_they_come(tmp_path: Path) -> None:
    run = tmp_path / "run"
    following = follower(run)
    run.mkdir()
    assert following.look() == 0
    assert following.report() is None
    data = nemo_rl.write_step(run, 1, samples(8)).read_bytes()
    path = run / "train_data_step1.jsonl"
    lines = data.splitlines(keepends=True)
    cuts = [b"".join(lines[:2]) + lines[2][:40], b"".join(lines[:5]), b"".join(lines[:5]) + b"{", data]
    read = []
    for cut in cuts:
        path.write_bytes(cut)
        read.append(following.look())
    assert [tokens > 0 for tokens in read] == [True, True, False, True]
    nemo_rl.write_step(run, 2, samples(4, seed=2))
    assert following.look() > 0
    assert following.look() == 0
    assert same(following.report(), run)


def test_a_step_is_read_when_its_trainer_says_that_it_is_done(tmp_path: Path) -> None:
    run = tmp_path / "run"
    following = follower(run)
    for rank in range(2):
        prime_rl.write_rank(run, 1, rank, samples(4, seed=rank), stable=False)
        assert following.look() == 0
    (run / "token_exports" / "step_1" / "STABLE").touch()
    assert following.look() > 0
    assert same(following.report(), run)


def write_parquet(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logp = [(-rng.exponential(size=5)).tolist() for _ in range(4)]
    moved = [[min(0.0, value + 0.01) for value in row] for row in logp]
    pq.write_table(pa.table({"behavior_logprobs": logp, "reference_logprobs": moved, "prompt": [1, 1, 2, 2]}), path)


def test_other_files_are_read_when_they_have_settled(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    times = [0.0]
    following = follower(run, now=lambda: times[0])
    path = run / "a.parquet"
    write_parquet(path, 1)
    path.write_bytes(path.read_bytes()[:-30])
    assert following.look() == 0  # it has no end yet
    write_parquet(path, 1)
    times[0] = path.stat().st_mtime + SETTLED_S / 2
    assert following.look() == 0
    times[0] = path.stat().st_mtime + 2 * SETTLED_S
    assert following.look() == 20
    assert following.look() == 0
    assert same(following.report(), run)


def test_a_step_of_several_dumps_is_read_when_the_last_is_there(tmp_path: Path) -> None:
    """The rollout's dump comes long before the trainer's."""
    run = tmp_path / "run"
    following = follower(run, now=lambda: 1e12)
    for step in (0, 1):
        written = samples(4, seed=step)
        slime.write_rollout(run / f"rollout_data/{step}.pt", step, written)
        assert following.look() == 0
        slime.write_train(run / f"train_data/{step}.pt", step, written)
        assert following.look() > 0
    assert same(following.report(), run)


@pytest.mark.parametrize("trainer", ["slime", "miles"])
def test_a_step_of_several_ranks_is_read_when_all_are_there(tmp_path: Path, trainer: str) -> None:
    """Which the first dump of the next step says; the last step is read when nothing more comes."""
    run, ready = tmp_path / "run", tmp_path / "ready"
    following = follower(run, now=lambda: 1e12)
    read = []
    for step in (0, 1):
        written = samples(4, seed=step)
        if trainer == "slime":
            slime.write_rollout(run / f"rollout_data/{step}.pt", step, written)
            ranks = slime.write_old_train(ready, step, written)
        else:
            miles.write_rollout(run, step, written)
            assert following.look() == 0
            miles.write_losses(run, written[0::2], rank=0, first_call=step)
            miles.write_losses(run, written[1::2], rank=1, first_call=step)
            miles.write_train(ready, step, written)
            ranks = sorted((ready / "train_data").iterdir())
        (run / "train_data").mkdir(exist_ok=True)
        for rank in ranks:
            rank.rename(run / "train_data" / rank.name)
            read.append(following.look() > 0)
    assert read == [False] * len(ranks) + [True] + [False] * (len(ranks) - 1)
    assert following.look(last=True) > 0
    assert following.look(last=True) == 0
    assert same(following.report(), run)


def test_a_rank_that_comes_after_its_step_was_read_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    following = follower(run, now=lambda: 1e12)
    ranks = slime.write_old_train(run / "train_data", 0, samples(4))
    late = tmp_path / "late.pt"
    ranks[-1].rename(late)
    assert following.look(last=True) > 0
    late.rename(ranks[-1])
    assert following.look(last=True) == 0
    report = following.report()
    assert report is not None and "0_7.pt came after the rest of its step had been read" in str(report.log)


def test_a_restart_goes_on_without_reading_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    nemo_rl.write_step(run, 1, samples(8))
    first = follower(run)
    first.look()
    first.save()
    os.chmod(run / "train_data_step1.jsonl", 0o600)
    nemo_rl.write_step(run, 2, samples(8, seed=2))
    second = follower(run)
    assert second.resume() is None
    tokens = second.look()
    assert tokens == second.progress.statistics.pair.tokens - first.progress.statistics.pair.tokens > 0
    assert same(second.report(), run)


def test_what_was_not_saved_is_read_again(tmp_path: Path) -> None:
    """A kill between two checkpoints: figures and what was read are of one moment."""
    run = tmp_path / "run"
    nemo_rl.write_step(run, 1, samples(8))
    first = follower(run)
    first.look()
    first.save()
    nemo_rl.write_step(run, 2, samples(8, seed=2))
    first.look()
    second = follower(run)
    assert second.resume() is None
    second.look()
    assert same(second.report(), run)


def test_a_file_that_is_written_anew_is_named_and_counted_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = nemo_rl.write_step(run, 1, samples(8))
    following = follower(run)
    tokens = following.look()
    nemo_rl.write_step(run, 1, samples(9, seed=5))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
    assert following.look() == 0
    report = following.report()
    assert report is not None and report.counts.tokens == tokens
    assert "was written anew" in str(report.log)


def test_a_broken_file_does_not_end_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name, seed in (("a", 1), ("b", 2)):
        run.mkdir(exist_ok=True)
        write_parquet(run / f"{name}.parquet", seed)
    whole = (run / "b.parquet").read_bytes()
    (run / "b.parquet").write_bytes(whole[:40] + b"\xff" * 200 + whole[240:])
    following = follower(run, now=lambda: 1e12)
    assert following.look() == 20
    report = following.report()
    assert report is not None
    assert "b.parquet" in str(report.log)
    (run / "b.parquet").write_bytes(whole)
    assert following.look() == 20


def test_a_place_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none cannot be read"):
        follower(tmp_path / "none").look()
