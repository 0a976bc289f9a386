"""Checkpoints of a log that is followed: gone on from where they are ours and whole, and nothing in them runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from log_writers import nemo_rl
from log_writers.samples import samples

from mismatchscope.analysis import checkpoint
from mismatchscope.analysis.checkpoint import UnusableCheckpointError
from mismatchscope.analysis.follow import Follower
from mismatchscope.analysis.mapping import in_this_process
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.collection.run_files import CHECKPOINT


def follower(run: Path, settings: AnalysisSettings | None = None) -> Follower:
    return Follower([run], settings or AnalysisSettings(), in_this_process, run.parent / CHECKPOINT)


@pytest.mark.parametrize("trouble", ["others", "damaged", "settings", "nothing", "pickle", "foreign"])
def test_a_checkpoint_that_is_not_ours_is_not_gone_on_from(tmp_path: Path, trouble: str) -> None:
    run = tmp_path / "run"
    nemo_rl.write_step(run, 1, samples(4))
    first = follower(run)
    first.look()
    first.save()
    file = tmp_path / CHECKPOINT
    header, _, payload = file.read_bytes().partition(b"\n")
    if trouble == "others":
        os.chmod(file, 0o666)
    elif trouble == "damaged":
        file.write_bytes(header + b"\n" + payload[:-1] + b"!")
    elif trouble == "nothing":
        file.write_bytes(b"")
    elif trouble == "pickle":
        checkpoint.save(file, Touches(tmp_path / "ran"), first._identity())
    elif trouble == "foreign":
        checkpoint.save(file, [1], first._identity())
    second = follower(run, AnalysisSettings(tail=trouble == "settings"))
    assert second.resume() is not None
    assert second.look() == first.progress.statistics.pair.tokens
    assert not (tmp_path / "ran").exists()


class Touches:
    """Unpickled by Python itself, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_the_attack_would_work_on_pickle_itself(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Touches(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_only_a_class_of_ours_is_made(tmp_path: Path) -> None:
    for module, name in (
        ("mismatchscope.processes", "run"),
        ("mismatchscope.analysis.checkpoint", "save"),
        ("os", "system"),
    ):
        payload = f"\x80\x04\x8c{chr(len(module))}{module}\x8c{chr(len(name))}{name}\x93.".encode("latin-1")
        with pytest.raises(UnusableCheckpointError, match="UnpicklingError"):
            checkpoint._unpickled(payload)
