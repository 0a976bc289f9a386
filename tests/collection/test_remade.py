"""What an interrupted run left in pieces: it is made again, to the same bytes, and named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from toy_runs import collect, contents, passes

from mismatchscope.records import Sampling

pytestmark = [pytest.mark.usefixtures("toy"), pytest.mark.slow]


@pytest.mark.parametrize(
    ("damaged", "made_again"),
    [
        (["first/parts/000000002.safetensors"], 3),  # its score, and one that was missing
        (["again/parts/000000002.safetensors", "again/parts/000000007.safetensors"], 3),
        (["again/manifest.json"], 8),
        (["first/manifest.json"], 16),
    ],
)
@pytest.mark.parametrize("content", [b"", b"\x90" * 999])
def test_what_cannot_be_read_is_made_again_and_named(
    interrupted: Path, tmp_path: Path, damaged: list[str], made_again: int, content: bytes
) -> None:
    for name in damaged:
        (interrupted / name).write_bytes(content)
    sentences: list[str] = []
    kinds = collect(interrupted, sentences=sentences)
    assert kinds.count("sequence") == made_again
    log = (interrupted / "log").read_text()
    for name in damaged:
        assert sum(str(interrupted / name) in sentence for sentence in sentences) == 1
        assert f"mismatchscope: {interrupted / name} " in log
    (tmp_path / "calm").mkdir()
    collect(tmp_path / "calm")
    assert contents(interrupted) == contents(tmp_path / "calm")


def test_the_parts_of_a_complete_trace_go(interrupted: Path) -> None:
    """A kill between a trace's last manifest and the end of its parts."""
    parts = shutil.copytree(interrupted / "first" / "parts", interrupted.parent / "parts")
    collect(interrupted)
    shutil.copytree(parts, interrupted / "first" / "parts")
    assert collect(interrupted) == []
    assert not (interrupted / "first" / "parts").exists()


def test_a_part_of_another_run_is_made_again(interrupted: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = [replace(each, sampling=Sampling(max_new_tokens=2, seed=8)) for each in passes(tmp_path / "other")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mismatchscope.collection.collector.finish", Mock(side_effect=KeyboardInterrupt))
        collect(tmp_path / "other", planned=other)
    part = "first/parts/000000001.safetensors"
    shutil.copy(tmp_path / "other" / part, interrupted / part)
    sentences: list[str] = []
    collect(interrupted, sentences=sentences)
    assert [sentence for sentence in sentences if "another run wrote it" in sentence and part in sentence]
