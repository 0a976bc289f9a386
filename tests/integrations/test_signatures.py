"""A trainer whose functions have moved is refused when a hook is attached, with what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from mismatchscope.errors import UsageError
from mismatchscope.integrations.signatures import required


class Trainer:
    def update(self, data: Any, step: int = 0) -> None: ...

    def wrapped(self, *args: Any, **kwargs: Any) -> None: ...

    def others(self, data: Any, **kwargs: Any) -> None: ...

    value = 3


@pytest.mark.parametrize("name", ["update", "wrapped"])
def test_what_is_there_is_returned(name: str) -> None:
    trainer = Trainer()
    assert required(trainer, name, ("data", "step"), "X", "X 1") == getattr(trainer, name)
    assert required(Trainer, name, ("data",), "X", "X 1") is getattr(Trainer, name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone", "This X has no Trainer.gone, so nothing could be recorded."),
        ("value", "This X has no Trainer.value, so nothing could be recorded."),
        ("update", "Trainer.update of this X takes no batch, so nothing could be recorded."),
        ("others", "Trainer.others of this X takes no batch, so nothing could be recorded."),
    ],
)
def test_what_is_not_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(UsageError) as found:
        required(Trainer(), name, ("data", "batch"), "X", "X 1.2")
    assert found.value.message == sentence and "X 1.2" in found.value.hint
