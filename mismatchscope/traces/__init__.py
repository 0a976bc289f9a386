"""Traces on disk: the interface between whoever records a policy and whoever compares two of them."""

from .reader import Trace
from .schema import Manifest, ModelFacts, TraceCounts, read_manifest
from .store import create, finish, write_trace

__all__ = ["Manifest", "ModelFacts", "Trace", "TraceCounts", "create", "finish", "read_manifest", "write_trace"]
