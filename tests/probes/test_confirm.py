"""A diagnosis put to experiments: what each rules out, what is proved, and what is said where nothing can be."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from probe_runs import NOISY, settings

from mismatchscope.config import AuditSettings
from mismatchscope.diagnosis import narrowing
from mismatchscope.diagnosis.catalogue import ROUNDING
from mismatchscope.errors import CapabilityError
from mismatchscope.measures.results import Interval
from mismatchscope.probes.confirm import confirm as module
from mismatchscope.probes.confirm.case import Case
from mismatchscope.probes.confirm.confirm import confirm
from mismatchscope.probes.confirm.dry_run import experiments_text
from mismatchscope.probes.confirm.experiments import share_of
from mismatchscope.probes.confirm.found import MOST, NONE, UNCLEAR, Found
from mismatchscope.probes.confirm.impossible import impossible
from mismatchscope.probes.confirm.settings import Closing, closing_change
from mismatchscope.reports.confirmation_fields import Proof

GAP = Interval(0.01, 0.009, 0.011, clusters=8)


def case(directory: Path, **changes: Any) -> Case:
    return Case(settings(**changes), directory, GAP, 1e-4, lambda event: None)


@pytest.fixture(autouse=True)
def causes_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is likelier than another, whatever planted cases say."""
    monkeypatch.setattr(narrowing, "untold", dict)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Results of experiments, by name, and what closes the gap; answers with the names of those that were run."""

    def script(closing: Closing | None = None, **results: str | Exception) -> list[str]:
        run: list[str] = []

        def experiment(name: str, result: str | Exception) -> Callable[[Case], Found]:
            def found(case: Case) -> Found:
                run.append(name)
                if isinstance(result, Exception):
                    raise result
                return Found(result, f"{name} found {result}.", f"mismatchscope probe {name}")

            return found

        experiments = {name: experiment(name, result) for name, result in results.items()}
        monkeypatch.setattr(module, "EXPERIMENTS", experiments)
        monkeypatch.setattr(module, "closing_change", lambda case: closing or Closing("Nothing closes it."))
        return run

    return script


def test_experiments_narrow_the_set_until_one_cause_is_left(tmp_path: Path, scripted: Any) -> None:
    run = scripted(context="stays", weights="head", repeat="none")
    found = confirm(case(tmp_path), ["rope", "norm", "head"])
    assert run == ["weights"]  # the cheapest that can tell; one is left
    assert (found.cause, found.proof) == ("head", None)
    assert found.sentence.startswith("One cause is left: ")
    assert [step.remaining for step in found.steps] == [["rope", "norm", "head"], ["head"]]


def test_an_experiment_that_cannot_tell_is_followed_by_another(tmp_path: Path, scripted: Any) -> None:
    run = scripted(context="vanishes", weights=UNCLEAR)
    found = confirm(case(tmp_path), ["norm", "rope", "stale_weights"])
    assert run == ["context", "weights"] or run == ["weights", "context"]
    assert found.cause == "rope"
    assert {step.status for step in found.steps} == {"unclear", "told"}


def test_a_cause_that_was_named_alone_is_put_to_one_experiment_that_could_rule_it_out(
    tmp_path: Path, scripted: Any
) -> None:
    run = scripted(context="stays", weights="same", repeat="none")
    found = confirm(case(tmp_path), ["norm"])
    assert len(run) == 1
    assert found.cause == "norm"


def test_a_cause_that_is_left_is_put_to_the_candidate_that_would_prove_it(
    tmp_path: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scripted(weights="same", rescore="temperature")
    proof = Proof("temperature = 0.8 on the reference's side", GAP, Interval(1e-4, 5e-5, 2e-4))
    rescored = module.EXPERIMENTS["rescore"]
    proving = {"rescore": lambda case: rescored(case)._replace(proof=proof)}
    monkeypatch.setattr(module, "EXPERIMENTS", module.EXPERIMENTS | proving)
    found = confirm(case(tmp_path), ["temperature"])
    assert run[-1] == "rescore"
    assert (found.cause, found.proof, found.remaining) == ("temperature", proof, ["temperature"])
    assert found.sentence.startswith("Proved: a temperature on one side alone. With temperature = 0.8 on the ref")


def test_a_candidate_that_closes_a_gap_of_several_causes_leaves_them(tmp_path: Path, scripted: Any) -> None:
    scripted(rescore="rope or norm")
    found = confirm(case(tmp_path), ["norm", "rope", "window"])
    assert found.remaining == ["norm", "rope"]
    scripted(rescore="none")
    found = confirm(case(tmp_path), ["norm"])
    assert [step.status for step in found.steps] == ["unclear", "unclear"]
    assert found.sentence.endswith("No setting and no candidate was found that closes the gap.")
    scripted(rescore=CapabilityError("The reference is vllm."))
    found = confirm(case(tmp_path), ["norm"])
    assert [step.status for step in found.steps] == ["unclear", "skipped"]
    assert found.sentence.endswith("No setting was found that closes the gap.")


def test_several_that_are_left_are_named_and_not_one_of_them(tmp_path: Path, scripted: Any) -> None:
    scripted(context="vanishes")
    found = confirm(case(tmp_path), ["rope", "window", "norm"])
    assert found.cause is None
    assert found.remaining == ["rope", "window"]
    assert found.sentence.startswith("Cannot tell which: 2 causes are left")


def test_a_result_against_the_whole_set_withdraws_it(tmp_path: Path, scripted: Any) -> None:
    scripted(context="stays")
    found = confirm(case(tmp_path), ["rope", "window"])
    assert found.withdrawn
    assert "stale_weights" in found.remaining
    assert not {"rope", "window"} & set(found.remaining)


def test_what_an_engine_cannot_do_is_skipped_and_said(tmp_path: Path, scripted: Any) -> None:
    scripted(weights=CapabilityError("The engine does not show its parameters."), context="stays")
    found = confirm(case(tmp_path), ["rope", "stale_weights"])
    skipped = [step for step in found.steps if step.status == "skipped"]
    assert [step.sentence for step in skipped] == ["Not possible here: The engine does not show its parameters."]
    assert found.cause == "stale_weights"


def test_no_experiment_begins_after_the_time_is_over(tmp_path: Path, scripted: Any) -> None:
    run = scripted(context="stays", weights="same")
    found = confirm(replace(case(tmp_path), deadline=time.monotonic()), ["rope", "stale_weights"])
    assert not run
    assert all("no time left" in step.sentence for step in found.steps)
    assert found.remaining == ["rope", "stale_weights"]


def test_a_setting_that_closes_the_gap_is_proof(tmp_path: Path, scripted: Any) -> None:
    proof = Proof("kv_cache_dtype unset", GAP, Interval(1e-4, 5e-5, 2e-4), floor=1e-4)
    run = scripted(Closing("Set kv_cache_dtype unset.", proof, (("kv_cache_dtype", "fp8"),)), context="stays")
    found = confirm(case(tmp_path), ["fp8_weights", "fp8_cache"])
    assert not run
    assert (found.cause, found.proof) == ("fp8_cache", proof)
    assert found.sentence == (
        "Proved: an 8-bit key-value cache. With kv_cache_dtype unset the gap falls from 0.0100 [0.0090, 0.0110] to "
        "1.00e-4 [5.00e-5, 2.00e-4] (floor 1.00e-4)."
    )


def test_a_path_that_closes_the_gap_is_no_proof_of_rounding_where_a_boundary_is_suspected(
    tmp_path: Path, scripted: Any
) -> None:
    proof = Proof("path=prefill", GAP, Interval(1e-4, 5e-5, 2e-4))
    scripted(Closing("Set path=prefill.", proof, (("path", None),)))
    found = confirm(case(tmp_path), ["chunked_prefill", "window", "context"])
    assert (found.cause, found.remaining, found.withdrawn) == (None, ["chunked_prefill", "window"], False)
    assert "rounding" not in found.sentence
    assert confirm(case(tmp_path), [ROUNDING]).cause == ROUNDING


def test_proof_of_something_that_was_not_suspected_withdraws_what_was(tmp_path: Path, scripted: Any) -> None:
    proof = Proof("dtype=float32", GAP, Interval(1e-8, 0.0, 1e-7))
    scripted(Closing("Set dtype=float32.", proof, (("dtype", "bfloat16"),)))
    found = confirm(case(tmp_path), ["rope"])
    assert found.withdrawn
    assert found.cause is None
    assert ROUNDING in found.remaining


def test_a_command_does_the_same_again_in_a_shell(tmp_path: Path) -> None:
    spec = 'vllm:hf_overrides={"rope_theta":50000}'
    given: Any = {"max_new_tokens": 48, "temperature": 0.7}
    asked = AuditSettings(behavior=spec, reference="transformers", limit=12, sampling=given)
    about = Case(asked, tmp_path, GAP, None, lambda event: None)
    sides = ["--model", "demo:dense", "--behavior", spec, "--reference", "transformers"]
    tokens = ["--limit", "12", "--max-new-tokens", "48", "--temperature", "0.7"]
    assert shlex.split(about.command("batch", ("2", "8"))) == [
        *("mismatchscope", "probe", "batch", *sides, *tokens),
        *("--values", "2", "--values", "8", "-o", "batch"),
    ]
    assert shlex.split(about.command("weights")) == ["mismatchscope", "probe", "weights", *sides, "-o", "weights"]


def test_engines_that_do_not_show_the_gap_prove_nothing_of_it(tmp_path: Path) -> None:
    found = confirm(replace(case(tmp_path, **NOISY), gap=Interval(0.9, 0.8, 0.95, clusters=8)), ["rope"])
    assert (found.proof, found.cause, len(found.steps)) == (None, None, 1)
    assert found.sentence.startswith("Cannot tell. The engines, run again, do not show the gap: mean TV 0.")


def test_engines_that_failed_as_given_are_not_said_to_show_no_gap(tmp_path: Path) -> None:
    """What everything changed leaves is no gap of the engines as they are."""
    least = SimpleNamespace(pair=SimpleNamespace(alpha=SimpleNamespace(mean=Interval(1e-8, 0.0, 1e-7, clusters=4))))
    conclusion = SimpleNamespace(code="cannot_tell", sentence="The gap could not be measured at both ends.")
    probe: Any = SimpleNamespace(cells=[SimpleNamespace(pair=None), least], conclusion=[conclusion])
    found = closing_change(cast(Case, SimpleNamespace(probe=lambda name: probe, gap=GAP)))
    assert (found.absent, found.sentence) == (False, conclusion.sentence)
    probe.cells[0] = least
    assert (
        "do not make it with this model and the first 4 prompts"
        in closing_change(cast(Case, SimpleNamespace(probe=lambda name: probe, gap=GAP))).sentence
    )


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Interval(1e-4, 5e-5, 2e-4), NONE),
        (Interval(0.008, 0.007, 0.009), MOST),
        (Interval(0.003, 0.002, 0.004), UNCLEAR),
        (Interval(0.008, 0.001, 0.02), UNCLEAR),
        (Interval(None), UNCLEAR),
    ],
)
def test_a_part_is_none_or_most_of_the_gap_only_where_both_intervals_say_so(part: Interval, expected: str) -> None:
    assert share_of(part, GAP) == expected


def test_the_engines_themselves_prove_a_planted_setting(tmp_path: Path) -> None:
    found = confirm(replace(case(tmp_path, **NOISY), gap=Interval(0.003, 0.001, 0.004, clusters=6)), [])
    assert found.proof is not None
    assert found.proof.change.startswith("noise")
    assert found.proof.after.high is not None
    assert found.proof.before.low is not None
    assert found.proof.after.high < 0.01 * found.proof.before.low


def test_what_only_the_writer_of_a_log_can_do_is_not_put_to_engines(tmp_path: Path, scripted: Any) -> None:
    run = scripted(weights="head")
    found = confirm(case(tmp_path), ["filler"])
    assert not run
    assert found.sentence.startswith("Nothing to run: ")
    assert experiments_text(["filler"], case(tmp_path)) == f"{found.sentence}\n"
    confirmed = confirm(case(tmp_path), ["filler", "head"])
    assert confirmed.remaining == ["head"]
    assert experiments_text(["filler", "head"], case(tmp_path)).startswith("put to experiments: 1 cause, head\n")


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        ("demo:dense", {}, {"routing", "routing_replay", "expert", "recurrent_state", "reductions"}),
        ("demo:moe", {}, {"recurrent_state", "reductions"}),
        ("demo:moe", {"behavior": "vllm:tensor_parallel_size=2"}, {"recurrent_state"}),
        ("a/model/elsewhere", {}, set()),
    ],
)
def test_what_a_model_cannot_have_is_no_cause(model: str, changes: dict[str, str], expected: set[str]) -> None:
    asked = settings(**{"behavior": "vllm", "reference": "transformers"} | changes).model_copy(
        update={"model": model}
    )
    assert impossible(asked) == expected


def test_a_cause_that_these_engines_cannot_have_is_not_suspected(tmp_path: Path, scripted: Any) -> None:
    """A dense model sends no tokens to experts, whatever the data would fit."""
    scripted(repeat="same_batches")
    asked = case(tmp_path, behavior="vllm", reference="transformers")
    dense = replace(asked, settings=asked.settings.model_copy(update={"model": "demo:dense"}))
    found = confirm(dense, ["dropout", "batch", "routing"])
    assert (found.cause, found.steps[-1].experiment) == ("dropout", "repeat")
    assert found.steps[0].remaining == ["dropout", "batch"]
