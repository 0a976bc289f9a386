"""Numbers as fp8 keeps them, in a model that computes in its own dtype: weights, and a key-value cache.

fp8 is e4m3 without infinities (Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433), up to 448.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ...errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_E4M3 = torch.float8_e4m3fn
_LARGEST = torch.finfo(_E4M3).max
_ROUTERS = ("gate", "router")
"""What sends tokens to experts, which engines keep in the model's dtype."""


def rounded(value: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """The nearest numbers that fp8 has under a scale, in the dtype of `value`; what is beyond the largest is it."""
    within = (value.float() / scale).clamp(-_LARGEST, _LARGEST)
    return (within.to(_E4M3).float() * scale).to(value.dtype)


@torch.no_grad()
def round_weights(network: PreTrainedModel, scales: str) -> None:
    """Round the weights of all linear layers but the head and routers: "fp8_per_tensor" under a scale for each
    matrix, "fp8_per_channel" under one for each of its outputs. An expert's matrix is one of its own.

    Raises `ModelError` for a model that has none.
    """
    weights = list(_projections(network))
    if not weights:
        raise ModelError(
            f"weight_quantization: {type(network).__name__} has no linear layers that are known",
            hint="leave weight_quantization out",
        )
    along = -1 if scales == "fp8_per_channel" else (-2, -1)
    for weight in weights:
        largest = weight.float().abs().amax(dim=along, keepdim=True)
        weight.copy_(rounded(weight, (largest / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)))


def _projections(network: PreTrainedModel) -> Iterator[Tensor]:
    """Matrices [outputs, inputs], or such of all experts in one tensor."""
    head = network.get_output_embeddings()
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and module is not head and name.rpartition(".")[2] not in _ROUTERS:
            yield module.weight
    for name, parameter in network.named_parameters():
        if parameter.ndim == 3 and ".experts." in name:
            yield parameter


class Fp8Cache(DynamicCache):
    """Keeps keys and values as fp8 under the scale 1; attention is given them so, those of this step among them."""

    def update(self, key_states: Tensor, value_states: Tensor, *arguments: Any, **options: Any) -> Any:
        return super().update(rounded(key_states), rounded(value_states), *arguments, **options)
