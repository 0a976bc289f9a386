"""Seeded damage to files: to their bytes, to their lines, and to the values of a JSON document."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]


def _truncated(random_: random.Random, data: bytes) -> bytes:
    return data[: random_.randrange(len(data))] if data else data


def _emptied(random_: random.Random, data: bytes) -> bytes:
    return b""


def _bit_flipped(random_: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 3, 20))):
        if changed:
            changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def _bytes_overwritten(random_: random.Random, data: bytes) -> bytes:
    at, length = random_.randrange(len(data) + 1), random_.choice((1, 4, 8, 64, 4096))
    filler = random_.choice((bytes(length), b"\xff" * length, random_.randbytes(length), b"[" * length))
    return data[:at] + filler + data[at + length :]


def _bytes_inserted(random_: random.Random, data: bytes) -> bytes:
    at = random_.randrange(len(data) + 1)
    return data[:at] + random_.randbytes(random_.choice((1, 3, 100))) + data[at:]


def _bytes_removed(random_: random.Random, data: bytes) -> bytes:
    at = random_.randrange(len(data) + 1)
    return data[:at] + data[at + random_.choice((1, 8, 500)) :]


def _garbage_appended(random_: random.Random, data: bytes) -> bytes:
    return data + random_.choice((b"\x00" * 16, b"\n{}\n", random_.randbytes(40), data))


def _replaced(random_: random.Random, data: bytes) -> bytes:
    return random_.choice(
        (
            b"null",
            b"[]",
            b"{}",
            b'"text"',
            b"7",
            b"-1e999",
            b"NaN",
            b"PAR1PAR1",
            b"PAR1" + bytes(20) + b"PAR1",
            b"\x00" * 100,
            b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
            b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"9" * 5000,
            random_.randbytes(300),
            b"\x1f\x8b\x08\x00",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n",
            b"<html><body>404</body></html>\n",
        )
    )


BYTES: dict[str, Mutation] = {
    "truncated": _truncated,
    "emptied": _emptied,
    "bits flipped": _bit_flipped,
    "bytes overwritten": _bytes_overwritten,
    "bytes inserted": _bytes_inserted,
    "bytes removed": _bytes_removed,
    "garbage appended": _garbage_appended,
    "replaced": _replaced,
}


def _lines_damaged(random_: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    at = random_.randrange(len(lines))
    match random_.randrange(4):
        case 0:
            lines.insert(at, lines[at])
        case 1:
            del lines[at]
        case 2:
            other = random_.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] *= random_.choice((2, 1000))
    return b"".join(lines)


def _encoded_otherwise(random_: random.Random, data: bytes) -> bytes:
    text = data.decode(errors="replace")
    match random_.randrange(6):
        case 0:
            return b"\xef\xbb\xbf" + data
        case 1:
            return text.replace("\n", "\r\n").encode()
        case 2:
            return text.encode("utf-16")
        case 3:
            return data.replace(b"e", b"\xe9", 1)
        case 4:
            return data.replace(b'"', b'"\\ud800', 1)
        case _:
            return data.replace(b'"', b'"\\u0000\x1b[31m\xe2\x80\xae', random_.randrange(1, 9))


TEXT: dict[str, Mutation] = BYTES | {"lines damaged": _lines_damaged, "encoded otherwise": _encoded_otherwise}


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "\ud800", "\x00", "../..", "1", "nan", "Infinity", "a" * 5000),
    *(0, -1, 1, 2, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 5e-324),
    *(math.nan, math.inf, -math.inf),
    *([], {}, [[]], [None], {"": None}, {"\ud800": 1}, [0] * 3, [[[[1]]]], {"a": {"b": {}}}),
)


def json_damaged(random_: random.Random, data: bytes) -> bytes:
    """Some values, keys or entries of a JSON document are others, gone or there twice."""
    document = json.loads(data)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        document = _damage_once(random_, document)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _damage_once(random_: random.Random, document: Any) -> Any:
    places = [*_places(document, None, None)]
    container, key = random_.choice(places)
    if container is None:
        return copy.deepcopy(random_.choice(ODD_VALUES))
    match random_.randrange(8):
        case 0:
            del container[key]
        case 1 if isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        case 1:
            container[random_.choice(("\ud800", "", "x" * 300, f"{key}_", f"{key} "))] = copy.deepcopy(
                container[key]
            )
        case 2 if isinstance(container[key], str):
            container[key] = random_.choice((container[key] + "x", container[key].upper(), container[key][:-1]))
        case 2 if isinstance(container[key], int | float):
            number = container[key]
            container[key] = random_.choice((-number, number + 1, str(number), [number], float(number) * 10))
        case 3:
            _, other = random_.choice(places)
            found = next((c for c, k in places if c is not None and k == other), container)
            container[key] = copy.deepcopy(found.get(other) if isinstance(found, dict) else document)
        case 4:
            deep: Any = 1
            for _ in range(random_.choice((5, 150))):
                deep = [deep] if random_.random() < 0.5 else {"a": deep}
            container[key] = deep
        case _:
            container[key] = copy.deepcopy(random_.choice(ODD_VALUES))
    return document


def _places(value: Any, container: Any, key: Any) -> Any:
    yield container, key
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield from _places(entry, value, name)


JSON: dict[str, Mutation] = TEXT | {f"values damaged {n}": json_damaged for n in range(10)}
"""Ten times as often as each kind of damage to its bytes."""


def json_lines_damaged(random_: random.Random, data: bytes) -> bytes:
    lines = data.splitlines()
    at = random_.randrange(len(lines))
    lines[at] = json_damaged(random_, lines[at])
    return b"\n".join(lines) + b"\n"


JSON_LINES: dict[str, Mutation] = TEXT | {f"values damaged {n}": json_lines_damaged for n in range(8)}


def mutate(mutations: dict[str, Mutation], random_: random.Random, data: bytes) -> tuple[str, bytes]:
    """The name of a random mutation, and what it made of `data`."""
    name = random_.choice([*mutations])
    return name, mutations[name](random_, data)
