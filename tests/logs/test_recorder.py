"""The recorder: what is logged is what is read, and nothing of ours stops a run."""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch

import mismatchscope as ms
from mismatchscope.logs.columns import BY_TOKEN, COLUMNS, column_type
from mismatchscope.logs.recorder_metrics import PREFIX
from mismatchscope.measures.prompt_hash import label_of

B, T = 3, 4
MASK = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
LENGTH = [3, 4, 0]


def batch(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    mu = rng.uniform(-3, -0.1, (B, T))
    return {
        "token_ids": rng.integers(0, 1000, (B, T)),
        "mask": MASK,
        "behavior_logprobs": mu,
        "reference_logprobs": mu + rng.normal(0, 0.01, (B, T)),
    } | changes


def rows(directory: Path) -> list[dict[str, Any]]:
    return ds.dataset(directory, format="parquet").to_table().to_pylist()


def recorded(directory: Path, **changes: Any) -> list[dict[str, Any]]:
    with ms.Recorder(directory, strict=True, rank=0) as recorder:
        recorder.log(**batch(**changes))
    return rows(directory)


def test_every_column_comes_back(tmp_path: Path) -> None:
    given = {
        "step": 7,
        "target_logprobs": np.full((B, T), -0.5, np.float32),
        "versions": np.array([[4, 4, 4, -1], [4, 5, 5, 5], [-1] * 4]),
        "trainer_version": 6,
        "worker": ["a", None, "b"],
        "environment": "math",
        "rewards": [1.0, None, np.nan],
        "truncated": [False, True, False],
        "advantages": [0.5, -0.5, 0.0],
        "entropy": torch.full((B, T), 0.25, dtype=torch.bfloat16),
        "weights": np.full((B, T), 2.0),
        "turns": np.zeros((B, T), dtype=int),
        "prompt_token_ids": np.array([[0, 5, 6], [0, 5, 6], [1, 2, 3]]),
        "prompt_mask": np.array([[0, 1, 1], [0, 1, 1], [1, 1, 1]]),
        "kept_set": np.where(np.arange(3) < 2, np.ones((B, T, 3), dtype=int), -1),
        "kept_logmass": np.full((B, T), -0.125),
        "experts": np.arange(B * T * 4).reshape(B, T, 2, 2) % 8,
    }
    found = recorded(tmp_path, **given)
    assert set(found[0]) == set(COLUMNS)
    for name in set(BY_TOKEN) | {"kept_ids", "experts"}:
        assert [len(row[name]) for row in found] == LENGTH, name
    original = batch()
    assert found[0]["mask"] == [True, False, True]
    assert found[1]["token_ids"] == original["token_ids"][1].tolist()
    assert found[1]["behavior_logprobs"] == original["behavior_logprobs"][1].tolist()  # float64 stays
    assert found[1]["entropy"] == [0.25] * 4 and found[1]["advantages"] == [-0.5] * 4
    assert [row["policy_version"] for row in found] == [4, None, None]
    assert found[1]["versions"] == [4, 5, 5, 5]
    assert [row["reward"] for row in found] == [1.0, None, None]
    assert [row["worker"] for row in found] == ["a", None, "b"]
    assert [row["sequence_id"] for row in found] == [0, 1, 2]
    assert {(row["step"], row["rank"], row["environment"], row["trainer_version"]) for row in found} == {
        (7, 0, "math", 6)
    }
    assert found[1]["prompt_token_ids"] == [5, 6]
    assert [row["prompt"] for row in found] == label_of([[5, 6], [5, 6], [1, 2, 3]]).tolist()
    assert found[0]["kept_ids"] == [[1, 1]] * 3
    assert found[0]["experts"][1] == [4, 5, 6, 7]


def test_the_files_have_the_types_of_the_form(tmp_path: Path) -> None:
    recorded(tmp_path, behavior_logprobs=torch.full((B, T), -1.0, dtype=torch.bfloat16), step=1, worker="w")
    schema = ds.dataset(tmp_path, format="parquet").schema
    for name in schema.names:
        double = name in BY_TOKEN and schema.field(name).type == pa.list_(pa.float64())
        assert schema.field(name).type == column_type(name, double=double)
    assert schema.field("behavior_logprobs").type == pa.list_(pa.float32())
    assert schema.field("reference_logprobs").type == pa.list_(pa.float64())


def test_torch_numpy_and_lists_padded_packed_and_ragged_are_the_same_rows(tmp_path: Path) -> None:
    arrays = batch()
    lengths = np.array(LENGTH)
    kept = np.arange(T) < lengths[:, None]
    forms = [
        arrays,
        {name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()},
        {name: value.tolist() for name, value in arrays.items()},
        {name: value[kept] for name, value in arrays.items()} | {"cu_seqlens": [0, 3, 7, 7]},
        {name: value[kept].tolist() for name, value in arrays.items()} | {"lengths": lengths},
        {
            name: [torch.from_numpy(row[:n]) for row, n in zip(value, lengths, strict=True)]
            for name, value in arrays.items()
        },
    ]
    found, metrics = [], []
    for number, form in enumerate(forms):
        with ms.Recorder(tmp_path / str(number), strict=True) as recorder:
            metrics.append(recorder.log(**form))
        found.append(rows(tmp_path / str(number)))
    assert all(each == found[0] for each in found) and len(found[0]) == B
    assert all(each == metrics[0] for each in metrics) and metrics[0][f"{PREFIX}tokens"] == 6


def test_what_was_logged_stays_when_the_trainer_changes_its_arrays(tmp_path: Path) -> None:
    logp = torch.full((B, T), -1.0)
    recorder = ms.Recorder(tmp_path, strict=True)
    recorder.log(token_ids=np.ones((B, T), np.int32), behavior_logprobs=logp, reference_logprobs=logp)
    logp.zero_()
    recorder.close()
    assert {value for row in rows(tmp_path) for value in row["behavior_logprobs"]} == {-1.0}


def test_prompts_are_told_apart_without_their_tokens(tmp_path: Path) -> None:
    prompts = np.array([[5, 6], [5, 6], [5, 7]])
    with ms.Recorder(tmp_path / "a", strict=True, keep_prompts=False) as recorder:
        recorder.log(**batch(prompt_token_ids=prompts))
    found = rows(tmp_path / "a")
    assert "prompt_token_ids" not in found[0]
    assert found[0]["prompt"] == found[1]["prompt"] != found[2]["prompt"]
    texts = recorded(tmp_path / "b", prompts=["x", "x", "y"])
    assert texts[0]["prompt"] == texts[1]["prompt"] != texts[2]["prompt"]


def test_a_wrong_batch_is_warned_of_once_counted_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mismatchscope"), ms.Recorder(tmp_path) as recorder:
        for _ in range(3):
            assert recorder.log(**batch(reference_logprobs=np.zeros((B, T + 1)))) == {}
        assert recorder.log(**batch())[f"{PREFIX}tokens"] == 6
    assert recorder.errors == 3 and recorder.rows == B == len(rows(tmp_path))
    assert len(caplog.records) == 1
    assert "reference_logprobs has 15 values for 12" in caplog.text and "Training goes on" in caplog.text
    with (
        pytest.raises(ms.errors.UsageError, match="reference_logprobs"),
        ms.Recorder(tmp_path, strict=True) as strict,
    ):
        strict.log(**batch(reference_logprobs=np.zeros((B, T + 1))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"token_ids": "text"},
        {"token_ids": None},
        {"token_ids": np.full((B, T), 2**40)},
        {"behavior_logprobs": object()},
        {"mask": np.full((B, T), 2)},
        {"worker": ["a"]},
        {"rewards": ["a", "b", "c"]},
        {"experts": [[[1]]]},
        {"kept_set": np.zeros(5)},
        {"versions": np.full((B, T), 0.5)},
        {"prompt_token_ids": [[1]]},
        {"prompt_token_ids": [[1]] * B, "prompt_mask": [[1, 1]] * B},
        {"step": "soon"},
    ],
)
def test_nothing_that_is_given_raises(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with ms.Recorder(tmp_path) as recorder:
        assert recorder.log(**batch(**wrong)) == {}
        recorder.log(**batch())
    assert recorder.errors == 1 and len(rows(tmp_path)) == B


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = ms.Recorder(tmp_path, flush_seconds=0)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mismatchscope.logs.shards.write_atomic", full)
        recorder.log(**batch(step=0))
        recorder.log(**batch(step=1))
        assert recorder.errors == 2 and not rows(tmp_path)
    recorder.log(**batch(step=2))
    assert [row["step"] for row in rows(tmp_path)] == [0] * B + [1] * B + [2] * B
    assert recorder.lost_rows == 0


def test_rows_that_can_never_be_written_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mismatchscope.logs.recorder._MOST_BYTES", 1)
    recorder = ms.Recorder(tmp_path)
    monkeypatch.setattr(recorder._writer, "directory", tmp_path / "gone")
    assert recorder.log(**batch()) == {}
    assert recorder.lost_rows == B and not recorder._waiting


def test_columns_may_come_and_go(tmp_path: Path) -> None:
    with ms.Recorder(tmp_path, strict=True) as recorder:
        recorder.log(**batch(step=0))
        recorder.log(**batch(step=1, rewards=[1, 2, 3]))
        recorder.log(**batch(step=2))
    assert len(list(tmp_path.iterdir())) == 3 and len(rows(tmp_path)) == 3 * B


def test_files_are_written_by_rows_time_and_at_the_end(tmp_path: Path) -> None:
    recorder = ms.Recorder(tmp_path, flush_rows=2 * B, flush_seconds=1e9, strict=True)
    counts = []
    for step in range(5):
        recorder.log(**batch(step=step))
        counts.append(len(list(tmp_path.iterdir())))
    recorder.close()
    recorder.close()
    assert counts == [0, 1, 1, 2, 2] and len(list(tmp_path.iterdir())) == 3
    assert [row["sequence_id"] for row in rows(tmp_path)] == list(range(5 * B))


def test_a_forked_process_writes_its_own_rows_alone(tmp_path: Path) -> None:
    recorder = ms.Recorder(tmp_path, strict=True)
    recorder.log(**batch(worker="parent"))

    def child() -> None:
        recorder.log(**batch(worker="child"))
        recorder.close()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    recorder.close()
    assert process.exitcode == 0
    assert sorted(row["worker"] for row in rows(tmp_path)) == ["child"] * B + ["parent"] * B


def test_a_directory_that_cannot_be_made_stops_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ms.errors.UsageError, match="directory cannot be made"):
        ms.Recorder(tmp_path / "file")
    with pytest.raises(ms.errors.UsageError, match="flush_rows"):
        ms.Recorder(tmp_path, flush_rows=0)


def test_the_rank_is_that_of_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "RANK", "5")
    with ms.Recorder(tmp_path, strict=True) as recorder:
        recorder.log(**batch())
    assert {row["rank"] for row in rows(tmp_path)} == {5}


def test_rows_that_look_padded_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled = {name: np.pad(batch()[name], ((0, 0), (0, 6))) for name in ("behavior_logprobs", "reference_logprobs")}
    filled["token_ids"] = np.pad(batch()["token_ids"], ((0, 0), (0, 6)))
    with ms.Recorder(tmp_path, strict=True) as recorder, caplog.at_level(logging.WARNING, "mismatchscope"):
        recorder.log(**filled, lengths=[T] * B)
        recorder.log(**filled, mask=np.pad(np.ones((B, T)), ((0, 0), (0, 6))))
        recorder.log(**{name: value[:, :T] for name, value in filled.items()})
        assert not caplog.records
        for _ in range(2):
            recorder.log(**filled)
    (warning,) = caplog.records
    assert (
        "18 of 30 recorded tokens" in warning.getMessage()
        and "mask=, lengths= or cu_seqlens=" in warning.getMessage()
    )
