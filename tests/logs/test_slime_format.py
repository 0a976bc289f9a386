"""slime's dumps: both files of a step are joined, each sample is read once, and what cannot be a row is counted."""

from __future__ import annotations

import datetime
import re
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from log_reading import read_all
from log_writers.samples import Sample, samples
from log_writers.slime import (
    experts,
    index_of,
    kept_sets,
    write_old_train,
    write_rollout,
    write_train,
)

from mismatchscope.errors import TraceError
from mismatchscope.logs.dumps import files
from mismatchscope.logs.reading import open_logs
from mismatchscope.logs.torch_files import pickle_edges
from mismatchscope.measures.prompt_hash import label_of, labels_of_ids


def write_run(run: Path, steps: dict[int, list[Sample]]) -> None:
    for rollout_id, written in steps.items():
        write_rollout(run / f"rollout_data/{rollout_id}.pt", rollout_id, written)
        write_train(run / f"train_data/{rollout_id}.pt", rollout_id, written)


def check_row(row: dict[str, Any], sample: Sample) -> None:
    own = sample.response
    assert row["token_ids"] == sample.tokens_T[own].tolist()
    assert row["prompt_token_ids"] == sample.tokens_T[: sample.prompt].tolist()
    assert row["behavior_logprobs"] == sample.mu_T[own].tolist()
    assert row["reference_logprobs"] == sample.pi_T[own].tolist()
    assert row["mask"] == sample.generated_T[own].tolist()
    assert row["advantages"] == [np.float32(sample.advantage)] * len(row["token_ids"])
    assert row["reward"] == sample.reward


def part_of(sample: Sample, kept: slice, **changes: Any) -> Sample:
    names = ("tokens_T", "generated_T", "mu_T", "pi_T")
    return replace(sample, **{name: getattr(sample, name)[kept] for name in names}, **changes)


def test_both_dumps_of_a_step_are_joined(tmp_path: Path) -> None:
    steps = {step: samples(5, seed=step, turns=2) for step in (9, 10)}
    write_run(tmp_path, steps)
    write_rollout(tmp_path / "rollout_data/eval_10.pt", 10, samples(3, seed=77))
    log = open_logs([tmp_path])
    assert log.format.name == "slime"
    rows, rejected, remarks = read_all(log)
    assert (rejected, remarks) == (Counter(), ())
    assert rows["step"].to_pylist() == [9] * 5 + [10] * 5
    assert rows["sequence_id"].to_pylist() == [index_of(step, place) for step in steps for place in range(5)]
    assert rows["policy_version"].to_pylist() == rows["step"].to_pylist()
    assert rows["rank"].to_pylist() == [0, 1, 0, 1, 0] * 2
    assert set(rows["environment"].to_pylist()) == {"math"}
    for row, sample in zip(rows.to_pylist(), [*steps[9], *steps[10]], strict=True):
        check_row(row, sample)
    labels = label_of([sample.tokens_T[: sample.prompt] for sample in steps[9]]).tolist()
    assert rows["prompt"].to_pylist()[:5] == labels


def test_samples_are_joined_by_their_number_not_by_their_place(tmp_path: Path) -> None:
    written = samples(4)
    write_rollout(tmp_path / "rollout_data/0.pt", 0, written)
    write_train(tmp_path / "train_data/0.pt", 0, written)
    document = torch.load(tmp_path / "rollout_data/0.pt", weights_only=True)
    document["samples"].reverse()
    torch.save(document, tmp_path / "rollout_data/0.pt")
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert not rejected
    for row in rows.to_pylist():
        check_row(row, written[row["sequence_id"]])


def test_ranks_of_earlier_versions_are_read_once(tmp_path: Path) -> None:
    """Two tensor-parallel ranks and two pipeline stages hold every sample; the first stage has no log-probs."""
    written = samples(6)
    write_rollout(tmp_path / "rollout_data/3.pt", 3, written)
    assert len(write_old_train(tmp_path / "train_data", 3, written)) == 8
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (rejected, remarks) == (Counter(), ())
    assert sorted(rows["sequence_id"].to_pylist()) == [index_of(3, place) for place in range(6)]
    for row in rows.to_pylist():
        check_row(row, written[row["sequence_id"] - index_of(3, 0)])


def test_without_the_rollouts_dump_the_trainers_is_enough(tmp_path: Path) -> None:
    written = samples(3)
    write_train(tmp_path / "anywhere.pt", 7, written)
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert not rejected
    for row, sample in zip(rows.to_pylist(), written, strict=True):
        check_row(row, sample)
        assert row["step"] == 7


def test_without_the_trainers_dump_there_is_one_policy(tmp_path: Path) -> None:
    write_rollout(tmp_path / "rollout_data/0.pt", 0, samples(3))
    rows, _, _ = read_all(open_logs([tmp_path]))
    assert "reference_logprobs" not in rows.column_names
    assert len(rows) == 3


def test_kept_sets_and_routing_are_of_the_states_that_sampled_the_tokens(tmp_path: Path) -> None:
    written = samples(3, turns=2)
    write_rollout(
        tmp_path / "rollout_data/0.pt",
        0,
        written,
        rollout_top_p_token_ids=lambda sample: kept_sets(sample)[0],
        rollout_top_p_token_offsets=lambda sample: torch.tensor(kept_sets(sample)[1], dtype=torch.int32),
        rollout_routed_experts=experts,
    )
    write_train(tmp_path / "train_data/0.pt", 0, written)
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (rejected, remarks) == (Counter(), ())
    for row, sample in zip(rows.to_pylist(), written, strict=True):
        own = sample.response
        kept = [
            [token, token + 1, token + 2] if generated else []
            for token, generated in zip(sample.tokens_T[own].tolist(), sample.generated_T[own], strict=True)
        ]
        assert row["kept_ids"] == kept
        routed = experts(sample)
        before = range(sample.prompt - 1, len(sample.tokens_T) - 1)
        assert row["experts"] == [routed[place].ravel().tolist() for place in before]


def test_what_is_of_another_length_is_left_out_and_said(tmp_path: Path) -> None:
    written = samples(2)
    changes = {"rollout_top_p_token_ids": [1], "rollout_top_p_token_offsets": [0, 1]}
    write_rollout(
        tmp_path / "rollout_data/0.pt", 0, written, rollout_routed_experts=np.zeros((1, 2, 2), np.int32), **changes
    )
    write_train(tmp_path / "train_data/0.pt", 0, written)
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert len(rows) == 2
    assert not rejected
    assert not {"kept_ids", "experts"} & set(rows.column_names)
    assert sorted(remarks) == [
        "2 responses have kept sets of another length, which are left out.",
        "2 responses have routing of another length, which is left out.",
    ]


def test_the_oldest_of_several_versions_is_taken_and_said(tmp_path: Path) -> None:
    write_rollout(tmp_path / "rollout_data/0.pt", 0, samples(2), weight_versions=["12", "11", "12"])
    write_train(tmp_path / "train_data/0.pt", 0, samples(2))
    rows, _, remarks = read_all(open_logs([tmp_path]))
    assert rows["policy_version"].to_pylist() == [11, 11]
    assert remarks == ("2 responses were sampled by weights of several versions; the oldest is taken as theirs.",)


def test_without_a_prompt_the_group_tells_prompts_apart(tmp_path: Path) -> None:
    whole = [part_of(sample, slice(sample.prompt, None), prompt=0) for sample in samples(4)]
    write_rollout(tmp_path / "rollout_data/0.pt", 0, whole)
    write_train(tmp_path / "train_data/0.pt", 0, whole)
    rows, _, _ = read_all(open_logs([tmp_path]))
    assert rows["prompt"].to_pylist() == labels_of_ids(np.array([0, 0, 1, 1])).tolist()


@pytest.mark.parametrize(
    ("rollout", "train", "reason"),
    [
        ({"rollout_log_probs": [-1.0]}, {}, "lists of other lengths"),
        ({"rollout_log_probs": None}, {"rollout_log_probs": None}, "no log-probs of the sampler"),
        ({"rollout_log_probs": ["a"]}, {}, "values that are no numbers"),
        ({"tokens": [[1], [2]]}, {"tokens": None}, "no tokens, or fewer than the response has"),
        ({"tokens": [1, 2]}, {}, "other tokens in the trainer's dump than in the rollout's"),
        ({}, {"response_lengths": 10_000}, "no tokens, or fewer than the response has"),
        ({}, {"log_probs": torch.zeros(1)}, "slices of a context-parallel rank, whose order cannot be shown"),
        ({}, {"loss_masks": torch.zeros(1)}, "lists of other lengths"),
    ],
)
def test_rejected_by_reason(tmp_path: Path, rollout: dict[str, Any], train: dict[str, Any], reason: str) -> None:
    write_rollout(tmp_path / "rollout_data/0.pt", 0, samples(2), **rollout)
    write_train(tmp_path / "train_data/0.pt", 0, samples(2), **train)
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert len(rows) == 0
    assert rejected == Counter({reason: 2})


def test_a_list_that_is_there_many_times_is_refused(tmp_path: Path) -> None:
    """A file of a few kilobytes that stands for a million tokens."""
    tokens, logprobs = list(range(1000)), [-1.0] * 1000
    shared = {"tokens": tokens, "response_length": 1000, "rollout_log_probs": logprobs, "prompt": ""}
    path = write_rollout(tmp_path / "rollout_data/0.pt", 0, samples(1000), **shared)
    assert path.stat().st_size < 800_000
    with pytest.raises(TraceError, match="more tokens than it has bytes"):
        read_all(open_logs([path]))


@pytest.mark.parametrize("thing", [datetime.date(2026, 8, 1), np.array(["a"], dtype=object), np.str_("a")])
def test_what_was_trained_on_a_rollout_with_foreign_objects_is_read(tmp_path: Path, thing: object) -> None:
    """Such as miles' reference to an adapter, or what somebody's environment put into the metadata."""
    written = samples(3)
    rollout = write_rollout(
        tmp_path / "rollout_data/0.pt", 0, written, metadata={"time": datetime.date(2026, 8, 1)}
    )
    write_train(tmp_path / "train_data/0.pt", 0, written)
    rows, rejected, [remark] = read_all(open_logs([tmp_path]))
    assert not rejected
    for row, sample in zip(rows.to_pylist(), written, strict=True):
        check_row(row, sample)
    assert re.search("names datetime.date, which no log needs|something else than numbers", remark)
    assert remark.endswith("The trainer's dump of it is read.")
    with pytest.raises(TraceError, match=r"0\.pt cannot be read: it (names|has a numpy array)"):
        read_all(open_logs([rollout]))


def test_an_archive_of_another_kind_is_not_cut_off(tmp_path: Path) -> None:
    write_run(tmp_path, {0: samples(2)})
    with zipfile.ZipFile(tmp_path / "weights.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", b"\x80\x02N.")
    assert open_logs([tmp_path]).remarks == ("Files that were left out: 1 of another kind.",)


def test_an_empty_response_is_no_row(tmp_path: Path) -> None:
    empty = [part_of(sample, slice(sample.prompt)) for sample in samples(2)]
    write_rollout(tmp_path / "rollout_data/0.pt", 0, empty)
    write_train(tmp_path / "train_data/0.pt", 0, empty)
    assert read_all(open_logs([tmp_path]))[1] == Counter({"no response token": 2})


def test_samples_that_nothing_was_trained_on_are_said(tmp_path: Path) -> None:
    write_rollout(tmp_path / "rollout_data/0.pt", 0, samples(4))
    write_train(tmp_path / "train_data/0.pt", 0, samples(2))
    rows, rejected, remarks = read_all(open_logs([tmp_path]))
    assert (len(rows), rejected) == (2, Counter())
    assert remarks == ("2 responses are in the rollout's dump alone: nothing was trained on them.",)


def test_a_log_prob_of_null_is_not_a_number(tmp_path: Path) -> None:
    [sample] = samples(1)
    values = [None, *sample.mu_T[sample.response].tolist()[1:]]
    write_rollout(tmp_path / "rollout_data/0.pt", 0, [sample], rollout_log_probs=values)
    write_train(tmp_path / "train_data/0.pt", 0, [sample])
    [row] = read_all(open_logs([tmp_path]))[0].to_pylist()
    assert np.isnan(row["behavior_logprobs"][0])
    assert row["behavior_logprobs"][1:] == values[1:]


def test_a_truncated_dump_is_left_out_of_a_directory_and_refused_by_name(tmp_path: Path) -> None:
    write_run(tmp_path, {0: samples(2), 1: samples(2)})
    file = tmp_path / "train_data/1.pt"
    file.write_bytes(file.read_bytes()[:-500])
    log = open_logs([tmp_path])
    assert len(log.files) == 3
    assert log.remarks == ("Left out, because the end of 1.pt is not there yet.",)
    for name in (None, "slime"):
        with pytest.raises(
            TraceError, match=r"1\.pt cannot be read: it is no file of torch\.save, or the end of it"
        ):
            read_all(open_logs([file], format=name))


def test_each_file_of_a_run_is_looked_into_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time to find the files of a run would grow with the square of their number."""
    write_run(tmp_path, {step: samples(1) for step in range(12)})
    opened = Counter[str]()

    def counted(path: Path) -> bytes | None:
        opened[f"{path.parent.name}/{path.name}"] += 1
        return pickle_edges(path)

    monkeypatch.setattr(files, "pickle_edges", counted)
    assert len(open_logs([tmp_path]).parts()) == 12
    assert len(opened) == opened.total() == 24


def test_two_runs_with_the_same_rollouts_are_two(tmp_path: Path) -> None:
    for run, seed in (("a", 0), ("b", 1)):
        write_run(tmp_path / run, {0: samples(2, seed=seed)})
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert (len(rows), rejected) == (4, Counter())
