"""The rows of a worker that has old weights, scored with the present checkpoint and with the old one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process import run_here
from tiny_models import save_model, save_older

from mismatchscope.collection.single_trace import sample_trace, score_trace
from mismatchscope.config import AuditSettings
from mismatchscope.probes.confirm import log_case, rescore_log
from mismatchscope.probes.confirm.log_case import LogCase
from mismatchscope.probes.confirm.reference_changes import Subject, trials
from mismatchscope.probes.confirm.rescore import confirm_log
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
        sample_trace(settings, directory / worker, on_event=lambda event: None, run=run_here)
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


def test_the_checkpoint_of_a_stale_worker_is_proved(
    sampled: Trace, present: str, old: str, tmp_path: Path, in_process: None
) -> None:
    found = confirm_log(case(sampled, present, {"before": old}, tmp_path), ["worker"])
    assert found.cause == "worker"
    assert found.proof is not None
    assert (found.proof.change, found.proof.floor is not None) == ("before", True)
    assert (found.proof.after.high or 1) < 0.01 * (found.proof.before.low or 0)
    assert found.sentence.startswith("Proved: with the weights of before the gap of these responses falls from ")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores without processes of their own, and of the candidates a few."""
    names = ("attention scale", "keys")

    def few(subject: Subject, suspected: Any = ()) -> Any:
        return [trial for trial in trials(subject, suspected) if trial.of.name.startswith(names)]

    monkeypatch.setattr(log_case, "score_trace", functools.partial(score_trace, run=run_here))
    monkeypatch.setattr(rescore_log, "ResidentWorker", lambda log_path: nullcontext(run_here))
    monkeypatch.setattr(rescore_log, "trials", few)


def test_another_checkpoint_than_the_one_that_was_used_closes_nothing(
    sampled: Trace, present: str, tmp_path: Path, in_process: None
) -> None:
    found = confirm_log(case(sampled, present, {present: present}, tmp_path), ["worker"])
    assert (found.cause, found.proof) == (None, None)
    assert found.sentence.startswith("Cannot tell: 1 other checkpoint and 3 candidates tried, and none closes")
    assert (found.steps[-1].experiment, found.steps[-1].status, found.steps[-1].result) == (
        "rescore",
        "unclear",
        "none",
    )


@pytest.mark.parametrize("suspected", [["worker"], ["temperature"]])
def test_a_scale_of_attention_that_the_sampler_had_is_proved(
    present: str, tmp_path: Path, in_process: None, suspected: list[str]
) -> None:
    """All responses have it, so that there is no floor of others."""
    settings = AuditSettings(
        model=present,
        behavior=f"{ENGINE},attention_scale=1.3",
        reference=ENGINE,
        limit=4,
        evidence="sampled",
        sampling={"samples": 1, "max_new_tokens": 32},
    )
    sample_trace(settings, tmp_path / "drawn", on_event=lambda event: None, run=run_here)
    drawn = Trace.open(tmp_path / "drawn")
    logged = Manifest(
        engine="log", role="behavior", policy="processed", path="rollout", evidence=Evidence("sampled"), created=""
    )
    write_records(tmp_path / "logged", logged, drawn.records())
    of_log = case(Trace.open(tmp_path / "logged"), present, {}, tmp_path)
    found = confirm_log(replace(of_log, affected=frozenset(range(4))), suspected)
    assert found.cause == "attention_scale" and found.proof is not None
    assert found.sentence.startswith("Proved: another scale, soft cap or sink of the attention scores. ")
    assert "With attention scale = 1." in found.sentence and "on the reference's side the gap of" in found.sentence
    assert (found.proof.after.high or 1) < 0.1 * (found.proof.before.low or 0)
    assert found.withdrawn == (suspected == ["temperature"])
