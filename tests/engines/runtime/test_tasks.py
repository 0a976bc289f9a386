"""Tasks of one loaded engine, each with batches of its own; and those that are refused before it loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mismatchscope.composition import BatchComposition
from mismatchscope.engines.runtime.job import Job
from mismatchscope.engines.runtime.launcher import run_job
from mismatchscope.errors import CapabilityError, ConfigError, MismatchScopeError
from mismatchscope.records import Evidence, Request, Task, finished_parts, read_part, write_requests

SHUFFLED = BatchComposition(batch_size=4, shuffle_seed=1)
EXPLICIT = BatchComposition(batches=((6,), (2, 0, 4), (1, 3, 5)))


def job(path: Path, **compositions: BatchComposition) -> Job:
    """A rollout of seven sequences in batches of 3, which is the toy engine's, and a score of each composition."""
    write_requests(path / "requests", [Request(i, i, prompt=f"p{i}") for i in range(7)])
    sampled = Evidence("sampled")
    tasks = [Task("rollout", "rollout", str(path / "requests"), str(path / "rollout"), sampled)]
    tasks += [
        Task(name, "score", "task:rollout", str(path / name), sampled, composition=composition)
        for name, composition in compositions.items()
    ]
    return Job("toy_engine:ToyEngine", "m", {}, tasks)


def run(made: Job, path: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    run_job(made, log_path=path / "log", on_event=events.append)
    return events


def batches(directory: Path) -> dict[int, list[int]]:
    """The sequences of every batch, in the order of its rows, by the index that is recorded."""
    records = [read_part(path) for path in finished_parts(directory).values()]
    seen = {record.batch: record.extra["neighbours"] for record in records}
    for record in records:
        assert record.sequence_id in seen[record.batch] == record.extra["neighbours"]
    return dict(sorted(seen.items()))


def test_every_task_has_batches_of_its_own(tmp_path: Path) -> None:
    compositions = {"alone": BatchComposition(1), "pairs": BatchComposition(2), "explicit": EXPLICIT}
    events = run(job(tmp_path, **compositions, shuffled=SHUFFLED), tmp_path)
    assert [event["event"] for event in events].count("ready") == 1
    assert batches(tmp_path / "rollout") == {0: [0, 1, 2], 1: [3, 4, 5], 2: [6]}
    assert batches(tmp_path / "alone") == {i: [i] for i in range(7)}
    assert batches(tmp_path / "pairs") == {0: [0, 1], 1: [2, 3], 2: [4, 5], 3: [6]}
    assert batches(tmp_path / "explicit") == {0: [6], 1: [2, 0, 4], 2: [1, 3, 5]}
    shuffled = batches(tmp_path / "shuffled")
    assert [len(ids) for ids in shuffled.values()] == [4, 3]
    assert sorted(shuffled[0] + shuffled[1]) == list(range(7)) != shuffled[0] + shuffled[1]


@pytest.mark.parametrize("composition", [EXPLICIT, SHUFFLED], ids=["explicit", "shuffled"])
def test_what_is_missing_is_made_again_among_the_same_neighbours(
    tmp_path: Path, composition: BatchComposition
) -> None:
    made = job(tmp_path, score=composition)
    run(made, tmp_path)
    before = {path: path.read_bytes() for path in finished_parts(tmp_path / "score").values()}
    whole = batches(tmp_path / "score")
    for sequence_id in (0, 6):
        finished_parts(tmp_path / "score")[sequence_id].unlink()
    events = run(made, tmp_path)
    assert sorted(event["sequence_id"] for event in events if event["event"] == "sequence") == [0, 6]
    assert batches(tmp_path / "score") == whole
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("composition", "error", "says"),
    [
        (BatchComposition(padding="packed"), CapabilityError, "toy has no padding packed: it lays its batches out"),
        (BatchComposition(batches=((0, 1, 2),)), ConfigError, r"lack 3, 4, 5, 6 \(4 in all\)"),
        (BatchComposition(batches=(tuple(range(9)),)), ConfigError, r"does not have, 7, 8 \(2 in all\)"),
    ],
)
def test_a_composition_that_cannot_be_is_refused_before_the_engine_loads(
    tmp_path: Path, composition: BatchComposition, error: type[MismatchScopeError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        run(job(tmp_path, score=composition), tmp_path)
    assert type(caught.value) is error and caught.value.exit_code == 2 and caught.value.hint
    assert "printed by Python" not in (tmp_path / "log").read_text()


def test_a_task_that_decodes_has_no_padding_to_choose(tmp_path: Path) -> None:
    made = job(tmp_path)
    padded = replace(made.tasks[0], name="t", composition=BatchComposition(padding="left"))
    with pytest.raises(CapabilityError, match="layout of a prefill; the task t decodes"):
        run(Job("mismatchscope.engines.transformers.engine:TransformersEngine", "m", {}, [padded]), tmp_path)


@pytest.mark.parametrize("inputs", ["", "of another side"])
def test_an_engine_that_shows_no_inside_refuses(tmp_path: Path, inputs: str) -> None:
    made = job(tmp_path)
    inside = Task("inside", "internals", "task:rollout", str(tmp_path / "inside"), inputs=inputs)
    with pytest.raises(CapabilityError, match="does not show what is inside its model"):
        run(replace(made, tasks=[*made.tasks, inside]), tmp_path)


def test_an_engine_that_takes_no_other_values_scores_without(tmp_path: Path) -> None:
    made = job(tmp_path)
    parts = str(tmp_path / "replay")
    given = Task("replay", "score", "task:rollout", parts, Evidence("sampled"), inputs="of another side")
    with pytest.raises(CapabilityError, match="takes no values of another side as it prefills"):
        run(replace(made, tasks=[*made.tasks, given]), tmp_path)
