"""The rows of a worker that has old weights, scored with the present checkpoint and with the old one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_model, save_older

from mismatchscope.collection.single_trace import sample_trace
from mismatchscope.config import AuditSettings
from mismatchscope.probes.confirm.rescore import LogCase, confirm_log
from mismatchscope.records import Evidence, SequenceRecord
from mismatchscope.traces.reader import Trace
from mismatchscope.traces.schema import Manifest
from mismatchscope.traces.store import write_records

pytestmark = pytest.mark.slow

ENGINE = "transformers:dtype=float32"
STALE = "1"
PROMPTS = 8


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("present")
    save_model(directory)
    return str(directory)


@pytest.fixture(scope="module")
def old(present: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_older(Path(present), tmp_path_factory.mktemp("old") / "checkpoint"))


@pytest.fixture(scope="module")
def sampled(present: str, old: str, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """What two workers sampled: one with the present weights, the other with the old ones."""
    directory = tmp_path_factory.mktemp("log")
    traces = []
    for worker, model in (("0", present), (STALE, old)):
        sampling: Any = {"samples": 1, "max_new_tokens": 24}
        settings = AuditSettings(
            model=model, behavior=ENGINE, reference=ENGINE, limit=PROMPTS, evidence="sampled", sampling=sampling
        )
        sample_trace(settings, directory / worker, on_event=lambda event: None)
        traces.append(Trace.open(directory / worker))

    def records() -> Iterator[SequenceRecord]:
        number = 0
        for worker, trace in zip(("0", STALE), traces, strict=True):
            for record in trace.records():
                yield replace(record, sequence_id=number, prompt_id=number, worker=worker)
                number += 1

    manifest = Manifest(
        engine="log", role="behavior", policy="processed", path="rollout", evidence=Evidence("sampled"), created=""
    )
    write_records(directory / "sampled", manifest, records())
    return Trace.open(directory / "sampled")


def case(sampled: Trace, model: str, candidates: dict[str, str], directory: Path) -> LogCase:
    return LogCase(
        sampled,
        frozenset(range(PROMPTS, 2 * PROMPTS)),
        model,
        candidates,
        ENGINE,
        directory,
        lambda event: None,
    )


def test_the_checkpoint_of_a_stale_worker_is_proved(sampled: Trace, present: str, old: str, tmp_path: Path) -> None:
    found = confirm_log(case(sampled, present, {"before": old}, tmp_path), ["worker"])
    assert found.cause == "worker"
    assert found.proof is not None
    assert (found.proof.change, found.proof.floor is not None) == ("before", True)
    assert (found.proof.after.high or 1) < 0.01 * (found.proof.before.low or 0)
    assert found.sentence.startswith("Proved: with the weights of before the gap of these responses falls from ")


def test_another_checkpoint_than_the_one_that_was_used_closes_nothing(
    sampled: Trace, present: str, tmp_path: Path
) -> None:
    found = confirm_log(case(sampled, present, {present: present}, tmp_path), ["worker"])
    assert (found.cause, found.proof) == (None, None)
    assert found.sentence.startswith("Cannot tell: 1 other checkpoint tried")
