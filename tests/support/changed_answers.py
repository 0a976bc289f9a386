"""What is changed in a server's answer, by its path in the JSON, and how an engine must take it."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from evil_server import ChangingServer

from mismatchscope.errors import EngineError, MismatchScopeError, ModelError

Change = Callable[[Any], Any]


def at(*path: Any, value: Any) -> Change:
    """Sets what a path of keys and indices leads to; a function makes the value of the old one."""

    def change(response: Any) -> None:
        for key in path[:-1]:
            response = response[key]
        response[path[-1]] = value(response[path[-1]]) if callable(value) else value

    return change


def both(*changes: Change) -> Change:
    def change(response: Any) -> None:
        for part in changes:
            part(response)

    return change


CHOICE = ("choices", 0)
LISTED = (*CHOICE, "logprobs")
META = ("meta_info",)


def refused(action: Callable[[], Any], server: ChangingServer) -> None:
    """The engine ends with one sentence about the server, soon, without much memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(MismatchScopeError) as caught:
            action()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 10
    message = caught.value.message
    assert isinstance(caught.value, EngineError | ModelError), message
    assert server.url in message or message.startswith("The server"), message
    assert message.endswith(".") and len(message) < 500 and "\n" not in message, message
    assert "[3, 9" not in message, "prompts may be confidential"
