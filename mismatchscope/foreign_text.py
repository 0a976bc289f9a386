"""Text that we did not write, made safe to show: nothing in it acts, and nothing in it is invisible.

Names of files and models, keys, tokens, logs, a server's answers: all of it can hold escape sequences that move a
terminal's cursor or hide a link, marks that turn the direction of reading, characters without a width, and lines
that a CI runner takes for commands. Here such characters are spelled out (`\\x1b`, `\\u202e`), and what would be a
command gets a backslash: `\\::error::`, `##\\[error]`. Every other character, be it an emoji or CJK, stays.
"""

from __future__ import annotations

import re
import unicodedata

_SYMBOLS = {"\n": "⏎", "\t": "⇥", "\r": "␍"}

# Control, format, surrogate, line separator, paragraph separator.
_ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")

# Without a glyph though their category says otherwise: the rest of Default_Ignorable_Code_Point (Unicode's
# DerivedCoreProperties.txt: joiners, fillers, variation selectors, tags) and the noncharacters, which XML forbids.
_HIDDEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\ufdd0-\ufdef"
    f"\U000e0000-\U000e0fff{''.join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))}]"
)

# GitHub reads `::command` where a line begins, behind blanks of any kind, and where a line breaks is not known yet:
# any blank may be one. `##[command]`, and Azure's `##vso[`, TeamCity's `##teamcity[`, are read anywhere in a line.
_COMMAND = re.compile(r"(?<!\S)::|##\w*(?=\[)")


class _Spelling(dict[int, str]):
    """How each character is shown, for `str.translate`; filled in as characters are met."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        shown = _SYMBOLS.get(char, char)
        if shown == char and (unicodedata.category(char) in _ACTING or _HIDDEN.match(char)):
            shown = char.encode("unicode_escape", "surrogatepass").decode("ascii")
        self[code] = shown
        return shown


class _JsonSpelling(dict[int, str]):
    """The same characters as JSON's escapes."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = shown = char if _SPELLING[code] == char else _json_escape(char)
        return shown


_SPELLING = _Spelling()
_JSON_SPELLING = _JsonSpelling({ord("\n"): "\n"})


def printable(text: str) -> str:
    """Foreign text as one line in which nothing acts and nothing is invisible. Twice is the same as once."""
    return _COMMAND.sub(_inert, text.translate(_SPELLING))


def printable_lines(text: str) -> str:
    """Foreign text of several lines, a log or a traceback: each of them `printable`."""
    return "\n".join(printable(line.expandtabs()) for line in text.replace("\r\n", "\n").split("\n"))


def printable_json(document: str) -> str:
    """A JSON document that says the same and is safe to show: what `printable` changes becomes an escape of JSON.

    None of it stands outside of JSON's strings but the line breaks of its layout, which stay.
    """
    return _COMMAND.sub(lambda found: _json_escape(found[0][0]) + found[0][1:], document.translate(_JSON_SPELLING))


def _json_escape(char: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(char.encode("utf-16-le", "surrogatepass")).cast("H"))


def _inert(command: re.Match[str]) -> str:
    found = command[0]
    return f"\\{found}" if found == "::" else f"{found}\\"
