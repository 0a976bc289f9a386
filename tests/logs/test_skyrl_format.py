"""SkyRL's pickles: read as data, right-aligned, without the rows that fill a batch up."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from log_reading import read_all
from log_writers.samples import Sample, samples
from log_writers.skyrl import TrainingInputBatch, serialized, skyrls_module, tensors_of, write_step

from mismatchscope.errors import TraceError, UsageError
from mismatchscope.logs.formats.skyrl import STAND_INS
from mismatchscope.logs.reading import open_logs
from mismatchscope.measures.prompt_hash import label_of


def check_row(row: dict[str, Any], sample: Sample) -> None:
    own = sample.response
    assert row["token_ids"] == sample.tokens_T[own].tolist()
    assert row["prompt_token_ids"] == sample.tokens_T[: sample.prompt].tolist()
    assert row["behavior_logprobs"] == sample.mu_T[own].tolist()
    assert row["reference_logprobs"] == sample.pi_T[own].tolist()
    assert row["mask"] == sample.generated_T[own].tolist()
    assert row["prompt"] == label_of([sample.tokens_T[: sample.prompt]])[0]


def test_three_names_and_no_more() -> None:
    assert len(STAND_INS) == 3


def test_every_row_is_read_by_its_step(tmp_path: Path) -> None:
    steps = {step: samples(5, seed=step, turns=2) for step in (9, 10)}
    for step, written in steps.items():
        write_step(tmp_path, step, written, pad=3)
    log = open_logs([tmp_path])
    assert log.format.name == "skyrl"
    rows, rejected, remarks = read_all(log)
    assert not rejected
    assert rows["step"].to_pylist() == [9] * 5 + [10] * 5
    for row, sample in zip(rows.to_pylist(), [*steps[9], *steps[10]], strict=True):
        check_row(row, sample)
    assert remarks == tuple(
        f"3 rows of global_step_{step}_training_input.pkl fill the batch up and are left out." for step in steps
    )


def test_bfloat16_comes_in_torchs_form(tmp_path: Path) -> None:
    written = samples(3)
    values = tensors_of(written)["action_log_probs"].bfloat16()
    assert serialized(values)["format"] == "torch"
    write_step(tmp_path, 1, written, action_log_probs=values)
    rows, _, _ = read_all(open_logs([tmp_path]))
    for row, sample in zip(rows.to_pylist(), written, strict=True):
        expected = torch.tensor(sample.pi_T[sample.response]).bfloat16().float()
        assert row["reference_logprobs"] == expected.tolist()


def test_routing_is_of_the_states_that_sampled_the_tokens(tmp_path: Path) -> None:
    written = samples(3)
    tensors = tensors_of(written, experts=True)
    write_step(tmp_path, 1, written, **tensors)
    rows, _, _ = read_all(open_logs([tmp_path]))
    for row, sample in zip(rows.to_pylist(), written, strict=True):
        states = np.arange(sample.prompt - 1, len(sample.tokens_T) - 1)
        assert row["experts"] == np.stack([2 * states, 2 * states + 1], axis=1).__mod__(60).tolist()
    missing = torch.zeros(tensors["sequences"].shape, dtype=torch.bool)
    missing[1, -2] = True  # the route of a state was not captured
    write_step(tmp_path, 1, written, **tensors, router_padding_mask=missing)
    rows, _, _ = read_all(open_logs([tmp_path]))
    assert [experts is None for experts in rows["experts"].to_pylist()] == [False, True, False]


def test_an_empty_response_with_routing_is_no_row_and_ends_nothing(tmp_path: Path) -> None:
    written = samples(3)
    tensors = tensors_of(written, experts=True)
    tensors["response_mask"][1] = 0
    write_step(tmp_path, 1, written, **tensors)
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert (len(rows), rejected) == (2, Counter({"no response token": 1}))


def test_the_turns_of_one_prompt_are_one_cluster(tmp_path: Path) -> None:
    """Where each turn is a row, a later one has the earlier ones in its prompt."""
    written = samples(8)
    write_step(tmp_path, 1, written, metadata={"policy_prompt_boundaries": [(0, 6), (6, 8)]})
    rows, _, _ = read_all(open_logs([tmp_path]))
    first, last = (int(label_of([sample.tokens_T[: sample.prompt]])[0]) for sample in (written[0], written[6]))
    assert rows["prompt"].to_pylist() == [first] * 6 + [last] * 2


@pytest.mark.parametrize("boundaries", [None, 3, [(0,)], [("a", 2)], [(-5, 10**12)], [(2**62, 2**63)], [[0, 2]]])
def test_boundaries_that_are_none_leave_each_prompt_its_own(tmp_path: Path, boundaries: Any) -> None:
    write_step(tmp_path, 1, samples(4), metadata={"policy_prompt_boundaries": boundaries})
    assert len(read_all(open_logs([tmp_path]))[0]) == 4


def test_images_are_left_where_they_are(tmp_path: Path) -> None:
    images = {"format": "tensor_list", "items": [serialized(torch.zeros(4, 3))]}
    write_step(tmp_path, 1, samples(2), pixel_values=images)
    assert len(read_all(open_logs([tmp_path]))[0]) == 2


def test_a_loss_without_the_policys_forward_has_one_policy(tmp_path: Path) -> None:
    write_step(tmp_path, 1, samples(2), action_log_probs=None)
    assert "reference_logprobs" not in read_all(open_logs([tmp_path]))[0].column_names


def test_rejected_by_reason(tmp_path: Path) -> None:
    written = samples(3)
    mask = tensors_of(written)["response_mask"]
    mask[0, -1] = 0  # padded on the right
    mask[1] = 0  # an empty response
    write_step(tmp_path, 1, written, response_mask=mask)
    rows, rejected, _ = read_all(open_logs([tmp_path]))
    assert len(rows) == 1
    assert rejected == Counter({"a response that is not at the end of its row": 1, "no response token": 1})


ONE = serialized(torch.zeros(2, 2))
BAD = {
    "a shape of 10**12": ONE | {"shape": (10**6, 10**6)},
    "a negative shape": ONE | {"shape": (-2, -2)},
    "a shape that is no tuple": ONE | {"shape": [2, 2]},
    "objects": ONE | {"dtype": "object"},
    "texts": ONE | {"dtype": "<U1"},
    "records": ONE | {"dtype": "i4,i4"},
    "bytes of another length": ONE | {"data": b"123"},
    "bytes that are text": ONE | {"data": "1234"},
    "a broken file of torch": {"format": "torch", "data": b"PK\x03\x04"},
    "a file of torch that holds a list": {"format": "torch", "data": b""},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tensors_are_refused(tmp_path: Path, name: str) -> None:
    path = write_step(tmp_path, 1, samples(2), advantages=BAD[name])
    with pytest.raises(TraceError, match=r"training_input\.pkl cannot be read"):
        read_all(open_logs([path]))


@pytest.mark.parametrize("name", ["sequences", "attention_mask", "response_mask"])
def test_without_its_layout_a_batch_is_refused(tmp_path: Path, name: str) -> None:
    path = write_step(tmp_path, 1, samples(2), **{name: None})
    with pytest.raises(TraceError, match=f"it has no {name}"):
        read_all(open_logs([path]))


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (print, ("run",))


def test_any_other_name_is_refused_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_step(tmp_path, 1, samples(2), metadata={"evil": Evil()})
    with pytest.raises(TraceError, match=r"it names builtins\.print, which no log needs; nothing of it was run"):
        read_all(open_logs([path]))
    assert capsys.readouterr().out == ""


class Command:
    def __init__(self, line: str) -> None:
        self.line = line

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (os.system, (self.line,))


def write_command(directory: Path, step: int) -> Path:
    """A file that is called as a batch, and would write `run` beside it."""
    path = directory / f"global_step_{step}_training_input.pkl"
    path.write_bytes(pickle.dumps(Command(f"touch {directory / 'run'}")))
    return path


REFUSED = f"it names {os.name}.system, which no log needs; nothing of it was run."


def test_a_file_that_is_called_as_a_batch_and_names_something_else_is_left_out_and_said(tmp_path: Path) -> None:
    for step in (1, 2):
        write_step(tmp_path, step, samples(2, seed=step))
    path = write_command(tmp_path, 9)
    (tmp_path / "global_step_8_training_input.pkl").write_bytes(pickle.dumps({"batch_dict": {}}))
    log = open_logs([tmp_path])
    assert [file.name[:13] for file in log.files] == ["global_step_1", "global_step_2"]
    assert log.remarks == ("Files that were left out: 1 of another kind.", f"{path} is not read: {REFUSED}")
    write_command(tmp_path, 10)
    write_command(tmp_path, 11)
    assert (
        open_logs([tmp_path], format="skyrl")
        .remarks[1]
        .endswith(f"global_step_10_training_input.pkl is not read: {REFUSED} Files that are refused likewise: 2.")
    )
    assert len(read_all(log)[0]) == 4 and not (tmp_path / "run").exists()


def test_alone_it_is_said_too(tmp_path: Path) -> None:
    path = write_command(tmp_path, 9)
    with pytest.raises(UsageError, match="There is no log in") as of_directory:
        open_logs([tmp_path])
    assert of_directory.value.message.endswith(f"{path} is not read: {REFUSED}")
    with pytest.raises(UsageError, match="is no log") as of_file:
        open_logs([path])
    assert of_file.value.message == f"{path} is no log: {REFUSED}"
    with pytest.raises(TraceError, match=r"it names \w+\.system, which no log needs"):
        read_all(open_logs([path], format="skyrl"))
    assert not (tmp_path / "run").exists()


def test_numpys_names_are_none_of_the_three(tmp_path: Path) -> None:
    path = write_step(tmp_path, 1, samples(2), metadata={"reward": np.float64(1)})
    with pytest.raises(TraceError, match=r"it names numpy\._core\.multiarray\.scalar"):
        read_all(open_logs([path]))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write_step(tmp_path, 1, samples(2))
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 200):
        path.write_bytes(whole[:size])
        with pytest.raises(TraceError):
            read_all(open_logs([path], format="skyrl"))


def test_the_form_before_is_refused_by_the_name_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until March 2026 a batch was pickled with its tensors, whose function is one that unpickles again."""
    monkeypatch.delattr(TrainingInputBatch, "__reduce__")
    path = tmp_path / "global_step_1_training_input.pkl"
    with skyrls_module():
        path.write_bytes(pickle.dumps(TrainingInputBatch(sequences=torch.zeros(2, 2))))
    with pytest.raises(TraceError, match=r"cannot be read: it (names|has the instruction) "):
        read_all(open_logs([path]))
