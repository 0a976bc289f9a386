"""A pickle read as data. Python's own unpickler calls whatever a file names; this one calls nothing of that kind.

It knows the instructions that describe data: numbers, texts, bytes, lists, dictionaries, tuples. A name in the file
is looked up among a few that the caller gives, each of which stands for a function of ours; any other name, and any
other instruction, is refused before anything is made of it. Instructions: Python's `pickletools`.

What is made is bounded by the file: a length must fit into what is left of it, a memo may have any number but takes
one entry an instruction, lists, dictionaries and whatever is made by a call are counted, and so are copied bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from ..foreign_text import printable
from .number_runs import floats_at, ints_at

MAX_CONTAINERS = 5_000_000
"""Lists, dictionaries and tuples: some 400 MiB of them. Logs have one a column and sample."""

_MAX_NAME = 256
_MAX_DEPTH = 1000
_MAX_INT_BYTES = 64
_LARGE = 4096  # bytes from which on they are not copied
_HIGHEST_PROTOCOL = 5
_TRUNCATED = "it ends before it is complete"


class RefusedFileError(ValueError):
    """A file that is not of the expected kind, or names what no log needs; the text is a clause."""


class ForeignObjectError(RefusedFileError):
    """A file with an object that no log needs, which somebody put beside what a log does."""


class Unbuilt:
    """What a stand-in makes of something whose state follows: `build` is given the state and makes the value."""

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self.build = build
        self.value: Any = None
        self.is_built = False


class _Name:
    """A name in the stream, which is nothing but itself until it is called."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


def parse(
    data: Any, stand_ins: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None
) -> tuple[Any, int]:
    """The value in a pickle, and where it ends.

    `data` is bytes, a memory map or a memoryview; large bytes in it come as views of it. `stand_ins` has for every
    "module name" that may occur the function that is called in its place, or another value that stands for it.
    `persistent` is given what is stored outside of the pickle. Raises `RefusedFileError`.
    """
    return _Reader(memoryview(data), stand_ins, persistent).read()


class _Reader:
    def __init__(
        self, data: memoryview, stand_ins: Mapping[str, Any], persistent: Callable[[Any], Any] | None
    ) -> None:
        self.data = data
        self.stand_ins = stand_ins
        self.persistent = persistent
        self.at = 0
        self.containers = self.copied = 0
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}

    def read(self) -> tuple[Any, int]:
        if bytes(self.data[:1]) != b"\x80":
            raise RefusedFileError("it is no pickle")
        try:
            while (code := self.take(1)[0]) != 0x2E:  # STOP
                step = _STEPS.get(code)
                if step is None:
                    raise RefusedFileError(f"it has the instruction {bytes([code])!r}, which no data needs")
                step(self)
            return self.stack.pop(), self.at
        except IndexError:
            raise RefusedFileError("its instructions do not fit together") from None
        except (struct.error, UnicodeDecodeError, OverflowError, TypeError, KeyError) as error:
            raise RefusedFileError(f"it is broken ({type(error).__name__})") from None

    def take(self, count: int) -> memoryview:
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise RefusedFileError(_TRUNCATED)
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, layout: str) -> int:
        return int(struct.unpack(layout, self.take(struct.calcsize(layout)))[0])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def new(self, container: Any) -> None:
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise RefusedFileError(f"it has more than {MAX_CONTAINERS:,} lists, dictionaries and the like")
        self.stack.append(container)

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    # Numbers and texts

    def numbers(self, decode: Callable[[memoryview, int], tuple[list[Any], int]]) -> None:
        values, end = decode(self.data, self.at - 1)
        if not values:
            raise RefusedFileError(_TRUNCATED)
        self.stack += values
        self.at = end

    def long(self, layout: str) -> None:
        count = self.number(layout)
        if not 0 <= count <= _MAX_INT_BYTES:
            raise RefusedFileError(f"it has an integer of {count} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def text(self, layout: str) -> None:
        self.push(str(self.take(self.number(layout)), "utf-8", "surrogatepass"))

    def bytes(self, layout: str) -> None:
        taken = self.take(self.number(layout))
        self.push(taken if len(taken) > _LARGE else bytes(taken))

    # Containers

    def append(self) -> None:
        item = self.stack.pop()
        self._list().append(item)

    def appends(self) -> None:
        items = self.since_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if type(self.stack[-1]) is not list:
            raise RefusedFileError("it appends to what is no list")
        return self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise RefusedFileError("it sets entries of what is no dictionary")
        keys = items[::2]
        # Tuples within tuples could take for ever to hash.
        if not all(key is None or type(key) in (str, int, float, bool, bytes) for key in keys):
            raise RefusedFileError("it has a dictionary with keys that are neither texts nor numbers")
        target.update(zip(keys, items[1::2], strict=True))

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise IndexError
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        self.new(tuple(items))

    # The memo

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def get(self, key: int) -> None:
        value = self.memo[key]
        self.push(value.value if type(value) is Unbuilt and value.is_built else value)

    # Names, and what is called in their place

    def global_name(self) -> None:
        lines = []
        for _ in range(2):
            rest = bytes(self.data[self.at : self.at + _MAX_NAME])
            end = rest.find(b"\n")
            if end < 0:
                raise RefusedFileError("it has a name without an end")
            lines.append(rest[:end].decode())
            self.at += end + 1
        self.name(*lines)

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise RefusedFileError("it has a name that is no text")
        self.name(module, name)

    def name(self, module: str, name: str) -> None:
        key = f"{module} {name}"
        if key not in self.stand_ins:
            shown = printable(f"{module}.{name}")[:_MAX_NAME]
            raise ForeignObjectError(f"it names {shown}, which no log needs; nothing of it was run")
        found = self.stand_ins[key]
        self.push(_Name(found) if callable(found) else found)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Name or type(arguments) is not tuple:
            raise RefusedFileError("it calls what is no function")
        made = function.call(*arguments)
        self.copied += len(made) if type(made) is bytes else 0
        if self.copied > len(self.data):
            raise RefusedFileError("it makes more of its bytes than it has")
        self.new(made)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack.pop()
        if type(target) is not Unbuilt or target.is_built:
            raise RefusedFileError("it gives a state to what has none")
        target.value, target.is_built = target.build(state), True
        self.push(target.value)

    def stored_elsewhere(self) -> None:
        if self.persistent is None:
            raise RefusedFileError("it points to what is stored outside of it")
        self.push(self.persistent(self.stack.pop()))

    def frame(self) -> None:
        if self.number("<Q") > len(self.data) - self.at:
            raise RefusedFileError(_TRUNCATED)

    def protocol(self) -> None:
        protocol = self.take(1)[0]
        if protocol > _HIGHEST_PROTOCOL:
            raise RefusedFileError(f"its pickle protocol is {protocol}, the latest known is {_HIGHEST_PROTOCOL}")

    def mark(self) -> None:
        if len(self.outer) >= _MAX_DEPTH:
            raise RefusedFileError(f"it is nested more than {_MAX_DEPTH:,} deep")
        self.outer.append(self.stack)
        self.stack = []


_STEPS: dict[int, Callable[[_Reader], None]] = {
    **dict.fromkeys(b"KMJ", lambda reader: reader.numbers(ints_at)),
    ord("G"): lambda reader: reader.numbers(floats_at),
    0x8A: lambda reader: reader.long("<B"),
    0x8B: lambda reader: reader.long("<i"),
    ord("N"): lambda reader: reader.push(None),
    0x88: lambda reader: reader.push(True),
    0x89: lambda reader: reader.push(False),
    0x8C: lambda reader: reader.text("<B"),
    ord("X"): lambda reader: reader.text("<I"),
    0x8D: lambda reader: reader.text("<Q"),
    ord("C"): lambda reader: reader.bytes("<B"),
    ord("B"): lambda reader: reader.bytes("<I"),
    0x8E: lambda reader: reader.bytes("<Q"),
    0x96: lambda reader: reader.bytes("<Q"),
    ord("]"): lambda reader: reader.new([]),
    ord("}"): lambda reader: reader.new({}),
    ord(")"): lambda reader: reader.new(()),
    ord("("): _Reader.mark,
    ord("a"): _Reader.append,
    ord("e"): _Reader.appends,
    ord("s"): _Reader.set_item,
    ord("u"): lambda reader: reader.set_items(reader.since_mark()),
    ord("t"): lambda reader: reader.new(tuple(reader.since_mark())),
    0x85: lambda reader: reader.tuple_of(1),
    0x86: lambda reader: reader.tuple_of(2),
    0x87: lambda reader: reader.tuple_of(3),
    ord("q"): lambda reader: reader.put(reader.number("<B")),
    ord("r"): lambda reader: reader.put(reader.number("<I")),
    0x94: lambda reader: reader.put(len(reader.memo)),
    ord("h"): lambda reader: reader.get(reader.number("<B")),
    ord("j"): lambda reader: reader.get(reader.number("<I")),
    ord("0"): lambda reader: reader.stack.pop(),
    ord("c"): _Reader.global_name,
    0x93: _Reader.stack_name,
    ord("R"): _Reader.call,
    ord("b"): _Reader.build,
    ord("Q"): _Reader.stored_elsewhere,
    0x95: _Reader.frame,
    0x80: _Reader.protocol,
}
