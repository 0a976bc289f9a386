"""What an engine is. To add one: write one file with a subclass of `Engine`, add one line to `registry.ENGINES`.

An engine lives in a worker process of its own, in the interpreter of its environment, and handles one batch at a
time; the worker plans the batches, writes each finished sequence to disk and skips what a killed run had finished.
This module is imported on both sides of that border: the standard library and numpy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from ..records import EvidenceLevel, Request, SequenceRecord, Task


@dataclass(frozen=True)
class Capabilities:
    """What an engine can see and do. A probe asks for nothing else; what is missing becomes one clear sentence."""

    evidence: tuple[EvidenceLevel, ...] = ("sampled",)
    paths: tuple[str, ...] = ("prefill",)  # how it can score given tokens: "decode", "prefill"
    rollout: bool = True
    routing: bool = False


@dataclass(frozen=True)
class Options:
    """The keys of an engine SPEC. Subclass it per engine: a field is a key, its default the default.

    `help` metadata of each field is what the documentation and the error for an unknown key show.
    """

    others: ClassVar[str | None] = None
    """The field, a table or None, that takes every key which is no field; None: such a key is an error."""

    @classmethod
    def keys(cls) -> list[str]:
        return [field.name for field in fields(cls)]


class Engine(ABC):
    """One model, loaded once, asked for batches.

    `load` raises `errors.ModelError` for a model it cannot read or does not support. `facts` is the provenance of
    this run and goes into the manifest of every trace:

        engine, engine_version      names
        model                       {name, path, architecture, weights_sha256, vocabulary_size, dtype_stored}
        tokenizer_sha256, eos_token_ids, max_length
        settings                    the options as requested
        effective                   the options as the engine ended up using them
        environment                 {python, torch, transformers, device, device_name, threads, variables, ...}
    """

    name: ClassVar[str]
    options_type: ClassVar[type[Options]]
    capabilities: ClassVar[Capabilities]

    def __init__(self, model: str, options: Any) -> None:
        self.model = model
        self.options = options

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """How many sequences the worker hands over at a time."""

    @property
    def order(self) -> Literal["given", "length"]:
        """Whether batches take the sequences as they come, or the longest first, which wastes less on padding."""
        return "given"

    @abstractmethod
    def load(self) -> None:
        """Load the model and tokenizer; everything slow that is not per sequence happens here."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Provenance as described above; JSON-serialisable."""

    def check(self, requests: Sequence[Request], task: Task) -> None:
        """Refuse what cannot be run (a prompt too long, a foreign token id) before the first batch is. Optional."""
        return None

    @abstractmethod
    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Sample a response to every request, yielding each as it finishes.

        Draws depend on (task.sampling.seed, sequence_id) alone, never on the position in the batch.
        """

    @abstractmethod
    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Force the given responses through `task.path` and report the log-probs `task.evidence` asks for."""

    def close(self) -> None:
        """Free what `load` took."""
        return None
