"""Attaches a hook in processes that a trainer starts itself: its Ray actors.

    export MISMATCHSCOPE_RECORD=/logs/run-7
    ray job submit --runtime-env-json \\
        '{"worker_process_setup_hook": "mismatchscope.integrations.openrlhf.setup"}' -- python -m openrlhf…

Ray calls `setup` in every process that it starts. It attaches nothing where the trainer's module is never imported.
"""

from __future__ import annotations

import importlib.abc
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from ..errors import UsageError
from ..logs.recorder import Recorder

DIRECTORY = "MISMATCHSCOPE_RECORD"
"""The environment variable that says where to record."""


def recorder_from_environment(trainer: str) -> Recorder:
    """A recorder in the directory that the environment names. Raises `UsageError` where it names none."""
    directory = os.environ.get(DIRECTORY)
    if not directory:
        raise UsageError(
            f"{DIRECTORY} is not set, so there is no directory to record {trainer} in.",
            hint=f"export {DIRECTORY}=/path/to/logs",
        )
    return Recorder(directory, trainer=trainer)


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Call `action` once the module of this name is imported: now, or as soon as somebody imports it.

    What `action` raises, the import raises.
    """
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Finder(name, action))


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the other finders find one module, and runs an action after it was executed."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name, self.action = name, action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module: ModuleType) -> None:
                execute(module)
                self.action()

            spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec
