"""What an engine is. To add one: write a folder with a subclass of `Engine`, add one line to `registry.ENGINES`.

An engine lives in a worker process of its own, in the interpreter of its environment, and handles one batch at a
time; the worker plans the batches, writes each finished sequence to disk and skips what a killed run had finished.
This module is imported on both sides of that border: the standard library and numpy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ..composition import BatchComposition, Padding, PrefixCache
from ..measures.tensor_results import TensorRecord
from ..records import EvidenceLevel, Request, SequenceRecord, Task


@dataclass(frozen=True)
class Capabilities:
    """What an engine can see and do. A probe asks for nothing else; what is missing becomes one clear sentence."""

    evidence: tuple[EvidenceLevel, ...] = ("sampled",)
    paths: tuple[str, ...] = ("prefill",)  # how it can score given tokens: "decode", "prefill"
    paddings: tuple[Padding, ...] = ()  # layouts of a prefill that a task can ask for; none: it is the engine's own
    prefix_caches: tuple[PrefixCache, ...] = ()  # how a task can have its cache of prompts begin
    rollout: bool = True
    weights: bool = False  # whether it can hold what it has loaded against the checkpoint
    internals: bool = False  # whether it shows what is inside the model, routing among it
    injection: bool = False  # whether other values can be put in there


def option(default: Any, help: str) -> Any:
    """A field of `Options`: the key's default, and what the documentation says of it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Options:
    """The keys of an engine SPEC. Subclass it per engine: a field, made by `option`, is a key."""

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
        model                       {name, path, architecture, weights_sha256, vocabulary_size, dtype_stored,
                                    config, generation_config, files, chat_template_sha256}
        tokenizer_sha256, eos_token_ids, max_length
        settings                    the options as requested
        effective                   the options as the engine ended up using them; of what a task may change of them
                                    (batch size, order, padding) the defaults
        environment                 {python, torch, transformers, device, device_name, threads, variables, ...}
        notes                       remarks for people on this run, whole sentences; may be left out
    """

    name: ClassVar[str]
    options_type: ClassVar[type[Options]]
    capabilities: ClassVar[Capabilities]
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions in the engine's interpreter, in another version of which it is another engine."""

    @classmethod
    def capabilities_with(cls, options: Any) -> Capabilities:
        """Its capabilities where it is told this."""
        return cls.capabilities

    def __init__(self, model: str, options: Any) -> None:
        self.model = model
        self.options = options

    @property
    def batch_size(self) -> int:
        """How many sequences make a batch where the task does not say: the option of that name."""
        return self.options.batch_size

    @property
    def default_composition(self) -> BatchComposition:
        """The batches of a task as far as it leaves them open."""
        return BatchComposition(batch_size=self.batch_size, order="given")

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
        """Sample a response to every request of one batch, yielding each as it finishes.

        Draws depend on (task.sampling.seed, sequence_id) alone, never on the position in the batch.
        """

    @abstractmethod
    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        """Force the given responses through `task.path` and report the log-probs `task.evidence` asks for.

        The batch is what is to be computed together, row by row; `task.composition.padding` is its layout, None for
        the engine's own. Asked for another than `capabilities.paddings` has, the worker refuses the task.
        """

    def weights(self) -> Sequence[TensorRecord]:
        """Hold every tensor that was loaded against the checkpoint on disk, where the tensors are.

        Asked of an engine alone whose `capabilities.weights` says that it can.
        """
        raise NotImplementedError

    def internals(self, batch: Sequence[Request], task: Task) -> None:
        """Read whole sequences, prompt and response, and write what was computed inside: a file of each into
        `task.parts` (`common.stage_files`), with the `task.stages` that there are.

        With `task.inputs`, a directory of such files, their values take the place of what the stages return.
        Asked of an engine alone whose `capabilities.internals` (and `injection`) says that it can.
        """
        raise NotImplementedError

    def update(self, model: str) -> None:
        """Take another checkpoint's weights, of the same model, as the engine does between two steps of RL;
        `weights` is then of that one. Asked of an engine alone that shows its weights."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what `load` took."""
        return None
