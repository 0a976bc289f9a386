"""The text the demo models are trained on: arithmetic word problems with worked answers.

A document is a prompt ("Question: ... Answer:") and a response that works the problem out and states the
result as its last number. Sentences are grammars with genuine choices: `[a|b|c]` picks one alternative,
brackets nest, and `{name}` is a field. So a model of this text has a varied next-token distribution where
a writer may choose, and a peaked one where the words or the arithmetic leave no choice.

A problem belongs to the held-out split when a hash of its kind and numbers says so: no wording of a
held-out problem is ever trained on.
"""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass

# ruff: noqa: SIM905 - lists of words read better as text
NAMES = (
    "Ana Ben Carla David Elena Farid Grace Hugo Ines Jonas Kira Liam Maria Nadia Omar Paula Quinn Rosa "
    "Samir Tara Ulrich Vera Walter Xenia Yusuf Zoe Amir Bella Chen Dora Emil Fatima Goran Hana Ivan Julia "
    "Karim Lena Marco Nora"
).split()
THINGS = (
    "apples pears plums shells stones marbles stamps coins cards books pens cups plates buttons beads "
    "tickets cookies muffins eggs lemons carrots onions flowers roses leaves feathers candles keys "
    "bottles spoons badges balloons"
).split()
CONTAINERS = "bag basket jar tray crate drawer tin bucket chest sack case bowl".split()
PLACES = "table shelf garden kitchen window bridge river barn market porch tree gate station harbour".split()
COLOURS = "red green blue yellow white black silver purple grey brown".split()
DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"

# kind -> its wordings as a story. The plain wording is common to all kinds.
STORIES: dict[str, tuple[str, ...]] = {
    "sum": (
        "{name} [has|owns|keeps] {a} {thing}. {other} [gives|hands|brings|sends] {name} {b} more. "
        "How many {thing} does {name} have [now|in total|altogether]?",
        "There are {a} {thing} [in|near|behind] the {place} and {b} more [in|near|behind] the {place2}. "
        "How many {thing} are there [in total|altogether]?",
        f"{{name}} [finds|collects|buys] {{a}} {{thing}} on [{DAYS}] and {{b}} on [{DAYS}]. "
        "How many {thing} is that [in total|altogether]?",
    ),
    "difference": (
        "{name} has {a} {thing} and [gives|hands|sells|lends] {b} to {other}. How many {thing} [are left|remain]?",
        "Of {a} {thing} [in|near|behind] the {place}, {b} [are sold|are lost|are taken away]. "
        "How many {thing} [are left|remain]?",
        "{name} has {a} {thing}. {other} has {b} fewer. How many {thing} does {other} have?",
    ),
    "product": (
        "Each {container} holds {a} {thing}. {name} has {b} {container}s. How many {thing} [is that|are there]?",
        "{name} [finds|collects|buys] {a} {thing} [a day|every day] for {b} days. How many {thing} is that?",
    ),
    "share": (
        "{name} [splits|divides|shares] {a} {thing} [equally|evenly] among {b} [friends|children|cousins|teams]. "
        "How many {thing} does each get?",
        "{a} {thing} fill {b} {container}s [equally|evenly]. How many {thing} are in each {container}?",
    ),
    "sum_of_three": (
        "{name} has {a} {thing}, {other} has {b} and {third} has {c}. "
        "How many {thing} do they have [in total|altogether]?",
        "The {place} has {a} {thing}, the {place2} has {b} and {name} [brings|finds] {c} more. "
        "How many {thing} is that [in total|altogether]?",
    ),
    "gain_loss": (
        "{name} has {a} {thing}, [finds|buys|wins] {b} more and [gives|hands|sells|lends] {c} to {other}. "
        "How many {thing} [are left|remain]?",
        "There are {a} {thing} [in|near|behind] the {place}. {name} adds {b} and {other} takes {c} away. "
        "How many {thing} [are left|remain]?",
    ),
    "groups_more": (
        "{name} has {b} {container}s with {a} {thing} each and [finds|buys|wins] {c} more. "
        "How many {thing} does {name} have [now|in total|altogether]?",
    ),
    "groups_fewer": (
        "{name} has {b} {container}s with {a} {thing} each and [gives|hands|sells|lends] {c} to {other}. "
        "How many {thing} [are left|remain]?",
    ),
}
PLAIN = "[What is|Compute|Calculate|Work out|Find|Evaluate|Simplify] {expression}[?|.]"
EXPRESSIONS = {
    "sum": "{a} + {b}",
    "difference": "{a} - {b}",
    "product": "{a} * {b}",
    "share": "{a} / {b}",
    "sum_of_three": "{a} + {b} + {c}",
    "gain_loss": "{a} + {b} - {c}",
    "groups_more": "{a} * {b} + {c}",
    "groups_fewer": "{a} * {b} - {c}",
}
KINDS = tuple(EXPRESSIONS)
PLAIN_SHARE = 0.25
HELD_OUT_ONE_IN = 10

OPENINGS = (
    "",
    "[Let us|We can|I will|Let me] [think|reason|go|work] [step by step|slowly|carefully|in order].",
    "[Okay|Well|Sure|Good question], [this is|here comes|that is] [easy|simple|a nice one|quick work].",
)
STORY_OPENINGS = (
    "[{name}|The story|The question|Somebody] [counts|mentions|speaks of|talks about] {thing}.",
    "[Picture|Imagine|Think of|Draw] [a|one|some] {colour} [{container}|box|room|wall] "
    "[near|behind|beside|under|by] the [{anywhere}|door|house].",
)
LEADS = ("First", "To begin", "Start simply", "Right away"), ("Then", "Next", "After that", "Now", "Finally")
STEPS = {
    "+": (
        "[we|I|you] [add|combine|join|sum] [{a} and {b}|{b} and {a}]: [{a} + {b}|{b} + {a}] = {r}.",
        "[{a} plus {b}|{b} plus {a}] [is|makes|gives|equals] {r}.",
        "[the sum|the total|adding up] [is|gives|comes to] [{a} + {b}|{b} + {a}] = {r}.",
    ),
    "-": (
        "[we|I|you] [subtract|remove|take away|drop] {b} from {a}: {a} - {b} = {r}.",
        "{a} minus {b} [is|makes|leaves|equals] {r}.",
        "[the rest|the difference|what stays] [is|comes to] {a} - {b} = {r}.",
    ),
    "*": (
        "[we|I|you] [multiply|take the product of] [{a} and {b}|{b} and {a}]: [{a} * {b}|{b} * {a}] = {r}.",
        "[{a} times {b}|{b} times {a}] [is|makes|gives|equals] {r}.",
    ),
    "/": (
        "[we|I|you] [divide|split|share] {a} by {b}: {a} / {b} = {r}.",
        "{a} divided by {b} [is|makes|gives|equals] {r}.",
        "[since|because|as] [{r} * {b}|{b} * {r}] = {a}, {a} / {b} = {r}.",
    ),
}
# Mental arithmetic in two or three smaller equations, for operands of two digits.
SPLIT_STEPS = {
    "+": (
        "[{a} + {bt} = {at_b}, {at_b} + {bo} = {r}|{a} + {bo} = {ao_b}, {ao_b} + {bt} = {r}].",
        "[{at} + {bt} = {tt} and {ao} + {bo} = {oo}|{ao} + {bo} = {oo} and {at} + {bt} = {tt}], "
        "[so|hence|giving] {tt} + {oo} = {r}.",
    ),
    "-": ("{a} - {bt} = {at_b}, [so|then|and] {at_b} - {bo} = {r}.",),
}
REMARKS = (
    "",
    "",
    "[With|Given|After] {k} more it would be {r_plus_k}.",
    "[Nice|Good|Great|Lovely|Fine] [and|but] [short|clear|quick|neat|tidy].",
)
CHECKS = {
    "+": "[Check|To check|As a test]: [{r} - {b} = {a}|{r} - {a} = {b}].",
    "-": "[Check|To check|As a test]: [{r} + {b} = {a}|{b} + {r} = {a}].",
    "*": "[Check|To check|As a test]: [{r} / {b} = {a}|{r} / {a} = {b}].",
    "/": "[Check|To check|As a test]: [{r} * {b} = {a}|{b} * {r} = {a}].",
}
CLOSINGS = (
    "[So the|The|Thus the|Hence the] [answer|result|final answer] is {r}{unit}.",
    "[So|Thus|Hence|Therefore] [we|I] [get|find|have] {r}{unit}.",
    "[Answer|Result|Done]: {r}{unit}.",
)


@dataclass(frozen=True)
class Problem:
    """One question: `numbers` are a, b (and c) of the kind's expression, in that order."""

    kind: str
    numbers: tuple[int, ...]
    prompt: str
    answer: int
    fields: dict[str, str]

    @property
    def is_story(self) -> bool:
        return bool(self.fields)


def expand(grammar: str, rng: random.Random) -> str:
    """Replace every `[a|b|c]`, innermost first, by one of its alternatives, each as likely as the others."""
    while "[" in grammar:
        grammar = re.sub(r"\[([^\[\]]*)\]", lambda match: rng.choice(match[1].split("|")), grammar)
    return grammar


def is_held_out(kind: str, numbers: tuple[int, ...]) -> bool:
    """Whether this problem is kept from training, whatever its wording."""
    return zlib.crc32(f"{kind}{numbers}".encode()) % HELD_OUT_ONE_IN == 0


def draw_numbers(kind: str, rng: random.Random) -> tuple[int, ...]:
    """Numbers of one problem; every intermediate and final result is between 1 and 101."""
    draw = rng.randint
    if kind == "sum":
        return draw(2, 40), draw(2, 40)
    if kind == "difference":
        a = draw(8, 50)
        return a, draw(2, a - 1)
    if kind == "product":
        return draw(2, 9), draw(2, 9)
    if kind == "share":
        b = draw(2, 9)
        return b * draw(2, 9), b
    if kind == "sum_of_three":
        return draw(2, 20), draw(2, 20), draw(2, 20)
    if kind == "gain_loss":
        a, b = draw(5, 30), draw(2, 20)
        return a, b, draw(2, a + b - 1)
    a, b = draw(2, 9), draw(2, 9)
    return a, b, draw(2, 20) if kind == "groups_more" else draw(1, a * b - 1)


def worked_steps(kind: str, numbers: tuple[int, ...]) -> list[tuple[str, int, int, int]]:
    """The binary operations that solve a problem: (operator, left, right, result), the last one's the answer."""
    operators = re.findall(r"[-+*/]", EXPRESSIONS[kind])
    steps = []
    left = numbers[0]
    for operator, right in zip(operators, numbers[1:], strict=True):
        result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[operator]
        steps.append((operator, left, right, result))
        left = result
    return steps


def draw_problem(rng: random.Random, *, held_out: bool) -> Problem:
    """A problem of the asked split: its kind, then its numbers, then its wording."""
    kind = rng.choice(KINDS)
    numbers = draw_numbers(kind, rng)
    while is_held_out(kind, numbers) != held_out:
        numbers = draw_numbers(kind, rng)
    values = dict(zip("abc", numbers, strict=False))
    fields: dict[str, str] = {}
    if rng.random() < PLAIN_SHARE:
        question = expand(PLAIN, rng).format(expression=EXPRESSIONS[kind].format(**values))
    else:
        fields = dict(zip(("name", "other", "third"), rng.sample(NAMES, 3), strict=True))
        fields |= dict(zip(("place", "place2"), rng.sample(PLACES, 2), strict=True))
        fields |= {"thing": rng.choice(THINGS), "container": rng.choice(CONTAINERS)}
        question = expand(rng.choice(STORIES[kind]), rng).format(**values, **fields)
    answer = worked_steps(kind, numbers)[-1][3]
    return Problem(kind, numbers, f"Question: {question}\nAnswer:", answer, fields)


def draw_response(problem: Problem, rng: random.Random) -> str:
    """A worked answer in one of its many wordings; begins with a space, its last number is the answer."""
    sentences = [rng.choice(OPENINGS + STORY_OPENINGS if problem.is_story else OPENINGS)]
    steps = worked_steps(problem.kind, problem.numbers)
    for index, (operator, a, b, r) in enumerate(steps):
        wordings = STEPS[operator]
        if operator in SPLIT_STEPS and a > 9 and b > 9 and b % 10 and rng.random() < 0.6:
            wordings = SPLIT_STEPS[operator]
        lead = rng.choice(LEADS[0] if index == 0 else LEADS[1])
        sentences.append(f"{lead}, {rng.choice(wordings)}".format(**_step_fields(operator, a, b, r)))
    operator, a, b, r = steps[-1]
    sentences.append(rng.choice((*REMARKS, CHECKS[operator])))
    sentences.append(rng.choice(CLOSINGS))
    k = rng.randint(1, 9)
    text = " ".join(sentence for sentence in sentences if sentence)
    unit = f"[| {problem.fields['thing']}]" if problem.is_story else ""
    text = text.replace("{unit}", unit)
    return " " + expand(text, rng).format(
        a=a, b=b, r=r, k=k, r_plus_k=r + k,
        colour=rng.choice(COLOURS), anywhere=rng.choice(PLACES), **problem.fields,
    )  # fmt: skip


def final_number(text: str) -> int | None:
    """The result a response states: its last number, None when it has none."""
    numbers = re.findall(r"\d+", text)
    return int(numbers[-1]) if numbers else None


def _step_fields(operator: str, a: int, b: int, r: int) -> dict[str, int]:
    sign = -1 if operator == "-" else 1
    return {
        "a": a, "b": b, "r": r, "at": a // 10 * 10, "ao": a % 10, "bt": b // 10 * 10, "bo": b % 10,
        "at_b": a + sign * (b // 10 * 10), "ao_b": a + sign * (b % 10),
        "tt": a // 10 * 10 + b // 10 * 10, "oo": a % 10 + b % 10,
    }  # fmt: skip
