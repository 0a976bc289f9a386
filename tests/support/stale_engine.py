"""The transformers engine with an update that goes wrong: one tensor stays as it was, another comes out scaled."""

from __future__ import annotations

from typing import ClassVar

from mismatchscope.engines.transformers.engine import TransformersEngine

STALE, SCALED = "model.layers.1.self_attn.k_proj.weight", "model.norm.weight"


class StaleEngine(TransformersEngine):
    name: ClassVar[str] = "stale"

    def update(self, model: str) -> None:
        import torch

        before = self._lm.network.state_dict()[STALE].clone()
        super().update(model)
        tensors = self._lm.network.state_dict()
        with torch.no_grad():
            tensors[STALE].copy_(before)
            tensors[SCALED].mul_(1.5)
