"""What the SPECs of several engines have in common: smallest values, and an engine's own arguments as keys."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ...errors import CapabilityError, SpecError
from ..base import Options

ADAPTER_HELP = "directory of a PEFT adapter to run on top of the model; none: the model alone, whatever --model is"

_OURS = ("batch_size", "adapter")
"""Keys that are no arguments of an engine's."""


def check_least(engine: str, options: Options, least: Mapping[str, float]) -> None:
    """Raise `SpecError` for an option below its smallest value; None is none at all."""
    for key, smallest in least.items():
        value = getattr(options, key)
        if value is not None and value < smallest:
            raise SpecError(f"{engine}: {key}={value} is below {smallest}.", hint=f"{key}={smallest}")


@dataclass(frozen=True)
class EngineArguments(Options):
    """Options that are handed on to an engine as arguments of its own; any other argument of it is a key too.

    An option that is None leaves the choice to the engine.
    """

    engine: ClassVar[str]
    """The engine's name in a SPEC."""
    at_least_one: ClassVar[tuple[str, ...]]
    """The options that count something."""
    reserved: ClassVar[tuple[str, ...]]
    """Arguments that mismatchscope sets."""
    distributed: ClassVar[tuple[str, ...]]
    """Arguments that, other than 1, have tokens drawn in processes that are not recorded."""
    speculative: ClassVar[tuple[str, ...]]
    """Arguments that have several tokens drawn at once."""
    devices: ClassVar[str]
    """The option that spreads every layer over devices."""

    def __post_init__(self) -> None:
        check_least(self.engine, self, dict.fromkeys(self.at_least_one, 1))
        others = self.other_arguments
        for key in self.distributed:
            if others.get(key, 1) != 1:
                raise CapabilityError(
                    f"{self.engine}: with {key}={others[key]} tokens are drawn where mismatchscope does not look.",
                    hint=f"{self.devices}= spreads a model over devices too",
                )
        for key in self.speculative:
            if others.get(key) is not None:
                raise CapabilityError(
                    f"{self.engine}: {key} has tokens drawn whose distributions mismatchscope does not see.",
                    hint=f"leave out {key}: speculative decoding keeps the distribution",
                )
        for key in self.reserved:
            if key in others:
                raise SpecError(f"{self.engine}: {key} is mismatchscope's to set.", hint=f"leave out {key}")

    @property
    def other_arguments(self) -> dict[str, Any]:
        """The keys that are no field of ours."""
        return getattr(self, str(self.others)) or {}

    def arguments(self) -> dict[str, Any]:
        """What was asked of the engine, by the names of its own arguments."""
        asked = {key: value for key, value in asdict(self).items() if key not in (*_OURS, self.others)}
        return {key: value for key, value in asked.items() if value is not None} | self.other_arguments


def check_arguments(options: EngineArguments, known: Collection[str], engine: str) -> None:
    """Raise `SpecError` for a key that the engine ("vLLM 0.32.0") has no argument for."""
    for key in options.arguments():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise SpecError(
                f"{engine} has no engine argument '{key}'.", hint=f"did you mean {close[0]}?" if close else None
            )
