"""Engine environments: vLLM and SGLang each pin their own torch, so each version gets an environment of its own."""

from __future__ import annotations

from .resolve import interpreter
from .store import Environment, create, describe, find, installed, remove

__all__ = ["Environment", "create", "describe", "find", "installed", "interpreter", "remove"]
