from __future__ import annotations

from pathlib import Path

import pytest
from offline import forking

from mismatchscope.collection import collector
from mismatchscope.engines.spec import EngineSpec
from mismatchscope.environments import interpreter
from mismatchscope.probes import weights


@pytest.fixture
def forked_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine with an environment of its own is forked from a process that has imported it, as those of the
    session's other tests are: importing one takes as long as all that a small probe has it do."""

    def forked(spec: EngineSpec) -> str | None:
        python = interpreter(spec)
        return python if python is None else str(forking(Path(python), spec.name))

    for module in (collector, weights):
        monkeypatch.setattr(module, "interpreter", forked)
