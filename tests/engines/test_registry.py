from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from mismatchscope.engines import registry
from mismatchscope.engines.base import Engine, Options
from mismatchscope.errors import SpecError


@pytest.mark.parametrize("name", registry.ENGINES)
def test_an_engine_answers_to_its_name(name: str) -> None:
    engine = registry.engine_class(name)
    assert issubclass(engine, Engine)
    assert engine.name == name
    assert issubclass(engine.options_type, Options)


@pytest.mark.parametrize("name", registry.ENGINES)
def test_importing_an_engine_imports_no_framework(name: str) -> None:
    heavy = ("torch", "transformers", "vllm", "sglang", "pandas", "pyarrow", "scipy", "pydantic")
    program = (
        "import sys; from mismatchscope.engines.registry import engine_class; "
        f"engine_class({name!r}); print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_engine_is_a_usage_error() -> None:
    with pytest.raises(SpecError) as caught:
        registry.engine_class("tranformers")
    assert caught.value.hint == "did you mean transformers?"
    with pytest.raises(SpecError) as caught:
        registry.engine_class("zzz")
    assert "synthetic" in caught.value.hint


def test_another_package_may_register_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [
        EntryPoint("toy", "toy_engine:ToyEngine", registry.ENTRY_POINT_GROUP),
        EntryPoint("synthetic", "toy_engine:ToyEngine", registry.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(
        registry, "entry_points", lambda group: installed if group == registry.ENTRY_POINT_GROUP else []
    )
    assert registry.engine_class("toy").name == "toy"
    assert registry.engine_names()[-1] == "toy"
    assert registry.engine_class("synthetic").name == "synthetic", "ours cannot be replaced from outside"
