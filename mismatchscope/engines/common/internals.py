"""Looking inside a network while it computes, and putting other values in: hooks on the modules of `stages`.

Both are context managers around forwards. Where both are at work, the recorder is entered first, and so sees what a
module made of the values that were put in before it, not what is put in after it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor

from ...errors import EngineError
from .stages import Architecture, Site, match


class Recorder:
    """Keeps what passes the stages that are asked for, on the CPU, forward after forward.

    A stage of a batch is kept row by row: [B, T, H] as [B·T, H].
    """

    def __init__(self, network: torch.nn.Module, architecture: Architecture, stages: Collection[str]) -> None:
        self._modules = dict(network.named_modules())
        matched = match(list(self._modules), architecture, stages)
        self.sites, self.unmatched = matched.sites, matched.unmatched
        self._seen: dict[str, list[Tensor]] = {stage: [] for stage in self.sites}
        self._until_closed = ExitStack()

    def __enter__(self) -> Self:
        for stage, site in self.sites.items():
            self._until_closed.callback(self._listen(stage, site, self._modules[site.module]))
        return self

    def __exit__(self, *_: object) -> None:
        self._until_closed.close()

    def keep(self, stage: str, value: Tensor) -> None:
        self._seen[stage].append(value.detach().reshape(-1, value.shape[-1]).to("cpu", copy=True))

    def stages(self, length: int) -> dict[str, Tensor]:
        """What was kept [length, width]. Raises `EngineError` where a stage has another number of rows."""
        for stage, seen in self._seen.items():
            if (rows := sum(len(part) for part in seen)) != length:
                raise EngineError(
                    f"{rows} of {length} tokens passed {self.sites[stage].module}: what the engine runs is not its "
                    "modules, but a graph that was captured or compiled of them",
                    hint="turn graphs and compilation off: enforce_eager=true, disable_cuda_graph=true",
                )
        return {stage: torch.cat(seen) for stage, seen in self._seen.items()}

    def _listen(self, stage: str, site: Site, module: torch.nn.Module) -> Callable[[], None]:
        """Begin to keep a stage; returns what ends it."""

        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.keep(stage, first_input(args, kwargs))

        def after(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if site.part == "stream":
                self.keep(stage, _stream(args, kwargs, output))
            else:
                self.keep(stage, tensors_of(output)[place_of(site, output)])

        if site.part == "input":
            return module.register_forward_pre_hook(before, with_kwargs=True).remove
        return module.register_forward_hook(after, with_kwargs=True).remove


class Injection:
    """Puts other values, of the same tokens, in the place of what comes out of stages, so that all that follows
    goes on from them. A value is brought to the dtype and device of what it replaces.

    `values` are [rows, width]; stages that the network does not have are left out, and named in `left_out`.
    """

    def __init__(self, network: torch.nn.Module, architecture: Architecture, values: Mapping[str, Tensor]) -> None:
        self._modules = dict(network.named_modules())
        sites = match(list(self._modules), architecture).sites
        self._sites = {stage: site for stage, site in sites.items() if stage in values}
        self.left_out = sorted(values.keys() - sites.keys())
        self._values = values
        self._until_closed = ExitStack()

    def __enter__(self) -> Self:
        for stage, site in self._sites.items():
            self._until_closed.callback(self._replace(site, self._modules[site.module], self._values[stage]))
        return self

    def __exit__(self, *_: object) -> None:
        self._until_closed.close()

    def _replace(self, site: Site, module: torch.nn.Module, value: Tensor) -> Callable[[], None]:
        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return (_like(value, args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": _like(value, kwargs["hidden_states"])}

        def after(_: Any, args: tuple[Any, ...], output: Any) -> Any:
            if isinstance(output, Tensor):
                return _like(value, output)
            place = [index for index, each in enumerate(output) if isinstance(each, Tensor)][place_of(site, output)]
            return tuple(_like(value, each) if index == place else each for index, each in enumerate(output))

        if site.part == "input":
            return module.register_forward_pre_hook(before, with_kwargs=True).remove
        return module.register_forward_hook(after).remove


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a module is given."""
    return tensors_of(args)[0] if args else kwargs["hidden_states"]


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors among what a module returns, in their order."""
    return [output] if isinstance(output, Tensor) else [each for each in output if isinstance(each, Tensor)]


def place_of(site: Site, output: Any) -> int:
    """Which of a module's tensors a site is. Of a router's the ids are the whole numbers; the weights, of the same
    shape, stand before them."""
    if site.part not in ("expert_ids", "expert_weights"):
        return 0
    ids = next(index for index, each in enumerate(tensors_of(output)) if not each.is_floating_point())
    return ids if site.part == "expert_ids" else ids - 1


def _stream(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor:
    """What a norm has read: it returns the sum where it was given two parts, and what it was given else."""
    return first_input(args, kwargs) if isinstance(output, Tensor) else tensors_of(output)[1]


def _like(value: Tensor, other: Tensor) -> Tensor:
    return value.reshape(other.shape).to(other)
