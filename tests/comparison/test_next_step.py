"""The command that would say more: what the run was, with one thing changed."""

from __future__ import annotations

from typing import Any

import pytest

from mismatchscope.comparison.next_step import next_step_of
from mismatchscope.reports.document import Finding
from mismatchscope.reports.reading_fields import NextStep

BF16, FP32 = ("bfloat16", "bfloat16"), ("float32", "float32")


def step(code: str, command: str, *, dtypes: tuple[str | None, str | None] = BF16, **facts: Any) -> NextStep:
    return next_step_of(Finding(code=code, sentence=""), command, prompts=16, dtypes=dtypes, **facts)


def following(code: str, command: str, dtypes: tuple[str | None, str | None] = BF16, **facts: float) -> str:
    finding = Finding(code=code, sentence="", **facts)
    return next_step_of(finding, command, prompts=16, dtypes=dtypes).command


def test_a_gap_is_looked_for_in_float32() -> None:
    assert following("above_floor", "mismatchscope audit --behavior vllm==0.32.0 --limit 9 -o runs/a --force") == (
        "mismatchscope audit --limit 9 --behavior vllm==0.32.0:dtype=float32 --reference transformers:dtype=float32"
    )


def test_the_options_of_an_engine_are_kept() -> None:
    command = "mismatchscope audit --reference=transformers:dtype=bfloat16,attn=eager"
    assert "--reference transformers:dtype=float32,attn=eager" in following("above_floor", command)


def test_a_server_is_left_as_it_was_started() -> None:
    command = "mismatchscope audit --behavior vllm@http://127.0.0.1:8000"
    assert following("above_floor", command).startswith(f"{command} --reference transformers:dtype=float32")


@pytest.mark.parametrize("command", ["mismatchscope compare mu pi -o out", "mismatchscope.audit(limit=4)", ""])
def test_of_anything_but_an_audit_nothing_is_made_up(command: str) -> None:
    expected = "mismatchscope audit … --behavior SPEC:dtype=float32 --reference SPEC:dtype=float32"
    assert following("above_floor", command) == expected


def test_engines_that_a_file_names_are_not_replaced_by_the_defaults() -> None:
    assert "transformers" not in following("above_floor", "mismatchscope audit --config run.toml")


def test_in_float32_already_there_is_the_page() -> None:
    assert following("above_floor", "mismatchscope audit", FP32) == "mismatchscope report DIR --format html"


def test_an_open_question_asks_for_more_prompts() -> None:
    command = "mismatchscope audit --limit 16 -q"
    assert following("unresolved", command, margin=0.1, prompts_needed=59) == "mismatchscope audit -q --limit 59"
    assert following("unresolved", command, margin=0.1) == "mismatchscope audit -q --limit 64"


def test_what_cannot_be_held_against_a_repeat_asks_for_evidence_that_can() -> None:
    assert following("unresolved", "mismatchscope audit") == "mismatchscope audit --evidence full"


def test_without_a_floor_both_sides_are_repeated() -> None:
    assert following("no_floor", "mismatchscope audit --no-repeats") == "mismatchscope audit --repeats"


@pytest.mark.parametrize("code", ["identical", "within_floor"])
def test_agreement_before_training_says_nothing_of_later(code: str) -> None:
    assert (
        following(code, "mismatchscope audit --model M --resume -o d") == "mismatchscope audit --model CHECKPOINT"
    )


@pytest.mark.parametrize("code", ["no_floor", "unresolved", "above_floor"])
def test_of_a_gap_beyond_rounding_no_run_against_rounding_is_proposed(code: str) -> None:
    following = step(code, "mismatchscope audit", beyond_rounding=True)
    assert following.command == "mismatchscope report DIR --format html"
    assert "rounding is no explanation" in following.why


def test_two_servers_are_started_in_float32_before_the_same_audit() -> None:
    command = "mismatchscope audit --behavior vllm@http://127.0.0.1:1 --reference sglang@http://127.0.0.1:2 -o run"
    following = step("above_floor", command)
    assert following.command == command.removesuffix(" -o run")
    assert following.why.startswith("start both servers in float32 first")


def test_one_server_is_started_in_float32_too() -> None:
    following = step("above_floor", "mismatchscope audit --behavior vllm@http://127.0.0.1:1")
    assert following.why.startswith("start the server in float32 too")


def test_full_evidence_is_not_proposed_to_who_has_it() -> None:
    assert "--evidence" not in step("unresolved", "mismatchscope audit", evidence="full").command
