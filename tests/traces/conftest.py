from __future__ import annotations

from pathlib import Path

import pytest
from builders import manifest, records
from trace_contents import LENGTHS

from mismatchscope.records import write_part
from mismatchscope.traces import create


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A run that has ended and is not packed yet, with what a killed worker leaves behind."""
    path = create(tmp_path / "trace", manifest())
    for each in records(LENGTHS, raw=True):
        write_part(path / "parts", each)
    (path / "parts" / ".000000099.safetensors.17.tmp").write_bytes(b"half a sequ")
    return path
