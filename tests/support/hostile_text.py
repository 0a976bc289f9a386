"""Text that would act where it is printed, and what must not be left of it."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import strategies as st

FRAGMENTS = (
    *("::set-output name=a::b", "\n::add-mask::b", "\r::error::c", "##[error]d", "##vso[task.complete]"),
    *("::", "##", "["),
    *("\x1b[31m", "\x1b]8;;http://x\x07y\x1b]8;;\x07", "\x1b]0;title\x07", "\x9b2J"),
    *("\x00", "\b\b\b", "\x7f", "\x85", "\t"),
    *("\u202e", "\u2066", "\u200f", "\u200b", "\u2060", "\ufeff", "\xad", "\u034f", "\u3164", "\u2028", "\u2029"),
    *("\ufe0f", "\U000e0100", "\U000e0041\U000e007f", "\uffff", "\U0001f469\u200d\U0001f4bb"),
    *("[bold]", "[/]", "[link=http://x]y[/link]", ":smile:", "[red on blue]", "\\[", "{{ 7*7 }}", "{% raw %}"),
    *("<script>alert(1)</script>", "]]>", "<!--", "&#27;"),
    *("|", "`", "```", "@someone", "[a](http://x)", "![a](b)"),
    *("=1+1", "+1", "-1", "@SUM(1)", ";=1", '"', "'", ","),
    *("你好", "🙂", "α₁", " ", "  "),
)
SURROGATES = ("\ud800", "\udcff", "a\udfffb")
"""Kept apart: JSON on disk cannot hold them, so a report never does."""

_HIDDEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0f\uffa0\uffff\U000e0000-\U000e0fff]")
_COMMAND = re.compile(r"^\s*::|##\w*\[")


def hostile(*extra: str) -> st.SearchStrategy[str]:
    """A few fragments, with any characters between them."""
    pieces = st.sampled_from((*FRAGMENTS, *extra)) | st.text(max_size=4)
    return st.lists(pieces, min_size=1, max_size=6).map("".join)


def dangers(printed: str) -> list[str]:
    """Everything in a printed text that acts or hides; nothing, if it is safe."""
    found = [repr(char) for char in printed if char != "\n" and _acts(char)]
    return found + [line for line in printed.split("\n") if _COMMAND.search(line)]


def _acts(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or bool(_HIDDEN.match(char))
