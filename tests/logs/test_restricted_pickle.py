"""A pickle is read as data: what Python's own would make of it, or a refusal, and never a call."""

from __future__ import annotations

import contextlib
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.logs import restricted_pickle
from mismatchscope.logs.restricted_pickle import RefusedFileError, parse

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=40)
@given(value=VALUES, protocol=st.integers(3, 5))
def test_data_is_what_python_reads(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert parse(data, {}) == (value, len(data))


@given(values=st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 300) | st.floats(allow_nan=False)))
def test_long_lists_of_numbers_keep_their_types(values: list[float]) -> None:
    found, _ = parse(pickle.dumps(values * 20, 2), {})
    assert found == values * 20
    assert [type(value) for value in found] == [type(value) for value in values * 20]


@given(data=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(RefusedFileError):
        parse(b"\x80\x04" + data, {})


@given(value=VALUES, cut=st.floats(0, 1))
def test_the_beginning_of_a_pickle_is_refused(value: Any, cut: float) -> None:
    data = pickle.dumps(value, 4)
    with pytest.raises(RefusedFileError):
        parse(data[: int(cut * (len(data) - 1))], {})


def test_what_is_in_it_twice_is_one_thing() -> None:
    inner: list[int] = [1]
    found, _ = parse(pickle.dumps([inner, inner], 4), {})
    assert found[0] is found[1]


class Command:
    """What an attacker sends: its unpickling would call something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


CALLED: list[str] = []


def called(text: str) -> str:
    CALLED.append(text)
    return text


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    "within", [lambda bad: bad, lambda bad: [1, {"a": (bad,)}], lambda bad: Command(dict, [bad])]
)
def test_other_names_are_refused_by_name_and_not_called(protocol: int, within: Any) -> None:
    data = pickle.dumps(within(Command(called, "now")), protocol)
    with pytest.raises(RefusedFileError, match=r"it names (\S+\.called|\S+\.dict), which no log needs"):
        parse(data, {})
    assert CALLED == []


def test_names_are_made_safe_to_show() -> None:
    with pytest.raises(RefusedFileError, match=r"it names os\\x1b\[2J\.system"):
        parse(b"\x80\x02cos\x1b[2J\nsystem\n.", {})


def test_an_allowed_name_is_called_in_its_place_alone() -> None:
    data = pickle.dumps(Command(called, "text"), 4)
    module = called.__module__
    assert parse(data, {f"{module} called": lambda text: text.upper()})[0] == "TEXT"
    assert CALLED == []


def test_an_allowed_name_is_called_with_what_was_called() -> None:
    """A name is no function that data could hand on: `map(eval, …)` has no counterpart."""
    module = called.__module__
    data = pickle.dumps(Command(called, called), 4)
    found, _ = parse(data, {f"{module} called": type})
    assert found.__module__ == restricted_pickle.__name__


BOMBS = {
    "bytes of 2**62": b"\x8e" + struct.pack("<Q", 2**62),
    "text of 2**31": b"X" + struct.pack("<I", 2**31),
    "text of 2**63": b"\x8d" + struct.pack("<Q", 2**63),
    "array of 2**62": b"\x96" + struct.pack("<Q", 2**62),
    "integer of 2**31 bytes": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01" * 100,
    "frame of 2**62": b"\x95" + struct.pack("<Q", 2**62),
    "a name without an end": b"cos" + b"m" * 1000,
    "marks": b"(" * 2000,
    "lists": b"]" * 2000,
    "an object": b"\x8c\x01a\x8c\x01b\x93)\x81",
    "a set": b"\x8f",
    "a persistent name": b"Pabc\n",
    "an extension": b"\x82\x01",
    "an instance": b"(icollections\nOrderedDict\n",
    "a state for a list": b"]N" + b"b",
    "calling a list": b"])R",
    "entries of a list": b"]K\x01K\x02s",
    "a tuple within a tuple as a key": b"}))\x85N" + b"s",
    "a memo that is not there": b"h\x07",
    "protocol 9": b"\x80\x09",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricted_pickle, "MAX_CONTAINERS", 1000)
    with pytest.raises(RefusedFileError):
        parse(b"\x80\x04" + BOMBS[name] + b".", {})


def test_a_memo_takes_no_more_than_what_is_in_it() -> None:
    """Python's own makes room for 2³² entries."""
    assert parse(b"\x80\x02K\x07r\xff\xff\xff\xff0j\xff\xff\xff\xff.", {})[0] == 7


def test_copies_of_bytes_are_counted() -> None:
    """Five bytes that make a megabyte of the one that is there, a thousand times."""
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20
    data = b"\x80\x02" + text + b"q\x000" + b"cx\nencode\nq\x010" + b"h\x01h\x00\x85R" * 1000 + b"."
    with pytest.raises(RefusedFileError, match="more of its bytes than it has"):
        parse(data, {"x encode": lambda text: text.encode()})


def test_lists_within_lists_of_the_same_list_take_no_room() -> None:
    """Ten of ten of ten …: 10³⁰ numbers for whoever copies them."""
    data = b"\x80\x02](K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01eq\x00"
    for layer in range(30):
        data += b"](" + (b"h" + bytes([layer])) * 10 + b"eq" + bytes([layer + 1])
    found, _ = parse(data + b".", {})
    assert len(found) == 10
