"""The hook on the real TRL: a GRPO run of the embedded model with bfloat16 rollouts, recorded as TRL holds it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.dataset as ds
import pytest
import torch

import mismatchscope as ms
from mismatchscope.integrations import trl
from mismatchscope.logs.recorder_metrics import PREFIX

pytestmark = pytest.mark.slow

pytest.importorskip("trl")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from trl_run import grpo_trainer, rollouts_in_bfloat16  # noqa: E402 - it imports TRL


class Run:
    """A short run, what TRL held of every completion on the way, and the rows that the hook recorded."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.trainer = grpo_trainer(directory, rollouts_in_bfloat16(), **options)
        self.held: list[dict[str, Any]] = []
        self._watch("_generate_and_score_completions", self._note_generation)
        self.forwards: list[list[float]] = []
        self._watch("_get_per_token_logps_and_entropies", lambda found: self.forwards.extend(found[0].tolist()))
        with ms.Recorder(directory / "log", strict=True, trainer="trl") as recorder:
            trl.attach(self.trainer, recorder)
            self.trainer.train()
        self.rows = ds.dataset(directory / "log", format="parquet").to_table().to_pylist()

    def _watch(self, name: str, note: Any) -> None:
        original = getattr(self.trainer, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            found = original(*arguments, **options)
            note(found)
            return found

        watched.__signature__ = inspect.signature(original)
        setattr(self.trainer, name, watched)

    def _note_generation(self, output: dict[str, Any]) -> None:
        for row in range(len(output["completion_ids"])):
            self.held.append({name: value[row] for name, value in output.items() if value.ndim})

    def held_of(self, row: dict[str, Any]) -> dict[str, Any]:
        """What TRL held of the completion that a row is of: its prompt and the log-probs of its sampler."""
        (found,) = [
            held
            for held in self.held
            if held["prompt_ids"][held["prompt_mask"].bool()].tolist() == row["prompt_token_ids"]
            and held["sampling_per_token_logps"].tolist()[: len(row["token_ids"])] == row["behavior_logprobs"]
        ]
        return found


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The model is small: more threads wait for one another, the longer the busier the machine is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Completions of one generation serve two updates, so that TRL takes π_old before them."""
    return Run(tmp_path_factory.mktemp("trl"), max_steps=4, steps_per_generation=2, mask_truncated_completions=True)


def check_that_rows_are_what_trl_held(run: Run, completions: int) -> None:
    assert len(run.rows) == len(run.held) == completions
    matched = [run.held_of(row) for row in run.rows]
    assert len({id(held) for held in matched}) == completions
    for row, held in zip(run.rows, matched, strict=True):
        length = len(row["token_ids"])
        assert held["completion_ids"][:length].tolist() == row["token_ids"]
        assert (held["completion_ids"][length:] == 1).all()  # padding
        assert held["old_per_token_logps"][:length].tolist() == row["reference_logprobs"]
        assert held["completion_mask"][:length].bool().tolist() == row["mask"]
        assert {held["advantages"].item()} == set(row["advantages"])


def test_every_completion_is_recorded_once_as_trl_held_it(run: Run) -> None:
    check_that_rows_are_what_trl_held(run, 64)


@pytest.mark.gpu
def test_every_completion_of_a_run_on_a_gpu_too(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    run = Run(tmp_path, max_steps=2, steps_per_generation=2, use_cpu=False)
    assert {held["completion_ids"].device.type for held in run.held} == {"cuda"}
    check_that_rows_are_what_trl_held(run, 32)


def test_the_target_is_the_forward_of_the_update(run: Run) -> None:
    """π_θ is π_old bit by bit before the first update after a generation, and not after it."""
    for row in run.rows:
        length = len(row["token_ids"])
        fresh = row["step"] % 2 == 1
        if any(row["mask"]):  # TRL scores one that was cut off without its own tokens in sight
            assert (row["target_logprobs"] == row["reference_logprobs"]) == fresh
        assert any(forward[:length] == row["target_logprobs"] for forward in run.forwards)


def test_completions_that_were_cut_off_keep_their_tokens(run: Run) -> None:
    cut = [row for row in run.rows if row["truncated"]]
    assert cut, "the run needs a completion of 64 tokens"
    for row in run.rows:
        assert row["truncated"] == (row["token_ids"][-1] != 0)
        assert any(row["mask"]) == (not row["truncated"])
    assert all(len(row["token_ids"]) == 64 for row in cut)


def test_steps_versions_and_rewards_are_the_trainers(run: Run) -> None:
    assert [row["step"] for row in run.rows] == [1] * 16 + [2] * 16 + [3] * 16 + [4] * 16
    assert {(row["step"], row["policy_version"], row["trainer_version"]) for row in run.rows} == {
        *((1, 0, 0), (2, 0, 0)),
        *((3, 2, 2), (4, 2, 2)),
    }
    logged = [entry for entry in run.trainer.state.log_history if "reward" in entry]
    rewards = [[row["reward"] for row in run.rows if row["step"] in steps] for steps in ((1, 2), (3, 4))]
    assert [entry["reward"] for entry in logged] == pytest.approx([sum(each) / len(each) for each in rewards])


def test_rounding_to_bfloat16_is_found_and_the_metrics_are_in_trls_log(run: Run) -> None:
    logged = [entry[f"{PREFIX}token/abs_logprob_diff"] for entry in run.trainer.state.log_history[:4]]
    for step, value in enumerate(logged, start=1):
        gaps = [
            abs(old - mu)
            for row in run.rows
            if row["step"] == step
            for mu, old, kept in zip(row["behavior_logprobs"], row["reference_logprobs"], row["mask"], strict=True)
            if kept
        ]
        assert value == pytest.approx(sum(gaps) / len(gaps), rel=1e-6)
        assert 1e-3 < value < 1e-2  # docs/guide/bf16-against-fp32-logits.md finds 0.003


def test_without_old_log_probs_the_forward_of_the_update_is_the_reference(tmp_path: Path) -> None:
    found = Run(tmp_path, max_steps=2, gradient_accumulation_steps=2, per_device_train_batch_size=8)
    assert not any("old_per_token_logps" in held for held in found.held)
    assert len(found.rows) == len(found.held) == 32 and "target_logprobs" not in found.rows[0]
    for row in found.rows:
        held, length = found.held_of(row), len(row["token_ids"])
        assert held["completion_ids"][:length].tolist() == row["token_ids"]
        assert any(forward[:length] == row["reference_logprobs"] for forward in found.forwards)
        assert row["trainer_version"] == row["policy_version"] == row["step"] - 1


def test_a_trainer_without_log_probs_of_its_sampler_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ms.errors.UsageError, match="TRL keeps no log-probs"):
        trl.attach(grpo_trainer(tmp_path, None), ms.Recorder(tmp_path / "log"))


def test_a_version_of_trl_that_has_moved_is_refused_at_once(run: Run, tmp_path: Path) -> None:
    moved = SimpleNamespace(
        **{name: getattr(run.trainer, name) for name in ("_generate_and_score_completions", "_calculate_rewards")}
    )
    with pytest.raises(ms.errors.UsageError, match=r"no .*\._compute_loss, so nothing could be recorded"):
        trl.attach(moved, ms.Recorder(tmp_path))
