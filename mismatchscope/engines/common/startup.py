"""Starting an engine of somebody else's: the variables that it reads, and in one sentence why it did not start."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ...errors import EngineError, MismatchScopeError, ModelError, SpecError, UsageError
from ...machine import hardware
from .adapter import Adapter

_ABOUT_MEMORY = re.compile(r"\bmemory\b|no room for", re.IGNORECASE)
_ABOUT_THE_MODEL = re.compile(r"architecture|model type|checkpoint|safetensors|weights", re.IGNORECASE)
_ABOUT_ADAPTERS = re.compile(r"lora|adapter|peft|modules_to_save", re.IGNORECASE)
_LONGEST_REASON = 400


def set_default_variables(model: str, variables: Mapping[str, str]) -> None:
    """Set what torch and an engine read when they are imported; what the user has set stays."""
    defaults = dict(variables)
    if Path(model, "config.json").is_file():  # an adapter's base may have to be fetched
        defaults["HF_HUB_OFFLINE"] = "1"
    if not hardware()["gpus"]:
        # Engines take one thread a core, and are many times slower when a core has something else to do.
        defaults["OMP_NUM_THREADS"] = "1"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def import_errors(package: str, engine: str) -> Iterator[None]:
    """Tell apart the package that is not there (ModuleNotFoundError) and the one that is broken (`EngineError`)."""
    try:
        yield
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise
        raise EngineError(
            f"{engine} is in {sys.executable}, but importing it fails: {reason_of(error)}",
            hint=f"{package}:python=PATH runs it elsewhere; mismatchscope env create {package} makes such a place "
            "and prints its PATH",
        ) from error


@contextmanager
def start_errors(
    engine: str,
    model: Path,
    *,
    memory_hint: str,
    refusals: tuple[type[Exception], ...],
    find_cause: Callable[[], Exception | None] = lambda: None,
    adapter: Adapter | None = None,
) -> Iterator[None]:
    """Tell apart the want of memory, the model or adapter that an engine cannot run, and the settings it refuses.

    `engine` is its name and version, `refusals` what it raises for settings. `find_cause` looks up why a process of
    the engine's ended, where the exception does not say.
    """
    try:
        yield
    except (MismatchScopeError, ImportError):
        raise
    except Exception as error:
        cause = find_cause() or error
        if isinstance(cause, UsageError):
            raise cause from error
        reason = reason_of(cause)
        if is_about_memory(cause):
            raise EngineError(f"{engine} does not start: {reason}", hint=memory_hint) from error
        if adapter is not None and _ABOUT_ADAPTERS.search(reason):
            raise ModelError(
                f"{engine} cannot run the adapter in {adapter.directory} on the model in {model}: {reason}",
                hint=adapter.merge_hint,
            ) from error
        if _ABOUT_THE_MODEL.search(reason):
            raise ModelError(
                f"{engine} cannot run the model in {model}: {reason}",
                hint=f"another version of {engine.partition(' ')[0]}, or the engine transformers",
            ) from error
        if isinstance(cause, refusals):
            raise SpecError(f"{engine} refuses these settings: {reason}") from error
        kind = "" if isinstance(cause, MismatchScopeError) else f"{type(cause).__name__}: "
        raise EngineError(f"{engine} does not start: {kind}{reason}") from error


def is_about_memory(error: Exception) -> bool:
    """Whether an exception is about the want of memory."""
    return isinstance(error, MemoryError) or _ABOUT_MEMORY.search(str(error)) is not None


def reason_of(error: Exception) -> str:
    """The first thing an exception says: pydantic, which checks the settings of some engines, says much more."""
    if hasattr(error, "errors") and (details := error.errors()):
        where = ".".join(str(part) for part in details[0]["loc"][:1])
        reason = f"{where}: {details[0]['msg']}".removeprefix(": ").removeprefix("Value error, ")
    else:
        reason = str(error)
    reason = " ".join(reason.split())
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
