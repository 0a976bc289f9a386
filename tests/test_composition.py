"""A composition: what a task decides of its batches, and what it leaves to the engine."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mismatchscope.composition import BatchComposition
from mismatchscope.errors import ConfigError
from mismatchscope.records import Task

DEFAULT = BatchComposition(batch_size=32, order="length", padding="right")


@pytest.mark.parametrize(
    ("composition", "expected"),
    [
        (BatchComposition(), DEFAULT),
        (BatchComposition(batch_size=2), BatchComposition(2, "length", None, "right")),
        (BatchComposition(order="given", shuffle_seed=0), BatchComposition(32, "given", 0, "right")),
        (BatchComposition(padding="packed"), BatchComposition(32, "length", None, "packed")),
        (BatchComposition(batches=((1, 2), (3,))), BatchComposition(padding="right", batches=((1, 2), (3,)))),
    ],
)
def test_what_is_left_open_is_the_engines(composition: BatchComposition, expected: BatchComposition) -> None:
    assert composition.over(DEFAULT) == expected


def test_the_settings_are_what_was_decided() -> None:
    assert BatchComposition(shuffle_seed=3).settings() == {}
    assert BatchComposition(4, padding="left").settings() == {"batch_size": 4, "padding": "left"}
    assert DEFAULT.settings() == {"batch_size": 32, "order": "length", "padding": "right"}
    assert BatchComposition(batches=((1,), (2, 3))).settings() == {"batch_size": 2, "order": "explicit"}


@pytest.mark.parametrize(
    "composition",
    [BatchComposition(), BatchComposition(2, "length", 7, "packed"), BatchComposition(batches=((4, 2), (9,)))],
)
def test_a_task_takes_its_composition_to_the_worker(composition: BatchComposition) -> None:
    task = Task("t", "score", "requests", "parts", composition=composition)
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_ids_of_any_kind_of_integer_are_taken() -> None:
    composition = BatchComposition(batches=[np.array([3, 1]), [2]])
    assert composition == BatchComposition(batches=((3, 1), (2,)))
    json.dumps(Task("t", "score", "requests", "parts", composition=composition).to_json())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"batch_size": 0}, "one sequence or more"),
        ({"batch_size": -3}, "one sequence or more"),
        ({"batches": ((1,), ())}, "one sequence or more"),
        ({"batches": ((1,),), "batch_size": 1}, "leave nothing"),
        ({"batches": ((1,),), "order": "given"}, "leave nothing"),
        ({"batches": ((1,),), "shuffle_seed": 0}, "leave nothing"),
    ],
)
def test_a_composition_that_contradicts_itself(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        BatchComposition(**wrong)
    assert caught.value.hint
