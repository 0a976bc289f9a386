"""Ways to round: the same network, computed in float32, with intermediate values rounded where a kernel would.

Products of bfloat16 matrices are accumulated in float32 by every engine and rounded when they are stored, so a
kernel is known by what it stores. Rounding by hand is three times as fast on a CPU as its own bfloat16, and makes
kernels that no library has; development never sees one of them.

Shapes: B rows, H heads, Q queries, K keys, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

Tensor = torch.Tensor
Precision = Literal["bf16", "fp16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
NEVER = -1e4
"""The score of a key that is not seen. A row of them is no NaN."""
_LEAST = -87.0
"""Below this the exponential is no normal float32; computing it takes ten times as long, for nothing."""


def rounded(value: Tensor, precision: Precision) -> Tensor:
    """The nearest numbers of a precision, as float32."""
    return value if precision == "fp32" else value.to(DTYPES[precision]).float()


@dataclass(frozen=True)
class Kernel:
    """What is stored on the way, and so rounded. Attention stores its scores and probabilities ("stored"), or keeps
    them in registers and rounds the weights before the last product ("fused"), or joins two parts of the keys, each
    rounded ("split")."""

    name: str
    attention: Literal["stored", "fused", "split"]
    norms: bool = True
    residual: bool = True
    products: bool = True
    router: bool = True

    def attend(self, score_BHQK: Tensor, value_BHKD: Tensor, sink: float | None, precision: Precision) -> Tensor:
        """Weights of the scores times the values. `sink` is the score of a key without a value."""
        if self.attention == "stored":
            score_BHQK = rounded(score_BHQK, precision)
        top_BHQ1 = score_BHQK.amax(-1, keepdim=True)
        if sink is not None:
            top_BHQ1 = top_BHQ1.clamp(min=sink)
        weight_BHQK = (score_BHQK - top_BHQ1).clamp_(min=_LEAST).exp_()
        total_BHQ1 = weight_BHQK.sum(-1, keepdim=True)
        if sink is not None:
            total_BHQ1 = total_BHQ1 + (sink - top_BHQ1).exp()
        if self.attention == "stored":
            return rounded(rounded(weight_BHQK / total_BHQ1, precision) @ value_BHKD, precision)
        weight_BHQK = rounded(weight_BHQK, precision)
        if self.attention == "fused":
            return rounded(weight_BHQK @ value_BHKD / total_BHQ1, precision)
        half = score_BHQK.shape[-1] // 2
        near = rounded(weight_BHQK[..., half:] @ value_BHKD[..., half:, :], precision)
        far = rounded(weight_BHQK[..., :half] @ value_BHKD[..., :half, :], precision)
        return rounded((far + near) / total_BHQ1, precision)


STORED = Kernel("stored", "stored")
FUSED = Kernel("fused", "fused", router=False)
LEAN = Kernel("lean", "fused", norms=False, products=False)
SPLIT = Kernel("split", "split", residual=False, norms=False)
DEVELOPMENT = (STORED, FUSED, LEAN)
HELD_OUT = (*DEVELOPMENT, SPLIT)


class Rounding:
    """Hooks on a network that round what its modules return, as `kernel` and `precision` have it at the time."""

    def __init__(self, network: Any) -> None:
        self.kernel = STORED
        self.precision: Precision = "fp32"
        head = network.get_output_embeddings()
        for name, module in network.named_modules():
            if module is head:
                continue
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(self._hook(lambda kernel: True))
                if name.rpartition(".")[2] in ("down_proj", "dense_4h_to_h"):
                    module.register_forward_pre_hook(self._product)
            elif "Norm" in type(module).__name__:
                module.register_forward_hook(self._hook(lambda kernel: kernel.norms))
            elif name.rpartition(".")[2] == "experts":
                module.register_forward_hook(self._hook(lambda kernel: True))
            elif type(module).__name__.endswith(("DecoderLayer", "NeoXLayer")):
                module.register_forward_hook(self._hook(lambda kernel: kernel.residual))

    def _hook(self, applies: Callable[[Kernel], bool]) -> Callable[..., Any]:
        def hook(module: Any, inputs: Any, output: Any) -> Any:
            if self.precision == "fp32" or not applies(self.kernel):
                return output
            return rounded(output, self.precision)

        return hook

    def _product(self, module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self.precision == "fp32" or not self.kernel.products:
            return None
        return (rounded(inputs[0], self.precision), *inputs[1:])
