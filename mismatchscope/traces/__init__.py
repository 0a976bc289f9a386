"""Traces on disk: the interface between whoever records a policy and whoever compares two of them."""

from .reader import Trace
from .schema import Manifest, ModelFacts, TraceCounts, read_manifest
from .store import create, finish, write_records

__all__ = ["Manifest", "ModelFacts", "Trace", "TraceCounts", "create", "finish", "read_manifest", "write_records"]
