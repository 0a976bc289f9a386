"""Whether a name, or a text, is that of a credential: by a list of names, by the forms of issuers, by entropy.

A name convicts whatever stands behind it (`api_key`, `Authorization`), a form convicts under any name (`hf_…`,
`Bearer …`), and entropy does where letters and digits follow each other as if drawn by lot. Hashes, UUIDs, paths,
names of models and encoded texts are none of these: their alphabet, separators or length are not those of keys.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import pairwise

Span = tuple[int, int]

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:api_?keys?|(?:access|secret|private|account|auth|subscription|signing|encryption|license|"
    r"storage|ssh|ssl|tls|gpg|master|root|admin|service|webhook|deploy)_?key|"
    r"(?:access|auth|api|bearer|refresh|session|id|hf|hub|github|gitlab|wandb|security|csrf|"
    r"login|deploy|sas|user|service|app|bot|oauth2?)_?tokens?|"
    r"pass(?:word|wd|phrase|code)s?|pwd|secrets?|credentials?|bearer|jwt|(?:proxy_)?authori[sz]ation|"
    r"authentication|(?:http|basic|proxy|user|oauth2?)_auth|(?:set_)?cookies?|signature|connection_?string|(?:secret|access)_key_id)$"
)
_SHORT_SECRET_NAME = re.compile("token|auth|pass|pw|pat|sig")
"""Names of options, and words of sentences."""
_MAYBE_SECRET_NAME = re.compile(r"(?:^|_)(?:tokens?|keys?|auth|sig|pat|pass|pw)$")
_OF_VOCABULARY = re.compile(  # tokens of a vocabulary, keys of a table
    r"(?:^|_)(?:pad|eos|bos|unk|sep|cls|mask|stop|start|end|image|audio|video|vision|special|added|extra|boi|eoi|"
    r"think|tool|call|new|prompt|response|sort|cache|primary|group|max|num)_(?:tokens?|keys?)$"
)
_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_PLACEHOLDER = re.compile(r"\W*|\$.*|[<\[{(].*[>\]})]|none|null|true|false|empty", re.IGNORECASE | re.DOTALL)

_FORMS = re.compile(
    r"""(?<![A-Za-z0-9])(?:
      sk-[A-Za-z0-9_-]{12,} | [srp]k_(?:live|test)_[A-Za-z0-9]{10,}
    | hf_(?=[A-Za-z0-9]*[A-Z0-9])[A-Za-z0-9]{16,} | api_org_[A-Za-z0-9]{16,}
    | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,} | glpat-[\w-]{16,} | xox[abeoprs]-[\w-]{10,}
    | (?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16} | AIza[\w-]{30,} | ya29\.[\w-]{20,} | npm_[A-Za-z0-9]{30,}
    | pypi-[\w-]{40,} | nvapi-[\w-]{20,} | gsk_[A-Za-z0-9]{20,} | r8_[A-Za-z0-9]{20,} | xai-[A-Za-z0-9]{20,}
    | pplx-[A-Za-z0-9]{20,} | dop_v1_[a-f0-9]{40,} | hv[sbr]\.[\w-]{20,} | SG\.[\w-]{16,}\.[\w-]{16,}
    | wandb_v1_\w{20,} | dapi[a-f0-9]{32} | eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*
    | -----BEGIN[ A-Z]{0,30}PRIVATE\ KEY-----(?:.*?-----END[ A-Z]{0,30}PRIVATE\ KEY-----|.*)
    )""",
    re.VERBOSE | re.DOTALL,
)
_SCHEME = re.compile(r"\b(?:bearer|basic)\s+(?=[^\s\"']{0,200}[\d=._~+/-])([\w.~+/=-]{6,})", re.IGNORECASE)
_USERINFO = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://(?!git@)([^\s/?#\"'<>:@]{0,200}:[^\s\"'<>]{0,200}|[^\s/?#\"'<>]{1,200})@(?=[\w\[])",
    re.IGNORECASE,
)
# A name with its sign or as an option, at whose end the value begins.
_NAME = re.compile(
    r"(?<![\w.-])(?:(?P<option>--[A-Za-z][\w.-]{0,100})\s+|(?P<name>[A-Za-z_-][\w.-]{0,100})\\*[\"']?\s*(?P<sign>[=:])\s*)"
)
_VALUE = re.compile(
    r"""\\*"((?:[^"\\]|\\[^"]){1,4096})|\\*'((?:[^'\\]|\\[^']){1,4096})
      |(?:(?:bearer|basic|token|digest)\s+)?([^\s,;&"'\\)\]}]{1,4096})""",
    re.IGNORECASE | re.VERBOSE,
)

_RUN = re.compile(r"(?<![\w.~/+-])[\w.~/+-]{20,}={0,2}")
_SEGMENT = re.compile(r"[A-Za-z0-9]{20,}")
_HEXADECIMAL = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_PATH = re.compile(r"[/~.]|[a-z_-]{3,}/|[^/].*?(?:/[a-z_-]{3,}(?:/|$)|\.[a-z]{2,11}$)")
_LONGEST_KEY = 200
"""A longer run of letters and digits is an encoded text or picture."""


def names_credential(name: str, value: str | int | float, *, in_prose: bool = False) -> bool:
    """Whether what stands behind a name is a credential: of an option, a header, a variable, a key of a table.

    `in_prose`: the name may be a word of a sentence that ends with a colon.
    """
    words = _words(name)
    if words is None or isinstance(value, bool) or _PLACEHOLDER.fullmatch(text := str(value)):
        return False
    if not isinstance(value, str) and words.endswith(("token", "tokens")):
        return False  # the id of one, or how many
    if _SECRET_NAME.search(words) or (_SHORT_SECRET_NAME.fullmatch(words) and not in_prose):
        return True
    return len(text) >= 6 and any(map(str.isdigit, text)) and any(map(str.isalpha, text)) and " " not in text


def _words(name: str) -> str | None:
    """The words of a name that may be a credential's, joined by "_"; None for any other."""
    words = _WORD_BOUNDARY.sub("_", name).strip("_").lower()
    may_be = _SECRET_NAME.search(words) or _MAYBE_SECRET_NAME.search(words) or _SHORT_SECRET_NAME.fullmatch(words)
    return words if may_be and not _OF_VOCABULARY.search(words) else None


def certain_spans(text: str) -> Iterator[Span]:
    """Where in a text credentials stand that a name, a form, a scheme or a URL gives away."""
    yield from (match.span() for match in _FORMS.finditer(text))
    yield from (match.span(1) for match in _SCHEME.finditer(text))
    yield from (match.span(1) for match in _USERINFO.finditer(text))
    for match in _NAME.finditer(text):
        name = match["option"] or match["name"]
        value = _VALUE.match(text, match.end()) if _words(name) is not None else None
        if value is None or (match["option"] and value[0].startswith("-")):
            continue
        said, quoted = value[value.lastindex or 0], value[0][0] in "\\\"'"
        if names_credential(name, said, in_prose=match["sign"] == ":" and not quoted):
            yield value.span(value.lastindex or 0)


def random_spans(text: str) -> Iterator[Span]:
    """Where in a text characters follow each other as in a key, by entropy alone."""
    for match in _RUN.finditer(text):
        run = match[0]
        if run.startswith("//"):  # of a URL, which keeps its host
            found = (segment for segment in _SEGMENT.finditer(text, *match.span()) if _is_random(segment[0]))
            yield from (segment.span() for segment in found)
            continue
        of_a_key = len(run) <= _LONGEST_KEY and not _PATH.match(run) and not _encodes_text(run)
        if of_a_key and any(map(_is_random, _SEGMENT.findall(run))):
            yield match.span()


def _is_random(segment: str) -> bool:
    """Whether classes of characters alternate as often as by lot.

    Of two characters drawn from 62 letters and digits, 62 % are of two classes; of two in the name of a class or
    a model, about a third. From 36, without capitals, it is 40 %. The bounds are two standard deviations below, at
    the lengths of keys.
    """
    if _HEXADECIMAL.fullmatch(segment):
        return False
    kinds = ["a" if character.islower() else "A" if character.isupper() else "0" for character in segment]
    changes = sum(a != b for a, b in pairwise(kinds)) / (len(kinds) - 1)
    digits = kinds.count("0")
    if "a" in kinds and "A" in kinds:
        words = sum(len(word) for word in re.findall(r"[a-z]{3,}", segment)) / len(segment)
        return digits >= 2 and changes >= 0.4 and words < 0.4
    return "a" in kinds and len(segment) >= 24 and digits >= 4 and changes >= 0.3


def _encodes_text(run: str) -> bool:
    """Whether it is base64 of something that a person can read."""
    digits = run.rstrip("=")
    try:
        decoded = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
        return decoded.decode().replace("\n", "").isprintable()
    except (binascii.Error, ValueError):
        return False
