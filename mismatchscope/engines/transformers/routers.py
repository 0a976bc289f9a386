"""The routers of a mixture of experts, and routing in float32 whatever the precision of the rest.

Half precision makes experts' scores equal that are not, and sends a token elsewhere than the other side does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGITS = "router_logits"
"""What transformers calls the scores of experts, among the outputs that a model says which module makes."""


def find_routers(network: PreTrainedModel) -> list[nn.Module]:
    """The modules that score the experts, layer by layer: those whose outputs transformers records as such.

    None in a dense model, nor where a module does more than routing.
    """
    recorded = getattr(network.base_model, "_can_record_outputs", None) or {}
    kind = getattr(recorded.get(_LOGITS), "target_class", None)
    if kind is None:
        return []
    return [module for module in network.modules() if isinstance(module, kind) and _only_routes(module)]


def _only_routes(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), Tensor) and not any(module.children())


def route_in_float32(network: PreTrainedModel) -> None:
    """Have the routers compute in float32, and hand their weights on in float32. Raises `ModelError`."""
    routers = find_routers(network)
    if not routers:
        raise ModelError(
            f"{type(network).__name__} has no router that transformers shows, to run it in float32",
            hint="router=model; a dense model has none",
        )
    for router in routers:
        router.float()
        router.forward = _in_float32(router.forward)


def _in_float32(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(hidden.device.type, enabled=False):
            return forward(hidden.float(), *args, **kwargs)

    return run
