"""NeMo-RL's files: what is read is what was sampled, in the trainer's layout with each of its traps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from log_reading import read_all
from log_writers.nemo_rl import write_step
from log_writers.samples import Sample, samples

import mismatchscope as ms
from mismatchscope.errors import EmptyComparisonError
from mismatchscope.logs.formats.nemo_rl import NO_MASK
from mismatchscope.logs.reading import open_logs
from mismatchscope.measures.prompt_hash import label_of


def check_row(row: dict[str, Any], sample: Sample) -> None:
    own = sample.response
    assert row["token_ids"] == sample.tokens_T[own].tolist()
    assert row["prompt_token_ids"] == sample.tokens_T[: sample.prompt].tolist()
    assert row["behavior_logprobs"] == sample.mu_T[own].tolist()
    assert row["reference_logprobs"] == sample.pi_T[own].tolist()
    assert row["advantages"] == [np.float32(sample.advantage)] * len(row["token_ids"])
    assert row["reward"] == sample.reward


def test_every_sample_is_read_by_its_step(tmp_path: Path) -> None:
    steps = {step: samples(6, seed=step) for step in (2, 10)}
    for step, written in steps.items():
        write_step(tmp_path / "exp_001", step, written, agents=True)
    log = open_logs([tmp_path])
    assert log.format.name == "nemo-rl"
    rows, rejected, remarks = read_all(log)
    assert (rejected, remarks) == (Counter(), ())
    assert rows["step"].to_pylist() == [2] * 6 + [10] * 6
    assert rows["sequence_id"].to_pylist() == [*range(6), *range(6)]
    assert set(rows["environment"].to_pylist()) == {"math"}
    for row, sample in zip(rows.to_pylist(), [*steps[2], *steps[10]], strict=True):
        check_row(row, sample)
        assert row["mask"] == sample.generated_T[sample.response].tolist()


def test_samples_of_a_prompt_share_its_label(tmp_path: Path) -> None:
    written = samples(4)
    write_step(tmp_path, 1, written)
    labels = read_all(open_logs([tmp_path]))[0]["prompt"].to_pylist()
    assert labels == label_of([sample.tokens_T[: sample.prompt] for sample in written]).tolist()
    assert labels[0] == labels[1] != labels[2] == labels[3]


def test_tool_output_is_masked_and_parts_the_turns(tmp_path: Path) -> None:
    [sample] = written = samples(1, turns=3)
    write_step(tmp_path, 1, written)
    [row] = read_all(open_logs([tmp_path]))[0].to_pylist()
    mask = sample.generated_T[sample.response]
    assert row["mask"] == mask.tolist()
    assert set(row["turns"]) == {0, 1, 2}
    begins = np.flatnonzero(np.diff(row["turns"])) + 1
    assert mask[begins].all() and not mask[begins - 1].any()


def test_a_dropped_sample_is_there_and_counts_nowhere(tmp_path: Path) -> None:
    written = samples(3)
    write_step(tmp_path, 1, written, dropped=[1])
    log = open_logs([tmp_path])
    rows = read_all(log)[0].to_pylist()
    assert [any(row["mask"]) for row in rows] == [True, False, True]
    check_row(rows[1], written[1])
    assert "sample_loss_mask" in str(log.format.selects)


@pytest.mark.parametrize("others", [[0.5] * 9, [0.25]])
def test_with_dynamic_sampling_rewards_are_the_samples_own(tmp_path: Path, others: list[float]) -> None:
    written = samples(3)
    write_step(tmp_path, 1, written, other_rewards=others)
    rewards = read_all(open_logs([tmp_path]))[0]["reward"].to_pylist()
    assert rewards == [sample.reward for sample in written]


def test_a_placeholder_stays_what_it_is(tmp_path: Path) -> None:
    write_step(tmp_path, 1, samples(2), placeholder=True)
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert not rejected
    assert set(rows["reference_logprobs"].combine_chunks().flatten().to_pylist()) == {0.0}


def test_masks_of_floats_are_masks(tmp_path: Path) -> None:
    path = write_step(tmp_path, 1, samples(2))
    before = read_all(open_logs([path]))[0]
    change_rows(path, lambda row: row.update(token_loss_mask=[[float(x) for x in row["token_loss_mask"][0]]]))
    assert read_all(open_logs([path]))[0].equals(before)


def change_rows(path: Path, change: Any) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def spoil(row: dict[str, Any], key: str, value: object) -> None:
    """Put something else in place of the last token's value."""
    row[key][0][row["input_lengths"][0] - 1] = value


CHANGES = {
    "no prev_logprobs": lambda row: row.pop("prev_logprobs"),
    NO_MASK: lambda row: row.pop("token_loss_mask"),
    "prev_logprobs is no list of one element": lambda row: row.update(prev_logprobs=row["prev_logprobs"] * 2),
    "lists of other lengths": lambda row: row.update(prev_logprobs=[row["prev_logprobs"][0][:5]]),
    "generation_logprobs has values that are no numbers": lambda row: spoil(row, "generation_logprobs", "x"),
    "token_ids has values that are no integers of 32 bits": lambda row: spoil(row, "token_ids", 2**40),
    "token_loss_mask has other values than 0 and 1": lambda row: spoil(row, "token_loss_mask", 3),
    "no token that was generated": lambda row: row.update(token_loss_mask=[[0] * len(row["token_ids"][0])]),
    "input_lengths is no length of the row": lambda row: row.update(input_lengths=[10**6]),
    "generation_logprobs is no list": lambda row: row.update(generation_logprobs=[1.0]),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_a_bad_row_is_rejected_by_its_reason(tmp_path: Path, reason: str) -> None:
    path = write_step(tmp_path, 1, samples(5))

    def change(row: dict[str, Any]) -> None:
        if row["idx"] == 3:
            CHANGES[reason](row)

    change_rows(path, change)
    rows, rejected, _ = read_all(open_logs([path]))
    assert rejected == Counter({reason: 1})
    assert rows["sequence_id"].to_pylist() == [0, 1, 2, 4]


def test_numbers_that_json_does_not_have_are_kept_for_the_checks_of_tokens(tmp_path: Path) -> None:
    path = write_step(tmp_path, 1, samples(2))
    change_rows(
        path,
        lambda row: row["prev_logprobs"][0].__setitem__(slice(10, 14), [float("nan"), float("-inf"), 0.5, 1e300]),
    )
    rows, rejected, _ = read_all(open_logs([path]))
    assert not rejected
    for row in rows.to_pylist():
        start = 10 - len(row["prompt_token_ids"])
        assert np.isnan(row["reference_logprobs"][start])
        assert row["reference_logprobs"][start + 1 : start + 4] == [-np.inf, 0.5, np.inf]


def test_a_log_from_before_there_were_masks_is_told_by_what_it_lacks(tmp_path: Path) -> None:
    """A log-prob of 0.0 is a token that was not generated, or one that was certain."""
    path = write_step(tmp_path, 1, samples(3))
    change_rows(path, lambda row: [row.pop(key) for key in ("token_loss_mask", "sample_loss_mask", "token_ids")])
    with pytest.raises(EmptyComparisonError, match="token_loss_mask, which NeMo-RL writes since February 2026"):
        ms.analyze(tmp_path)


@pytest.mark.parametrize(
    "first", ["", "\n  \n", "garbage", "\0" * 5000, '{"meta": 1}', '{"generation_logprobs": [[0.0, ']
)
def test_a_first_line_that_is_no_row_hides_no_other(tmp_path: Path, first: str) -> None:
    path = write_step(tmp_path, 1, samples(3))
    path.write_text(f"{first}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert (len(rows), rejected.total()) == (3, int(bool(first.strip())))


def test_a_selection_is_said_where_a_mask_leaves_something_out(tmp_path: Path) -> None:
    write_step(tmp_path / "a", 1, samples(4))
    assert ms.analyze(tmp_path / "a").log.selection is None
    write_step(tmp_path / "b", 1, samples(4), dropped=[2])
    assert "sample_loss_mask" in str(ms.analyze(tmp_path / "b").log.selection)


def test_a_file_of_another_name_has_no_step(tmp_path: Path) -> None:
    write_step(tmp_path, 1, samples(2)).rename(tmp_path / "copy.jsonl")
    assert "step" not in read_all(open_logs([tmp_path]))[0].schema.names


def test_other_files_of_the_run_are_left_out(tmp_path: Path) -> None:
    write_step(tmp_path, 1, samples(2))
    (tmp_path / "val_data_step1.jsonl").write_text('{"content": ["x"], "rewards": [1.0], "idx": 0}\n')
    (tmp_path / "train_data_step2.jsonl").write_text('{"content": ["x"], "input_lengths": [1], "idx": 0}\n')
    log = open_logs([tmp_path])
    assert len(log.files) == 1
    assert log.remarks == ("Files that were left out: 2 of another kind.",)


def test_rows_have_the_types_of_the_form(tmp_path: Path) -> None:
    from mismatchscope.logs.columns import column_type

    write_step(tmp_path, 1, samples(2, turns=2))
    schema: pa.Schema = read_all(open_logs([tmp_path]))[0].schema
    assert {field.name: field.type for field in schema} == {field.name: column_type(field.name) for field in schema}
