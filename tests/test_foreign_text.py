"""Foreign text: what is spelled out, what becomes harmless, what stays."""

from __future__ import annotations

import json
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.foreign_text import printable, printable_json, printable_lines

# What a hostile string is made of: hypothesis mixes these with any character, lone surrogates too.
FRAGMENTS = (
    "::",
    "##[",
    "##vso[",
    "##",
    "[",
    "\n",
    "\r",
    "\x1b]8;;http://x\x07",
    "\x9b31m",
    "\u202e",
    "\u200b",
    "\ufe0f",
)
hostile = st.lists(st.sampled_from(FRAGMENTS) | st.text(st.characters(), max_size=4), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b]8;;http://x\x1b\\", r"a\x1b[31mb\x1b]8;;http://x\x1b" + "\\"),
        ("\x00\x07\x7f\x9b31m", r"\x00\x07\x7f\x9b31m"),
        ("one\ntwo\tthree\rfour", "one⏎two⇥three␍four"),
        ("\u202eabc\u2066\u200e\ufeff", r"\u202eabc\u2066\u200e\ufeff"),
        ("\u2028\u2029\u200b\u00ad\u034f\u3164", r"\u2028\u2029\u200b\xad\u034f\u3164"),
        ("a\ufe0f\U000e0041\U000e0100", r"a\ufe0f\U000e0041\U000e0100"),
        ("\ud800 \udcff \uffff", r"\ud800 \udcff \uffff"),
        ("::set-output name=a::b", r"\::set-output name=a::b"),
        ("a\n::add-mask::b", "a⏎::add-mask::b"),
        ("a \u3000::error::b", "a \u3000\\::error::b"),
        ("x ##[error]y ##vso[task.complete] ###[group]", r"x ##\[error]y ##vso\[task.complete] ###\[group]"),
    ],
)
def test_what_would_act_or_hide_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["μ → π", "你好，世界", "🙂 🏳 é à", "std::vector<int>", "## heading", "a  b", "[bold]:smile:", ""]
)
def test_readable_text_stays(text: str) -> None:
    assert printable(text) == text


def test_each_line_of_a_log_is_made_harmless() -> None:
    assert printable_lines("a\r\nb\tc\n  ::error::x\n 10%\r 20%\n") == "a\nb       c\n  \\::error::x\n 10%␍ 20%\n"


@given(hostile)
def test_nothing_acts_and_nothing_is_invisible(text: str) -> None:
    shown = printable(text)
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert not re.search(r"(^|\s)::|##\w*\[|[\ufe00-\ufe0f\U000e0000-\U000e0fff]", shown)
    assert printable(shown) == shown


@given(hostile, st.sampled_from([None, 1]))
def test_json_says_the_same_and_shows_none_of_it(text: str, indent: int | None) -> None:
    value = {text: [text, {"key": text}]}
    document = printable_json(json.dumps(value, ensure_ascii=False, indent=indent))
    assert json.loads(document) == value
    assert all(printable(line) == line for line in document.split("\n"))


def test_every_character_is_text_or_spelled_out_in_ascii() -> None:
    spelled = 0
    for char in map(chr, range(sys.maxunicode + 1)):
        shown = printable(char)
        if shown != char:
            assert shown in "⏎⇥␍" or shown.isascii()
            spelled += 1
    assert 6000 < spelled < 8000
