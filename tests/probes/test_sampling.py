"""The probe `sampling`: samplers and trainers that are known to part, and what is said of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_runs import codes, probed, settings

from mismatchscope.environments import find
from mismatchscope.errors import ConfigError
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.reports.document import Report
from mismatchscope.reports.figure_paths import check_path, figure_at
from mismatchscope.reports.sampler_fields import SamplerStep
from mismatchscope.traces.reader import Trace

CUT = {"temperature": 0.8, "top_p": 0.8, "top_k": 20}
DRAWS: dict[str, Any] = {"samples": 2, "max_new_tokens": 12}


def steps(report: Report) -> dict[str, SamplerStep]:
    assert report.probe is not None
    return {f"{'tried ' if step.tried else ''}{step.change}": step for step in report.probe.transforms}


def sentences(report: Report) -> dict[str, str]:
    assert report.probe is not None
    return {each.code: each.sentence for each in report.probe.conclusion}


def raw_rows(directory: Path) -> np.ndarray:
    """The raw distributions of the sampler, float64 [N, V], from its trace."""
    (raw,) = (directory / "runs").glob("*-raw")
    trace = Trace.open(raw)
    logp_NV = trace.full_logprobs(0, trace.manifest.counts.full_states).astype(np.float64)
    return np.exp(logp_NV) / np.exp(logp_NV).sum(axis=1, keepdims=True)


def nucleus(p_V: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """The kept ids, one after another."""
    ranked = sorted(range(len(p_V)), key=lambda token: -p_V[token])[: top_k or len(p_V)]
    total, mass, kept = sum(p_V[token] for token in ranked), 0.0, []
    for token in ranked:
        if mass >= top_p:
            break
        kept.append(token)
        mass += p_V[token] / total
    return np.array(kept)


@pytest.mark.slow
def test_equal_policies_are_as_far_apart_as_the_sampler_cuts(tmp_path: Path) -> None:
    report, started = probed("sampling", tmp_path / "run", sampling=DRAWS | CUT)
    found = steps(report)
    assert list(found) == ["raw", "temperature=0.8", "top_k=20", "top_p=0.8"] and started == ["synthetic"]
    last = found["top_p=0.8"]
    p_NV = raw_rows(tmp_path / "run") ** (1 / 0.8)
    p_NV /= p_NV.sum(axis=1, keepdims=True)
    mass_N = np.array([p_V[nucleus(p_V, 20, 0.8)].sum() for p_V in p_NV])
    assert last.kept.mean.value == pytest.approx(mass_N.mean(), abs=1e-6)
    assert last.kept.least == pytest.approx(mass_N.min(), abs=1e-6)
    assert last.kept.p10 == pytest.approx(1 - np.sort(1 - mass_N)[int(np.ceil(0.9 * len(mass_N))) - 1], abs=1e-6)
    assert last.floor.value == pytest.approx(1 - mass_N.mean(), abs=1e-6)
    assert last.tv.value == pytest.approx(last.floor.value, abs=1e-6)
    assert last.replayed.value == pytest.approx(0.0, abs=1e-6)
    assert found["temperature=0.8"].tv.value == pytest.approx(0.0, abs=1e-6)
    assert report.alpha1.mean.value == pytest.approx(last.tv.value, abs=1e-6), "the report is of this gap"
    assert report.truncation_floor == pytest.approx(last.floor.value, abs=1e-6)


@pytest.mark.slow
def test_what_the_steps_add_is_what_they_are_apart(tmp_path: Path) -> None:
    sides = {"behavior": "synthetic:tv=0.1", "reference": "synthetic"}
    report, _ = probed("sampling", tmp_path / "run", sampling=DRAWS | CUT, **sides)
    found = list(steps(report).values())
    for earlier, later in itertools.pairwise(found):
        assert later.added is not None
        assert later.added.value == pytest.approx(later.tv.value - earlier.tv.value, abs=1e-12)
        assert later.added.n == later.tv.n
    assert found[0].added is None and found[0].tv.value > 0.01
    assert 0 < found[-1].replayed.value < found[-1].tv.value
    assert codes(report)[:3] == ["other_distribution", "kept_mass", "remedy"]
    assert "replay its kept set" in sentences(report)["remedy"]


@pytest.mark.slow
def test_a_trainer_with_another_temperature_is_found_and_mended(tmp_path: Path) -> None:
    sampling = DRAWS | {"temperature": 0.6}
    report, _ = probed("sampling", tmp_path / "run", sampling=sampling, reference_temperature=1.0)
    last = steps(report)["temperature=0.6, trainer's 1"]
    p_NV = raw_rows(tmp_path / "run")
    tempered_NV = p_NV ** (1 / 0.6)
    tempered_NV /= tempered_NV.sum(axis=1, keepdims=True)
    expected = 0.5 * np.abs(tempered_NV - p_NV).sum(axis=1).mean()
    assert last.tv.value == pytest.approx(expected, abs=1e-6) and expected > 0.1
    assert last.floor.value == pytest.approx(expected, abs=1e-6)
    assert last.replayed.value == pytest.approx(0.0, abs=1e-6)
    assert last.kept.least == 1.0
    assert "the trainer 1" in sentences(report)["other_distribution"]
    assert "divide its logits by 0.6" in sentences(report)["remedy"]
    assert "kept set" not in sentences(report)["remedy"]


@pytest.mark.slow
def test_a_trainer_that_divides_where_the_sampler_does_not(tmp_path: Path) -> None:
    report, _ = probed("sampling", tmp_path / "run", reference_temperature=0.5, values=("top_k=5",))
    found = steps(report)
    assert list(found) == ["raw", "temperature=1, trainer's 0.5", "tried top_k=5"]
    assert found["temperature=1, trainer's 0.5"].floor.value > 0.1
    assert codes(report)[0] == "other_distribution"


@pytest.mark.slow
def test_nothing_of_a_sampler_parts_the_two_where_both_divide_alike(tmp_path: Path) -> None:
    report, _ = probed("sampling", tmp_path / "run", sampling=DRAWS | {"temperature": 0.7}, values=("top_p=0.9",))
    assert codes(report) == ["same_distribution", "check", "tried"]
    assert "temperature 0.7 on both sides" in sentences(report)["same_distribution"]
    tried = steps(report)["tried top_p=0.9"]
    assert tried.floor.value == pytest.approx(1 - tried.kept.mean.value, abs=1e-12)
    assert tried.kept.least >= 0.9


@pytest.mark.slow
def test_samplers_that_were_not_run_are_tried_on_the_same_states(tmp_path: Path) -> None:
    values = ("min_p=0.3", "frequency_penalty=1+temperature=0.5")
    report, _ = probed("sampling", tmp_path / "run", values=values)
    by_min_p, penalised = (steps(report)[f"tried {value}"] for value in values)
    trace = next(path for path in (tmp_path / "run" / "runs").iterdir() if path.is_dir())
    p_NV = np.exp(Trace.open(trace).full_logprobs(0, by_min_p.tv.n).astype(np.float64))
    kept_NV = p_NV >= 0.3 * p_NV.max(axis=1, keepdims=True)
    assert by_min_p.kept.mean.value == pytest.approx((p_NV * kept_NV).sum(axis=1).mean(), abs=1e-6)
    assert by_min_p.kept.ids == pytest.approx(kept_NV.sum(axis=1).mean())
    assert penalised.kept.least == 1.0 and penalised.floor.value > 0
    assert penalised.replayed.value == pytest.approx(0.0, abs=1e-6), "a trainer with the same penalty"
    expected, row = [], 0
    for record in Trace.open(trace).records():
        for position in range(len(record.response_token_ids)):
            earlier = record.response_token_ids[:position]
            counts_V = np.bincount(earlier, minlength=p_NV.shape[1])
            both = [np.log(p_NV[row]) / 0.5, (np.log(p_NV[row]) - counts_V) / 0.5]
            trainer_V, sampler_V = (np.exp(each - each.max()) / np.exp(each - each.max()).sum() for each in both)
            expected.append(0.5 * np.abs(trainer_V - sampler_V).sum())
            row += 1
    assert penalised.tv.value == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.slow
def test_greedy_decoding_draws_from_nothing(tmp_path: Path) -> None:
    report, _ = probed("sampling", tmp_path / "run", sampling=DRAWS | {"temperature": 0.0})
    last = steps(report)["temperature=0, trainer's 1"]
    assert last.kept.ids == 1 and last.floor.value == pytest.approx(1 - last.kept.mean.value, abs=1e-6)
    assert "decoding is greedy" in sentences(report)["other_distribution"]
    assert sentences(report)["remedy"].endswith("draw with a temperature.")


@pytest.mark.slow
def test_a_cut_that_cuts_nothing_parts_nothing(tmp_path: Path) -> None:
    report, _ = probed("sampling", tmp_path / "run", sampling=DRAWS | {"top_k": 10_000})
    assert codes(report) == ["same_distribution", "kept_mass", "check"]
    assert "top_k=10000 cut nothing off at the states that were seen" in sentences(report)["same_distribution"]


@pytest.mark.slow
def test_what_is_computed_is_what_the_engine_drew_from(tmp_path: Path) -> None:
    report, _ = probed("sampling", tmp_path / "run", sampling=DRAWS | CUT)
    check = report.probe.sampler_check
    assert check is not None and check.same_kept == check.states == report.counts.tokens
    assert check.max_tv < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("evidence", ["sampled", "topk:8"])
def test_less_evidence_says_what_sampled_tokens_say(tmp_path: Path, evidence: str) -> None:
    sampling = {"samples": 4, "max_new_tokens": 24, "top_k": 6}
    report, _ = probed("sampling", tmp_path / "run", sampling=sampling, evidence=evidence, limit=24)
    assert codes(report) == ["other_distribution", "kept_mass", "steps_unknown"]
    assert report.probe.transforms == [] and report.probe.complete
    assert "--evidence full" in sentences(report)["steps_unknown"]
    full, _ = probed("sampling", tmp_path / "full", sampling=sampling, limit=24)
    ratio = report.token.ratio
    assert ratio.low <= steps(full)["top_k=6"].kept.mean.value <= ratio.high


@pytest.mark.slow
def test_a_share_of_the_states_is_enough(tmp_path: Path) -> None:
    report, _ = probed("sampling", tmp_path / "run", sampling=DRAWS | CUT, evidence="full:0.3")
    last = steps(report)["top_p=0.8"]
    assert 0 < last.tv.n < report.counts.tokens
    assert report.probe.sampler_check.states == last.tv.n


@pytest.mark.slow
def test_each_step_has_a_name_in_gates(tmp_path: Path) -> None:
    report, _ = probed("sampling", tmp_path / "run", sampling=DRAWS | CUT, values=("top_p=0.8",))
    found = steps(report)
    for name, step in (("top_p_0_8", "top_p=0.8"), ("top_p_0_8_tried", "tried top_p=0.8")):
        for path, value in (("floor", found[step].floor), ("kept.mean", found[step].kept.mean)):
            check_path(f"probe.transforms.{name}.{path}")
            assert figure_at(report, f"probe.transforms.{name}.{path}").value == value.value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("warmth=1", "no setting of a sampler"),
        ("top_p", "no setting of a sampler"),
        ("top_k=2.5", "no setting of a sampler"),
        ("top_p=0", "top_p is 0"),
        ("min_p=2", "min_p is 2"),
        ("temperature=nan", "temperature is nan"),
        ("repetition_penalty=1.1", "do not tell them apart"),
    ],
)
def test_what_no_sampler_has_is_refused_before_anything_starts(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_probe("sampling", settings(), (value,))


@pytest.mark.parametrize(("temperature", "runs"), [(1.0, 1), (0.5, 2)])
def test_the_trainer_is_run_once_more_for_its_raw_policy_alone(temperature: float, runs: int) -> None:
    plan = plan_probe("sampling", settings(sampling={"top_k": 4, "temperature": temperature})).plan
    assert len({each.asks for each in plan.settings if not each.drawn}) == runs


@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.parametrize(
    "behavior", ["vllm:dtype=bfloat16,enforce_eager=true,kv_cache_memory_bytes=268435456", "sglang"]
)
def test_an_engine_draws_from_what_its_settings_say(tmp_path: Path, behavior: str) -> None:
    """In bfloat16, where logits tie. vLLM cuts in float32, so that an id on the border can fall either way."""
    if find(behavior.partition(":")[0]) is None:
        pytest.skip(f"no environment: mismatchscope env create {behavior.partition(':')[0]}")
    report, _ = probed(
        "sampling",
        tmp_path / "run",
        values=("min_p=0.05",),
        behavior=behavior,
        reference="transformers:dtype=bfloat16",
        model="demo:dense",
        limit=4,
        sampling={"samples": 1, "max_new_tokens": 16, "temperature": 0.7, "top_p": 0.9, "top_k": 40},
    )
    check, last = report.probe.sampler_check, steps(report)["top_p=0.9"]
    assert check.states == report.counts.tokens == check.same_kept + check.tied
    assert check.same_kept >= 0.95 * check.states
    assert last.floor.value == pytest.approx(1 - last.kept.mean.value, abs=1e-3) and last.floor.value > 0
    assert 0 < last.replayed.value < last.tv.value
    assert "reported" in codes(report) and report.verdict == "none"
