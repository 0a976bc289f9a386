"""The candidates that a model and a run have, what each changes of the reference's side, and the command for it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from in_process import run_here
from written_traces import sampled_trace

from mismatchscope.diagnosis.candidates import Family
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import CapabilityError
from mismatchscope.probes.confirm.reference_changes import Change, Subject, trials
from mismatchscope.probes.confirm.scoring import Scorer
from mismatchscope.probes.other_contexts import Bos
from mismatchscope.records import Sampling
from mismatchscope.traces.reader import Trace


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
    bare = {
        trial.of.name for trial in trials(subject(config={}, sampling=Sampling(), spec=parse_spec("transformers")))
    }
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
    spec = parse_spec(
        'transformers:hf_overrides={"rope_parameters":{"rope_type":"default"}},attention_scale=2,adapter=there'
    )
    by_name = {trial.of.name: trial for trial in trials(subject(spec=spec))}
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


@pytest.mark.parametrize(
    ("change", "temperature", "more"),
    [
        (Change(), 1.0, []),
        (Change(), 0.7, ["--temperature", "0.7"]),
        (Change(temperature=0.8), 1.0, ["--temperature", "0.8"]),
        (Change(as_sampler=True), 1.0, ["--role", "behavior"]),
        (Change(tokens=Bos(2)), 1.0, []),
    ],
)
def test_a_command_scores_the_same_tokens_under_the_same_change(
    tmp_path: Path, change: Change, temperature: float, more: list[str]
) -> None:
    drawn = sampled_trace(tmp_path / "a b", [[-1.0, -2.0], [-1.5]])
    scorer = Scorer(drawn, subject(temperature=temperature), tmp_path / "rescore", lambda event: None, run_here)
    tokens = str(drawn.path) if change.tokens is None else str(tmp_path / "rescore" / "tokens-0")
    engine = ["--engine", "transformers:adapter=there", "--model", "m"]
    assert shlex.split(scorer.command(change)) == ["mismatchscope", "score", tokens, *engine, *more, "-o", "scored"]
    if change.tokens is not None:
        lengths = [len(each.prompt_token_ids) for each in Trace.open(Path(tokens)).records()]
        assert lengths == [len(each.prompt_token_ids) + 1 for each in drawn.records()]
