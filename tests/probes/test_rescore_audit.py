"""Faults that were planted in the behaviour, and the candidate on the reference's side that closes the gap."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from in_process import run_here
from tiny_models import save_model

from mismatchscope.collection.collector import Collector
from mismatchscope.collection.single_trace import ScoreSettings, sample_trace, score_trace
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.floors import NO_NOISE
from mismatchscope.comparison.pair import measure_pair
from mismatchscope.comparison.token_evidence import evidence_of
from mismatchscope.config import AuditSettings
from mismatchscope.diagnosis.candidates import Candidate, Tried
from mismatchscope.diagnosis.statistics.stat import Stat
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import CapabilityError
from mismatchscope.measures.results import Interval
from mismatchscope.probes import run_probe
from mismatchscope.probes.confirm import rescore_audit
from mismatchscope.probes.confirm.case import Case
from mismatchscope.probes.confirm.found import NONE, UNCLEAR
from mismatchscope.probes.confirm.reference_changes import Change, Subject, trials
from mismatchscope.probes.confirm.scoring import Rescored, Scorer, rescored
from mismatchscope.records import Sampling, SequenceRecord
from mismatchscope.traces.reader import Trace
from mismatchscope.traces.store import write_records

ENGINE = "transformers:dtype=float32,device=cpu"
BOS = 5
GAP = Interval(0.01, 0.009, 0.011, clusters=8)
WINDOW = '"use_sliding_window":true,"sliding_window":16,"layer_types":["sliding_attention","sliding_attention"]'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("model"), bos_token_id=BOS, max_position_embeddings=512))


@dataclass
class Planted:
    """Makes a behaviour with a fault, and puts candidates to the test."""

    model: str
    directory: Path

    def drawn(self, fault: str = "", **sampling: Any) -> Trace:
        spec = f"{ENGINE},{fault}" if fault else ENGINE
        settings = AuditSettings(
            model=self.model,
            behavior=spec,
            reference=ENGINE,
            limit=4,
            evidence="sampled",
            sampling={"samples": 1, "max_new_tokens": 32} | sampling,
        )
        sample_trace(settings, self.directory / "drawn", on_event=lambda event: None, run=run_here)
        return Trace.open(self.directory / "drawn")

    def rescored(self, drawn: Trace, *names: str, temperature: float = 1.0, late: Any = None) -> Rescored:
        """Under the candidates whose names begin so."""
        path = self.directory / "reference"
        settings = ScoreSettings(ENGINE, self.model, temperature=temperature)
        score_trace(drawn.path, path, settings, on_event=lambda event: None, run=run_here)
        reference = Trace.open(path)
        pair = measure_pair(drawn, reference, Context.of(drawn, reference, None))
        sampling = Sampling(**vars(drawn.manifest.sampling or Sampling()))
        config = reference.manifest.model.config or {}
        longest = max(len(each.prompt_token_ids) + len(each.response_token_ids) for each in drawn.records())
        subject = Subject(parse_spec(ENGINE), self.model, config, sampling, temperature, longest)
        scorer = Scorer(drawn, subject, self.directory / "rescore", lambda event: None, run_here)
        chosen = [trial for trial in trials(subject) if trial.of.name.startswith(names)]
        assert chosen
        evidence = evidence_of(pair, NO_NOISE, [])
        return rescored(scorer, evidence, chosen, late or (lambda: False))


@pytest.fixture
def planted(model: str, tmp_path: Path) -> Planted:
    return Planted(model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "sampling", "names", "cause", "value"),
    [
        ('hf_overrides={"rope_parameters":{"rope_theta":13100}}', {}, ("rope_theta",), "rope", 13_100),
        (f"hf_overrides={{{WINDOW}}}", {}, ("sliding", "keys"), "window", 16),
        ("weight_quantization=fp8_per_channel", {}, ("weights",), "fp8_weights", None),
        ("kv_cache_dtype=fp8", {}, ("keys", "weights"), "fp8_cache", None),
        ("", {"temperature": 0.8}, ("temperature", "keys"), "temperature", 0.8),
        ("", {"top_p": 0.7}, ("top_p", "keys"), "truncation", None),
    ],
    ids=["rope", "window", "fp8 weights", "fp8 cache", "temperature", "top-p"],
)
def test_the_candidate_that_was_planted_closes_the_gap(
    planted: Planted, fault: str, sampling: dict[str, Any], names: tuple[str, ...], cause: str, value: float | None
) -> None:
    found = planted.rescored(planted.drawn(fault, **sampling), *names)
    assert found.causes == [cause]
    best = found.closing[0]
    assert best.candidate.value == (None if value is None else pytest.approx(value, rel=0.01))
    assert best.left.value is not None and found.before.value is not None
    assert best.left.value < 0.05 * found.before.value
    assert found.sentence.startswith(f"With {best.candidate} on the reference's side R falls from ")


@pytest.mark.slow
def test_a_cache_that_prefill_does_not_read_is_none_of_the_first_token_s(planted: Planted, tmp_path: Path) -> None:
    """A prefill with keys of its own gives the first token of each response, and decoding the others."""
    drawn, as_sampler = planted.drawn("kv_cache_dtype=fp8"), ScoreSettings(ENGINE, planted.model, role="behavior")
    score_trace(drawn.path, tmp_path / "unrounded", as_sampler, on_event=lambda event: None, run=run_here)
    unrounded = {record.sequence_id: record for record in Trace.open(tmp_path / "unrounded").records()}

    def records() -> Iterator[SequenceRecord]:
        for record in drawn.records():
            logprob_T = record.observed.logprob_T.copy()
            logprob_T[0] = unrounded[record.sequence_id].observed.logprob_T[0]
            yield replace(record, observed=replace(record.observed, logprob_T=logprob_T))

    write_records(tmp_path / "decoded", drawn.manifest, records())
    found = planted.rescored(Trace.open(tmp_path / "decoded"), "keys", "weights")
    assert found.causes == ["fp8_cache"]
    assert str(found.closing[0].candidate) == "keys and values in fp8 after the first token"


def prompts_changed(drawn: Trace, directory: Path, change: Any) -> Trace:
    """What was drawn, as if the prompts had been others."""

    def records() -> Iterator[SequenceRecord]:
        for record in drawn.records():
            yield replace(record, prompt_token_ids=change(record.prompt_token_ids))

    write_records(directory, drawn.manifest, records())
    return Trace.open(directory)


@pytest.mark.slow
def test_a_token_at_the_beginning_that_the_other_side_has_is_found(planted: Planted, tmp_path: Path) -> None:
    import numpy as np

    def begun(prompt: Any) -> Any:
        return np.concatenate([[BOS], prompt[1:]]).astype(np.int32)

    drawn, as_sampler = planted.drawn(), ScoreSettings(ENGINE, planted.model, role="behavior")
    with_bos = prompts_changed(drawn, tmp_path / "with", begun)
    score_trace(with_bos.path, tmp_path / "sampler", as_sampler, on_event=lambda event: None, run=run_here)
    seen = prompts_changed(Trace.open(tmp_path / "sampler"), tmp_path / "without", lambda prompt: prompt[1:])
    found = planted.rescored(seen, "BOS", "keys")
    assert found.causes == ["context"]
    assert str(found.closing[0].candidate) == "BOS added"
    assert len(found.refused) == 2  # BOS doubled or missing, where no prompt begins with one
    assert "2 more do not apply" in found.sentence


@pytest.mark.slow
def test_what_closes_nothing_and_what_there_is_no_time_for_is_said(planted: Planted) -> None:
    calls = iter([False, True])
    found = planted.rescored(planted.drawn("attention_scale=1.3"), "keys", "weights", late=lambda: next(calls))
    assert (len(found.found), found.not_tried, found.causes) == (1, 3, [])
    assert found.sentence.startswith("The one candidate that was scored on the reference's side does not close")
    assert "there was no time for 3 more" in found.sentence


def test_a_proof_names_what_was_scored() -> None:
    """The first tokens, too, are scored with the cache by which a candidate leaves them as they are."""
    both = (
        Candidate("fp8_cache", "keys and values in fp8"),
        Candidate("fp8_cache", "after the first token"),
    )
    changes = [Change(options=(("kv_cache_dtype", "fp8"),), after_first=after) for after in (False, True)]
    found = Rescored(
        Stat(4.0, 3.0, 5.0, 100),
        closing=[Tried(both[1], Stat(1.0, 0.9, 1.1, 100))],
        changes=dict(zip(both, changes, strict=True)),
    )
    asked: list[Change] = []

    def mean_tv(change: Change) -> Interval:
        asked.append(change)
        return GAP

    proof = found.proof(cast(Scorer, SimpleNamespace(mean_tv=mean_tv)), GAP)
    assert proof.change == "keys and values in fp8 on the reference's side" and asked == changes[:1]


@pytest.mark.parametrize(
    ("refused", "not_tried", "end"),
    [
        (1, 0, "and no candidate was scored; 1 does not apply or could not be computed."),
        (2, 3, "and no candidate was scored; 2 do not apply or could not be computed; there was no time for 3."),
    ],
)
def test_where_no_candidate_was_scored_there_are_no_more(refused: int, not_tried: int, end: str) -> None:
    found = Rescored(Stat(4.0, 3.0, 5.0, 100), refused=["why"] * refused, not_tried=not_tried)
    assert found.sentence == f"R is 4 floors, {end}" and found.result == UNCLEAR


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_probe, "Collector", functools.partial(Collector, run=run_here))
    monkeypatch.setattr(rescore_audit, "ResidentWorker", lambda log_path: nullcontext(run_here))


def case(model: str, directory: Path, behavior: str, **changes: Any) -> Case:
    known: dict[str, Any] = {"limit": 4, "sampling": {"samples": 1, "max_new_tokens": 40}}
    settings = AuditSettings(model=model, behavior=behavior, reference=ENGINE, **known | changes)
    return Case(settings, directory, GAP, 1e-6, lambda event: None)


@pytest.mark.slow
def test_the_raw_policy_of_an_audit_is_what_is_scored(model: str, tmp_path: Path, in_process: None) -> None:
    """Its sampler cuts off what the reference keeps, and that is no part of this gap."""
    of_raw = case(
        model, tmp_path, ENGINE, sampling={"samples": 1, "max_new_tokens": 24, "top_p": 0.5}, policy="raw"
    )
    found = rescore_audit.rescore(replace(of_raw, deadline=0.0))
    assert found.proof is None
    assert found.sentence.startswith("R is 0.")
    with pytest.raises(CapabilityError, match="ids that the sampler kept"):
        rescore_audit.rescore(case(model, tmp_path, ENGINE, policy="support"))


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "result"), [(",attention_scale=1.3", "attention_scale"), ("", NONE)])
def test_an_experiment_proves_what_was_planted_and_nothing_of_a_sound_pair(
    model: str, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch, fault: str, result: str
) -> None:
    names = ("attention scale", "keys")

    def few(of: Subject, suspected: Any = ()) -> Any:
        return [trial for trial in trials(of, suspected) if trial.of.name.startswith(names)]

    monkeypatch.setattr(rescore_audit, "trials", few)
    found = rescore_audit.rescore(case(model, tmp_path, ENGINE + fault))
    assert found.result == result
    if found.proof is None:
        assert found.sentence.startswith("None of ")
        return
    assert found.proof.change.startswith("attention scale = 1.") and found.proof.change.endswith("reference's side")
    assert (found.proof.after.high or math.inf) < 0.05 * (found.proof.before.low or 0)
    assert "attention_scale=1." in found.command
