"""Batches of tasks that share one loaded engine are those of an engine that was loaded with these options."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_engine import PREFILL, ROLLOUT, Load, Records, by_id, prompts, roll, to_score
from tiny_models import save_model

from mismatchscope.composition import BatchComposition
from mismatchscope.engines.runtime.batching import plan_batches
from mismatchscope.engines.runtime.job import Job
from mismatchscope.engines.runtime.launcher import job_for, run_job
from mismatchscope.engines.spec import parse_spec
from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.errors import ModelError, WorkerError
from mismatchscope.records import Request, finished_parts, read_part, write_requests

SEQUENCES = 9
IDS = tuple(request.sequence_id for request in prompts(SEQUENCES))
EXPLICIT = ((IDS[4],), (IDS[8], IDS[0], IDS[3]), (IDS[1], IDS[2], IDS[5], IDS[6], IDS[7]))

COMPOSITIONS = {
    "alone": BatchComposition(1),
    "pairs": BatchComposition(2),
    "eights": BatchComposition(8, padding="right"),
    "left": BatchComposition(4, padding="left"),
    "packed": BatchComposition(4, padding="packed"),
    "longest first": BatchComposition(4, order="length"),
    "shuffled": BatchComposition(4, shuffle_seed=3),
    "explicit": BatchComposition(batches=EXPLICIT),
}
"""Prefills that one loaded engine makes of the same sequences."""

OPTIONS = {
    "alone": {"batch_size": 1},
    "pairs": {"batch_size": 2},
    "eights": {"batch_size": 8, "padding": "right"},
    "left": {"batch_size": 4, "padding": "left"},
    "packed": {"batch_size": 4, "padding": "packed"},
    "longest first": {"batch_size": 4, "order": "length"},
}
"""Of engines that are loaded for one of them each."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In bfloat16, and wide enough that another batch rounds otherwise."""
    return save_model(tmp_path_factory.mktemp("wide") / "model", hidden_size=512, num_hidden_layers=1)


@pytest.fixture(scope="module")
def requests(load: Load) -> list[Request]:
    """Sequences to score, of several lengths."""
    made = to_score(roll(load(), ROLLOUT, prompts(SEQUENCES)))
    assert len({len(request.response_token_ids) for request in made}) > 2
    return made


def job(directory: Path, model: Path, requests: list[Request], *names: str) -> Job:
    """A prefill of each of these compositions, in one loaded engine."""
    write_requests(directory / "requests", requests)
    task = replace(PREFILL, requests=str(directory / "requests"))
    tasks = [
        replace(task, name=name, parts=str(directory / name), composition=COMPOSITIONS[name]) for name in names
    ]
    return job_for(parse_spec("transformers:dtype=bfloat16"), str(model), tasks)


def loaded(model: Path, **options: Any) -> TransformersEngine:
    engine = TransformersEngine(str(model), TransformersOptions(**{"dtype": "bfloat16"} | options))
    engine.load()
    return engine


def parts_of(directory: Path) -> Records:
    return {sequence_id: read_part(path) for sequence_id, path in finished_parts(directory).items()}


def assert_same_bits(left: Records, right: Records) -> None:
    assert left.keys() == right.keys() == set(IDS)
    for sequence_id, record in left.items():
        seen, other = record.observed, right[sequence_id].observed
        np.testing.assert_array_equal(seen.logprob_T, other.logprob_T)
        np.testing.assert_array_equal(seen.full_logprobs_RV, other.full_logprobs_RV)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, model: Path, requests: list[Request]) -> dict[str, Records]:
    events: list[str] = []
    directory = tmp_path_factory.mktemp("one-job")
    run_job(
        job(directory, model, requests, *COMPOSITIONS),
        log_path=directory / "log",
        on_event=lambda event: events.append(event["event"]),
    )
    assert events.count("ready") == 1, "the model is loaded once"
    return {name: parts_of(directory / name) for name in COMPOSITIONS}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_task_gives_what_an_engine_with_these_options_gives(
    model: Path, requests: list[Request], scored: dict[str, Records], name: str
) -> None:
    engine = loaded(model, **OPTIONS[name])
    batches = plan_batches(requests, engine.default_composition)
    records = by_id(record for batch in batches for record in engine.score(batch, PREFILL))
    assert_same_bits(scored[name], records)
    index = {request.sequence_id: number for number, batch in enumerate(batches) for request in batch}
    assert {sequence_id: record.batch for sequence_id, record in scored[name].items()} == index


@pytest.mark.slow
def test_batches_change_the_numbers_of_this_model(scored: dict[str, Records]) -> None:
    """Or the test above could not fail."""
    digests = {
        name: tuple(records[i].observed.full_logprobs_RV.tobytes() for i in IDS) for name, records in scored.items()
    }
    assert len({digests[name] for name in ("alone", "eights", "left", "packed")}) == 4


@pytest.mark.slow
def test_the_batch_of_a_record_says_the_composition(scored: dict[str, Records]) -> None:
    for name, size in (("alone", 1), ("pairs", 2), ("eights", 8), ("left", 4)):
        assert [scored[name][sequence_id].batch for sequence_id in IDS] == [row // size for row in range(SEQUENCES)]
    for number, batch in enumerate(EXPLICIT):
        assert {scored["explicit"][sequence_id].batch for sequence_id in batch} == {number}


@pytest.mark.slow
def test_neighbours_and_their_order_are_the_given_ones(
    requests: list[Request], scored: dict[str, Records], model: Path
) -> None:
    """The engine itself, handed these batches row by row."""
    engine = loaded(model)
    asked = {request.sequence_id: request for request in requests}
    records: Records = {}
    for batch in EXPLICIT:
        records |= by_id(engine.score([asked[sequence_id] for sequence_id in batch], PREFILL))
    assert_same_bits(scored["explicit"], records)
    alone = BatchComposition(batches=((IDS[4],),))
    [record] = engine.score([asked[IDS[4]]], replace(PREFILL, composition=alone))
    np.testing.assert_array_equal(record.observed.logprob_T, scored["alone"][IDS[4]].observed.logprob_T)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_batches(
    tmp_path: Path, model: Path, requests: list[Request], scored: dict[str, Records]
) -> None:
    made, pid = job(tmp_path, model, requests, "explicit", "packed", "shuffled"), 0

    def kill(event: dict[str, Any]) -> None:
        nonlocal pid
        pid = event.get("pid", pid)
        if event["event"] == "sequence" and event["task"] == "packed" and event["done"] == 2:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerError):
        run_job(made, log_path=tmp_path / "log", on_event=kill)
    assert 2 <= len(finished_parts(tmp_path / "packed")) < SEQUENCES
    (tmp_path / "explicit" / f"{EXPLICIT[1][1]:09d}.safetensors").unlink()
    run_job(made, log_path=tmp_path / "log", on_event=lambda event: None)
    for name in ("explicit", "packed", "shuffled"):
        resumed = parts_of(tmp_path / name)
        assert_same_bits(resumed, scored[name])
        for sequence_id, record in resumed.items():
            assert record.batch == scored[name][sequence_id].batch


@pytest.mark.slow
def test_a_model_that_mixes_packed_sequences_is_refused_when_a_task_packs_them(
    load: Load, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load()
    monkeypatch.setattr(engine._lm, "_packing_checked", False)
    hidden = engine._lm.hidden

    def mixed(*inputs: Any) -> Any:
        return hidden(*inputs).cumsum(dim=1)  # every state sees all before it

    monkeypatch.setattr(engine._lm, "hidden", mixed)
    engine.check(requests, PREFILL)
    with pytest.raises(ModelError, match="packed"):
        engine.check(requests, replace(PREFILL, composition=BatchComposition(padding="packed")))
