"""The training text: every answer and every equation is right, and no held-out problem is in the training split."""

from __future__ import annotations

import ast
import json
import operator
import random
import re
from fractions import Fraction

import pytest
from arithmetic_corpus import KINDS, draw_problem, draw_response, expand, final_number, is_held_out
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope import demo

SYMBOLS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
WORDS = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}
# What a person would compute from the numbers of a story, in the order in which the story names them.
STORY_ANSWERS = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "product": lambda a, b: a * b,
    "share": lambda a, b: Fraction(a, b),
    "sum_of_three": lambda a, b, c: a + b + c,
    "gain_loss": lambda a, b, c: a + b - c,
    "groups_more": lambda a, b, c: a * b + c,
    "groups_fewer": lambda a, b, c: a * b - c,
}


def evaluate(expression: str) -> Fraction:
    """Exact value of an expression of integers and + - * /."""

    def walk(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        assert isinstance(node, ast.BinOp)
        return SYMBOLS[type(node.op)](walk(node.left), walk(node.right))

    return walk(ast.parse(expression, mode="eval").body)


@given(seed=st.integers(0, 2**32), held_out=st.booleans())
def test_answer_is_what_the_prompt_asks(seed: int, held_out: bool) -> None:
    problem = draw_problem(random.Random(seed), held_out=held_out)
    if problem.is_story:
        expected = STORY_ANSWERS[problem.kind](*map(int, re.findall(r"\d+", problem.prompt)))
    else:
        expected = evaluate(re.search(r"\d[-+*/ \d]*\d", problem.prompt)[0])
    assert problem.answer == expected


@given(seed=st.integers(0, 2**32))
def test_every_equation_of_a_response_holds_and_the_last_number_is_the_answer(seed: int) -> None:
    rng = random.Random(seed)
    problem = draw_problem(rng, held_out=False)
    response = draw_response(problem, rng)
    symbolic = response
    for word, symbol in WORDS.items():
        symbolic = symbolic.replace(f" {word} ", f" {symbol} ")
    equations = re.findall(r"(\d+ [-+*/] \d+) (?:=|is|makes|gives|equals|leaves) (\d+)", symbolic)
    assert equations
    for expression, result in equations:
        assert evaluate(expression) == int(result), response
    assert final_number(response) == problem.answer
    assert not re.search(r"[\[\]{}|]", response), "an unexpanded choice or field"


@given(seed=st.integers(0, 2**32), held_out=st.booleans())
def test_a_problem_belongs_to_the_split_it_was_drawn_for(seed: int, held_out: bool) -> None:
    problem = draw_problem(random.Random(seed), held_out=held_out)
    assert is_held_out(problem.kind, problem.numbers) == held_out


def test_both_splits_have_every_kind_of_problem() -> None:
    for held_out in (False, True):
        rng = random.Random(0)
        assert {draw_problem(rng, held_out=held_out).kind for _ in range(400)} == set(KINDS)


def test_shipped_prompts_are_the_held_out_split_and_not_in_training_text() -> None:
    rows = [json.loads(line) for line in demo.prompts_path().read_text().splitlines()]
    prompts = {row["prompt"] for row in rows}
    assert len(rows) == len(prompts) == 256
    rng = random.Random(1)
    trained = {draw_problem(rng, held_out=False).prompt for _ in range(20_000)}
    assert not prompts & trained


def test_shipped_prompts_can_be_made_again() -> None:
    train_demo_models = pytest.importorskip("train_demo_models", reason="needs torch and transformers")
    rows = [json.loads(line) for line in demo.prompts_path().read_text().splitlines()]
    assert rows == train_demo_models.held_out_prompts()


def test_expand_chooses_among_nested_alternatives() -> None:
    rng = random.Random(0)
    seen = {expand("[a[1|2]|b] [|x]", rng) for _ in range(200)}
    assert seen == {"a1 ", "a1 x", "a2 ", "a2 x", "b ", "b x"}


@pytest.mark.parametrize(("text", "number"), [(" 3 + 4 = 7. Done: 7.", 7), (" no number", None), ("", None)])
def test_final_number(text: str, number: int | None) -> None:
    assert final_number(text) == number
