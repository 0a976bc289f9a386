"""Formats by name: ours, and those of other packages."""

from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from log_reading import read_all

from mismatchscope.analysis.analyze import analyze
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.errors import UsageError
from mismatchscope.logs import registry
from mismatchscope.logs.reading import open_logs

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")


def test_a_format_nobody_knows_gets_a_proposal() -> None:
    with pytest.raises(UsageError) as caught:
        registry.log_format("recoder")
    assert caught.value.hint == "did you mean recorder?"


def test_every_format_is_called_as_it_is_registered() -> None:
    assert [known.name for known in registry.log_formats()] == registry.format_names()


def test_the_format_of_the_page_is_found_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [source] = re.findall(r"^```python file=pair_format\.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "pair_format.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    installed = [EntryPoint("pair", "pair_format", registry.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(
        registry, "entry_points", lambda group: installed if group == registry.ENTRY_POINT_GROUP else []
    )
    rows = [{"sampler": [-1.0, -0.5], "trainer": [-1.1, -0.5], "step": step} for step in range(4)]
    lines = [json.dumps(row) for row in [*rows, {"sampler": [-1.0], "trainer": "none"}]]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    log = open_logs([tmp_path / "logs"])
    assert log.format.name == "pair"
    found, rejected, _ = read_all(log)
    assert found["step"].to_pylist() == [0, 1, 2, 3]
    assert rejected == {"trainer is no list": 1}
    assert analyze([tmp_path / "logs"], AnalysisSettings(), processes=1).counts.tokens == 8
