"""What a run logged of its own metrics: JSONL of wandb, TensorBoard's events, and what is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatchscope.errors import UsageError
from mismatchscope.logs.metrics_file import read_metrics


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_of_wandb(tmp_path: Path) -> None:
    file = written(
        tmp_path / "metrics.jsonl",
        '{"_step": 0, "a/kl": 0.5, "name": "x", "done": true}\n\n'
        '{"_step": 1, "a/kl": NaN, "nested": {"kl": {"mean": 2}}}\n'
        '{"a/kl": 3}\n'
        '{"global_step": 2, "a/kl": 1}\n'
        '{"_step": 2, "a/kl": 0.25}\n',
    )
    found = read_metrics(file)
    assert set(found) == {"a/kl", "nested/kl/mean"}
    assert found["a/kl"][0] == 0.5 and found["a/kl"][2] == 0.25
    assert found["nested/kl/mean"] == {1: 2.0}


def test_a_line_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    file = written(tmp_path / "metrics.jsonl", '{"_step": 0, "kl": 0.5}\n{"_step": 1, "kl"')
    assert read_metrics(file) == {"kl": {0: 0.5}}


def test_events_of_tensorboard(tmp_path: Path) -> None:
    writer_class = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    with writer_class(tmp_path / "run") as writer:
        for step in range(3):
            writer.add_scalar("train/kl", step / 4, step)
    assert read_metrics(tmp_path) == {"train/kl": {0: 0.0, 1: 0.25, 2: 0.5}}


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "has no metric with a step"),
        ('{"kl": 1}\n', "has no metric with a step"),
        ("[1, 2]\n", "has no metric with a step"),
        ('{"_step": 0, "kl": 1}\nkl = 3\n{"_step": 1}\n', "line 2 is not JSON"),
    ],
)
def test_what_is_no_metrics_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_metrics(written(tmp_path / "metrics.jsonl", text))


def test_what_is_not_there_or_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jsonl", tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError):
            read_metrics(path)
