"""`ms.probe` measures what the command line measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import command
import pytest

import mismatchscope as ms

SYNTHETIC = {"behavior": "synthetic:noise=0.003", "reference": "synthetic:noise=0.003,tv=0.05"}


def figures(report: ms.Report) -> dict[str, Any]:
    """All that does not depend on the words with which it was asked for."""
    return report.model_dump(mode="json", exclude={"provenance": True, "reading": {"next_step"}})


@pytest.mark.slow
def test_a_probe_is_that_of_the_command_line(tmp_path: Path) -> None:
    asked = SYNTHETIC | {"samples": 1, "max_new_tokens": 8}
    report = ms.probe("kernel", values="variant=3,noise=0.1", limit=4, **asked, directory=tmp_path / "probe")
    sides = ["--behavior", SYNTHETIC["behavior"], "--reference", SYNTHETIC["reference"]]
    small = ["--limit", "4", "--samples", "1", "--max-new-tokens", "8", "--values", "variant=3,noise=0.1"]
    done = command.run("probe", "kernel", *sides, *small, "-o", tmp_path / "typed")
    assert done.returncode == 0, done.stderr
    assert figures(report) == figures(ms.load_report(tmp_path / "typed"))
    assert report.provenance.command.startswith("mismatchscope.probe(name='kernel', values=['variant=3,noise=0.1']")
    assert figures(ms.load_report(tmp_path / "probe")) == figures(report)


def test_a_probe_that_nobody_registered_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ms.errors.ConfigError, match="no probe 'bacth'"):
        ms.probe("bacth", prompts=["one"], directory=tmp_path / "out")
