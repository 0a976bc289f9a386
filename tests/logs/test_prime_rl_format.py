"""prime-rl's exports: sequences out of packed lines, fillers, nulls, and steps that are not finished."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from log_reading import read_all
from log_writers.prime_rl import VOCABULARY, write_first_version, write_rank
from log_writers.samples import Sample, samples

from mismatchscope.errors import UsageError
from mismatchscope.logs.reading import open_logs


def check_row(row: dict[str, Any], sample: Sample) -> None:
    own = sample.response
    assert row["token_ids"] == sample.tokens_T[own].tolist()
    assert row["prompt_token_ids"] == sample.tokens_T[: sample.prompt].tolist()
    assert row["behavior_logprobs"] == sample.mu_T[own].tolist()
    assert row["reference_logprobs"] == sample.pi_T[own].tolist()
    assert row["mask"] == sample.generated_T[own].tolist()
    assert row["advantages"] == [np.float32(sample.advantage)] * len(row["token_ids"])
    assert (row["environment"], set(row["entropy"])) == ("math", {0.5})


@pytest.mark.parametrize("packed", [1, 3])
@pytest.mark.parametrize("turns", [1, 3])
def test_every_sequence_is_read(tmp_path: Path, packed: int, turns: int) -> None:
    ranks = {rank: samples(7, seed=rank, turns=turns) for rank in range(2)}
    for rank, written in ranks.items():
        write_rank(tmp_path, 5, rank, written, packed=packed)
    log = open_logs([tmp_path])
    assert log.format.name == "prime-rl"
    rows, rejected, remarks = read_all(log)
    assert (rejected, remarks) == (Counter(), ())
    assert rows["rank"].to_pylist() == [0] * 7 + [1] * 7
    assert set(rows["step"].to_pylist()) == {5}
    for rank, written in ranks.items():
        own = [row for row in rows.to_pylist() if row["rank"] == rank]
        assert len({row["sequence_id"] for row in own}) == 7
        for row, sample in zip(own, written, strict=True):
            check_row(row, sample)
            assert (row.get("turns") is not None) == (turns > 1)


def test_the_filler_of_a_first_token_is_not_hidden(tmp_path: Path) -> None:
    """A sequence without a prompt: what the trainer has for its first token is no log-prob."""
    [sample] = samples(1)
    bare = Sample(
        sample.tokens_T[sample.response],
        0,
        sample.generated_T[sample.response],
        sample.mu_T[sample.response],
        sample.pi_T[sample.response],
        sample.advantage,
        sample.reward,
    )
    write_rank(tmp_path, 1, 0, [bare])
    [row] = read_all(open_logs([tmp_path]))[0].to_pylist()
    assert row["prompt_token_ids"] == []
    assert row["reference_logprobs"][0] == np.float32(-math.log(VOCABULARY))


def test_null_is_what_was_not_finite(tmp_path: Path) -> None:
    [sample] = samples(1)
    sample.pi_T[sample.prompt + 1] = -np.inf
    write_rank(tmp_path, 1, 0, [sample])
    [row] = read_all(open_logs([tmp_path]))[0].to_pylist()
    assert np.isnan(row["reference_logprobs"][1])
    assert np.isfinite(row["reference_logprobs"][2])


def test_a_step_without_stable_is_not_read_unless_it_is_named(tmp_path: Path) -> None:
    write_rank(tmp_path, 1, 0, samples(2))
    for step in (2, 3):
        half = write_rank(tmp_path, step, 0, samples(2, seed=step), stable=False)
    log = open_logs([tmp_path])
    assert [path.parent.name for path in log.files] == ["step_1"]
    [remark] = log.remarks
    assert "step_2 has no file STABLE" in remark and "1 more like it" in remark
    assert open_logs([half]).files == (half,)
    with pytest.raises(UsageError, match="STABLE"):
        open_logs([half.parent])


def test_which_policy_the_trainer_is_is_said(tmp_path: Path) -> None:
    write_rank(tmp_path, 1, 0, samples(2))
    mu, trainer = open_logs([tmp_path]).columns
    assert (mu.policy, mu.settled) == ("behavior", True)
    assert (trainer.source, trainer.policy, trainer.settled) == ("trainer_logprobs", "target", False)


def test_weights_are_the_ratio_within_the_trust_region(tmp_path: Path) -> None:
    written = samples(6)
    for sample in written:
        sample.pi_T[sample.response] = np.minimum(0, 3 * sample.pi_T[sample.response])
    write_rank(tmp_path, 1, 0, written)
    inside = outside = 0
    for row, sample in zip(read_all(open_logs([tmp_path]))[0].to_pylist(), written, strict=True):
        mu, pi = sample.mu_T[sample.response], sample.pi_T[sample.response]
        moved = np.exp(pi) - np.exp(mu)
        dropped = moved > 0.2 if sample.advantage > 0 else moved < -0.2
        assert np.allclose(row["weights"], np.where(dropped, 0, np.exp(pi - mu)))
        inside, outside = inside + (~dropped).sum(), outside + dropped.sum()
    assert inside and outside


def test_without_the_losses_columns_there_are_no_weights(tmp_path: Path) -> None:
    write_rank(tmp_path, 1, 0, samples(2), ratios=False)
    assert "weights" not in read_all(open_logs([tmp_path]))[0].schema.names


def test_tokens_that_train_by_cross_entropy_do_not_count(tmp_path: Path) -> None:
    write_rank(tmp_path, 1, 0, samples(4), cross_entropy=[1], rl_weights=True)
    rows = read_all(open_logs([tmp_path]))[0].to_pylist()
    assert [any(row["mask"]) for row in rows] == [True, False, True, True]


@pytest.mark.parametrize("packed", [1, 3])
def test_the_first_version_had_rewards_and_no_stable(tmp_path: Path, packed: int) -> None:
    written = samples(6)
    write_first_version(tmp_path, 1, 0, written, packed=packed)
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (rejected, remarks) == (Counter(), ())
    assert rows["reward"].to_pylist() == [sample.reward for sample in written]
    for row, sample in zip(rows.to_pylist(), written, strict=True):
        check_row(row, sample)


def test_text_of_another_model_did_not_count_before_there_were_weights_of_it(tmp_path: Path) -> None:
    write_first_version(tmp_path, 1, 0, samples(2), training_mode="sft", rewards=None)
    write_first_version(tmp_path, 1, 1, samples(2), training_mode="opd")
    rows = read_all(open_logs([tmp_path]))[0].to_pylist()
    assert [any(row["mask"]) for row in rows] == [False, False, True, True]
    assert rows[0]["reward"] is None


def test_the_step_is_the_runs_own_where_a_trainer_had_several(tmp_path: Path) -> None:
    write_rank(tmp_path / "run_a", 17, 0, samples(2), export_step=3, run_id="run_a")
    assert set(read_all(open_logs([tmp_path]))[0]["step"].to_pylist()) == {3}


@pytest.mark.parametrize("column", ["entropy", "importance_ratio"])
def test_a_first_value_that_is_null_hides_no_other(tmp_path: Path, column: str) -> None:
    path = write_rank(tmp_path, 1, 0, samples(1))
    row = json.loads(path.read_text(encoding="utf-8"))
    row[column][0] = None
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    [read] = read_all(open_logs([tmp_path]))[0].to_pylist()
    assert np.isfinite(read["weights"]).all() and set(read["entropy"]) == {0.5}


CHANGES = {
    "no trainer_logprobs": lambda row: row.pop("trainer_logprobs"),
    "lists of other lengths": lambda row: row["trainer_logprobs"].append(-1.0),
    "loss_mask has other values than 0 and 1": lambda row: row["loss_mask"].__setitem__(0, 7),
    "inference_logprobs has values that are no numbers": lambda row: row["inference_logprobs"].__setitem__(0, {}),
    "position_ids has values that are no integers of 32 bits": lambda row: row["position_ids"].__setitem__(-1, "x"),
    "no token that was generated": lambda row: row.update(loss_mask=[False] * len(row["loss_mask"])),
    "loss_mask is no list": lambda row: row.update(loss_mask=None),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_a_bad_row_is_rejected_by_its_reason(tmp_path: Path, reason: str) -> None:
    path = write_rank(tmp_path, 1, 0, samples(4))
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[2])
    CHANGES[reason](row)
    lines[2] = json.dumps(row)
    path.write_text("\n".join(lines), encoding="utf-8")
    rows, rejected, _ = read_all(open_logs([path]))
    assert rejected == Counter({reason: 1})
    assert rows.num_rows == 3
