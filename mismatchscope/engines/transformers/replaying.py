"""Another side's experts in this side's forward: its choice alone, or its choice with its weights.

In the models of transformers 5 a block of experts has a module `gate` or `router`, which returns (logits, weights
of the chosen experts [N, k], their ids [N, k]). What such a module makes of its choice, normalising and scaling of
the weights, is its own code: only the top-k in it is replaced.

Shapes: N tokens of a micro-batch with its padding, S tokens of a sequence, k chosen experts in slot order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...errors import EngineError
from ..common.stage_files import internals_path, read_internals
from ..common.stages import EXPERT_IDS, EXPERT_WEIGHTS, asked_for, layer_of, match

if TYPE_CHECKING:
    from torch.nn import Module

    from ...records import Task
    from ..common.tokenized import ScoreRequest
    from .prefilling import MicroBatch

_OWN = -1
"""In place of an expert: the router's own choice, at padding."""


@dataclass(frozen=True, eq=False)
class GivenRoutes:
    """The experts of one layer for a sequence; without weights they are weighed by the router that is replaced."""

    ids_Sk: np.ndarray
    weights_Sk: np.ndarray | None = None


def routers(network: Module) -> dict[int, Module]:
    """The modules that choose experts, by the number of their layer; none in a dense model."""
    sites = match([name for name, _ in network.named_modules()], "transformers", (f"layers.*.{EXPERT_IDS}",)).sites
    return {
        layer: network.get_submodule(site.module)
        for stage, site in sites.items()
        if (layer := layer_of(stage)) is not None
    }


def given_routes(task: Task, request: ScoreRequest) -> dict[int, GivenRoutes]:
    """What another side has shown of a sequence (`Task.inputs`), as far as `Task.stages` asks for it."""
    stages = read_internals(internals_path(Path(task.inputs), request.sequence_id)).stages
    found = {}
    for stage, ids in stages.items():
        if stage.endswith(EXPERT_IDS) and asked_for(stage, task.stages):
            layer = layer_of(stage)
            assert layer is not None
            weights = f"layers.{layer}.{EXPERT_WEIGHTS}"
            with_weights = asked_for(weights, task.stages)
            if with_weights and weights not in stages:
                raise EngineError(f"The other side has not shown its experts' weights in layer {layer}.")
            found[layer] = GivenRoutes(ids.bits, stages[weights].floats() if with_weights else None)
    return found


def replaying(
    network: Module, task: Task, requests: Sequence[ScoreRequest], batch: MicroBatch
) -> AbstractContextManager[None]:
    """Within it, the forward of these sequences takes what the task gives; else it is the network's own.

    Raises what `replayed` does, and `TraceError` for a sequence that the other side has not shown.
    """
    if not task.inputs:
        return nullcontext()
    return replayed(network, [given_routes(task, request) for request in requests], batch)


@contextmanager
def replayed(network: Module, routes: Sequence[Mapping[int, GivenRoutes]], batch: MicroBatch) -> Iterator[None]:
    """Within it, the network's forward of this micro-batch takes the experts of `routes`, by layer for each of its
    sequences.

    Raises `EngineError` for layers that the network has and the routes have not, or the other way about, for a
    router of another form, and for routes of another length.
    """
    modules = routers(network)
    for given in routes:
        if given.keys() != modules.keys():
            raise EngineError(
                f"The routes to replay are of the layers {sorted(given)}, {type(network).__name__} routes in "
                f"{sorted(modules)}.",
                hint="both sides must run the same model",
            )
    before = {layer: module.__dict__.get("forward") for layer, module in modules.items()}
    try:
        for layer, module in modules.items():
            ids_Nk, weights_Nk = _laid_out([given[layer] for given in routes], batch)
            module.forward = _replacing(module, ids_Nk, weights_Nk)
        yield
    finally:
        for layer, module in modules.items():
            module.__dict__.pop("forward", None)
            if (own := before[layer]) is not None:  # a router that another option has wrapped already
                module.forward = own


def _laid_out(given: Sequence[GivenRoutes], batch: MicroBatch) -> tuple[Tensor, Tensor | None]:
    """[N, k] of all rows of a micro-batch end to end, `_OWN` and NaN at its padding."""
    rows, columns = batch.input_ids_BT.shape
    ids_Nk = np.full((rows * columns, given[0].ids_Sk.shape[1]), _OWN, dtype=np.int64)
    weights_Nk = np.full(ids_Nk.shape, np.nan, dtype=np.float32)
    for routes, span in zip(given, batch.spans, strict=True):
        if len(routes.ids_Sk) != span.stop - span.start:
            raise EngineError(
                f"There are routes of {len(routes.ids_Sk)} tokens for a sequence of {span.stop - span.start}."
            )
        ids_Nk[span] = routes.ids_Sk
        if routes.weights_Sk is not None:
            weights_Nk[span] = routes.weights_Sk
    with_weights = any(routes.weights_Sk is not None for routes in given)
    return torch.from_numpy(ids_Nk), torch.from_numpy(weights_Nk) if with_weights else None


def _replacing(module: Module, ids_Nk: Tensor, weights_Nk: Tensor | None) -> Callable[..., Any]:
    own: Callable[..., Any] = module.forward

    def forward(*arguments: Any, **options: Any) -> Any:
        with _Choosing(ids_Nk):
            found = own(*arguments, **options)
        if not _is_routing(found) or found[2].shape != ids_Nk.shape or found[1].shape != ids_Nk.shape:
            raise EngineError(f"The router {type(module).__name__} has another form than can be replayed.")
        logits, weights_own_Nk, chosen_Nk = found[:3]
        given_Nk = ids_Nk.to(chosen_Nk.device)
        if not torch.equal(torch.where(given_Nk == _OWN, chosen_Nk, given_Nk), chosen_Nk):
            raise EngineError(
                f"The router {type(module).__name__} does not choose by a top-k that can be replayed."
            )
        if weights_Nk is not None:
            other_Nk = weights_Nk.to(weights_own_Nk.device, weights_own_Nk.dtype)
            weights_own_Nk = torch.where(other_Nk.isnan(), weights_own_Nk, other_Nk)
        return type(found)((logits, weights_own_Nk, chosen_Nk, *found[3:]))

    return forward


def _is_routing(found: Any) -> bool:
    return isinstance(found, tuple) and len(found) >= 3 and all(isinstance(each, Tensor) for each in found[:3])


class _Choosing(TorchFunctionMode):
    """Within it, a top-k of k of the experts [N, E] finds the given ones. One among groups of experts is left."""

    def __init__(self, ids_Nk: Tensor) -> None:
        super().__init__()
        self._ids_Nk = ids_Nk
        self._largest = int(ids_Nk.max())

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        found = function(*arguments, **(options or {}))
        if function not in (torch.topk, Tensor.topk) or found.indices.shape != self._ids_Nk.shape:
            return found
        score_NE = arguments[0] if arguments else (options or {})["input"]
        if score_NE.shape[-1] <= self._largest:
            return found
        given_Nk = self._ids_Nk.to(found.indices.device)
        ids_Nk = torch.where(given_Nk == _OWN, found.indices, given_Nk)
        return torch.return_types.topk((score_NE.gather(-1, ids_Nk), ids_Nk))
