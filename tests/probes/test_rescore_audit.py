"""Faults that were planted in the behaviour, and the candidate on the reference's side that closes the gap."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from mismatchscope.diagnosis.candidates import Family
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import CapabilityError
from mismatchscope.measures.results import Interval
from mismatchscope.probes import run_probe
from mismatchscope.probes.confirm import rescore_audit
from mismatchscope.probes.confirm.candidates import Subject, trials
from mismatchscope.probes.confirm.case import Case
from mismatchscope.probes.confirm.found import NONE
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
        scorer = Scorer(
            drawn,
            subject.spec,
            self.model,
            None,
            temperature,
            self.directory / "rescore",
            lambda event: None,
            run_here,
        )
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

    drawn = planted.drawn()
    with_bos = prompts_changed(drawn, tmp_path / "with", begun)
    score_trace(
        with_bos.path,
        tmp_path / "sampler",
        ScoreSettings(ENGINE, planted.model, role="behavior"),
        on_event=lambda event: None,
        run=run_here,
    )
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
    assert (len(found.found), found.not_tried, found.causes) == (1, 2, [])
    assert found.sentence.startswith("The one candidate that was scored on the reference's side does not close")
    assert "there was no time for 2 more" in found.sentence


def subject(**changes: Any) -> Subject:
    config = {
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
        "sliding_window": 64,
    }
    known: Any = {
        "spec": parse_spec("transformers:adapter=there"),
        "model": "m",
        "config": config,
        "sampling": Sampling(top_p=0.9, top_k=20),
        "temperature": 1.0,
        "longest": 300,
    }
    return Subject(**known | changes)


def test_candidates_are_those_that_the_model_and_the_run_have() -> None:
    names = [trial.of.name for trial in trials(subject())]
    assert {"rms_norm_eps", "rope_theta", "factor of the yarn rotary scaling", "no rotary scaling"} <= set(names)
    assert {"sliding_window", "top_p = 0.9, top_k = 20", "the base without its adapter"} <= set(names)
    bare = {trial.of.name for trial in trials(subject(config={}, sampling=Sampling(), spec=parse_spec(ENGINE)))}
    assert set(names) - bare == {
        "rms_norm_eps",
        "rope_theta",
        "factor of the yarn rotary scaling",
        "no rotary scaling",
        "sliding_window",
        "top_p = 0.9, top_k = 20",
        "the base without its adapter",
    }


def test_the_raw_policy_has_no_candidate_of_the_sampler() -> None:
    raw = {trial.cause for trial in trials(subject(sampling=Sampling(), temperature=None))}
    assert {trial.cause for trial in trials(subject())} - raw == {"temperature", "truncation"}


def test_candidates_of_suspected_causes_come_first() -> None:
    causes = [trial.cause for trial in trials(subject(), ["norm", "fp8_cache"])]
    assert causes[:2] == ["norm", "fp8_cache"]
    assert sorted(causes) == sorted(trial.cause for trial in trials(subject()))


def test_a_window_has_the_model_s_own_size_and_none_among_its_values() -> None:
    (window,) = (trial for trial in trials(subject()) if trial.cause == "window")
    assert isinstance(window.of, Family)
    assert {64.0, 300.0, 128.0} <= set(window.of.values) and max(window.of.values) == 300
    assert window.of.own == 64


def test_a_change_is_merged_into_what_the_spec_has() -> None:
    spec = parse_spec('transformers:hf_overrides={"rope_parameters":{"rope_type":"default"}},attention_scale=2')
    by_name = {trial.of.name: trial for trial in trials(subject(spec=spec, adapter="there"))}
    applied = by_name["rope_theta"].change(5e5).applied(spec)
    assert (
        applied.options["hf_overrides"] == '{"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}'
    )
    assert by_name["attention scale"].of.own == 2
    assert by_name["the base without its adapter"].change(0).applied(spec).options["adapter"] == "none"
    inner = {"text_config": {"rms_norm_eps": 1e-6}}
    (norm,) = (trial for trial in trials(subject(config=inner)) if trial.cause == "norm")
    assert norm.change(0.1).overrides == {"text_config": {"rms_norm_eps": 0.1}}


@pytest.mark.parametrize("spec", ["vllm", "synthetic", "vllm@http://127.0.0.1:1"])
def test_another_reference_computes_no_candidates(spec: str) -> None:
    with pytest.raises(CapabilityError, match="Candidates are computed by transformers"):
        trials(subject(spec=parse_spec(spec)))


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
